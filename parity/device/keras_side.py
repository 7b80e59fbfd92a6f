"""The Keras side of the device report; imports no PyTorch."""

import gc
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_impl import create_model, ops, tracing, weights
from keras_impl.devices import select_device, share_gpus
from keras_impl.optim import create_optimizer
from keras_impl.steps import compute_gradients, make_train_step, training_loss
from keras_impl.train import precision_policy, train
from parity.device import inputs
from parity.device.timing import images_per_second
from parity.spec import recipes, runs

Arrays = dict[str, np.ndarray]
DTYPES = {"float64": tf.float64, "bfloat16": tf.bfloat16}


def facts() -> dict[str, object]:
    """Returns versions, and the GPU that this framework sees, None for none."""
    build = tf.sysconfig.get_build_info()
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    versions |= {"CUDA": build.get("cuda_version"), "cuDNN": build.get("cudnn_version")}
    gpu = None
    if gpus := share_gpus():
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = map(str, details.get("compute_capability", ()))
        gpu = {
            "name": details.get("device_name", gpus[0].name),
            "compute capability": ".".join(capability) or "unknown",
        }
    return {"versions": {k: str(v or "none") for k, v in versions.items()}, "gpu": gpu}


class Network:
    """A model in inference mode, in one type on one device.

    bfloat16 is Keras's mixed precision: the weights stay float32.

    Args:
        name: the model.
        dtype: "float64", "float32", "tf32" or "bfloat16".
        device: "cpu" or "gpu".
    """

    def __init__(self, name: str, dtype: str, device: str):
        self.device = select_device(device, tf32=dtype == "tf32")
        self.precision = dtype
        self.dtype = tf.float64 if dtype == "float64" else tf.float32
        with tf.device(self.device), precision_policy(dtype):
            self.model = create_model(name, **inputs.architecture(name))
            with tracing.record_calls(self.model) as calls:
                image = tf.constant(inputs.batch(name)[0][:1], self.dtype)
                self.model(image, training=False)
            self.weights = weights.named_weights(self.model)
        # Layers that run in training only.
        self.heads = bool(tracing.unused_layers(self.model, calls))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each weight in the common form."""
        return {x.layout.name: x.layout.torch_shape for x in self.weights}

    def load(self, tensors: Arrays) -> None:
        """Takes weights in the common form."""
        for weight in self.weights:
            array = weight.layout.to_keras(tensors[weight.layout.name], np)
            weight.variable.assign(array)

    def passes(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Returns outputs, loss and gradients, in PyTorch's names and layout."""
        trainable = [x for x in self.weights if x.variable.trainable]
        with tf.device(self.device), precision_policy(self.precision):
            images = tf.constant(images, self.dtype)
            with tf.GradientTape() as tape:
                tape.watch(images)
                if self.heads:  # `call` alone leaves the layers in inference mode
                    outputs = self.model.call(images, training=True)
                else:
                    outputs = self.model(images, training=False)
                outputs = tracing.tensors_in(outputs)
                # The loss is not mixed.
                outputs = tuple(tf.cast(x, self.dtype) for x in outputs)
                loss = training_loss(
                    outputs if len(outputs) > 1 else outputs[0], labels
                )
            variables = [x.variable for x in trainable]
            *gradients, by_images = tape.gradient(loss, [*variables, images])
        found = {
            f"outputs/{index}": np.moveaxis(x, 3, 1) if x.ndim == 4 else x
            for index, x in enumerate(map(np.asarray, outputs))
        }
        found["gradients/loss"] = np.asarray(loss)
        for weight, gradient in zip(trainable, gradients, strict=True):
            name = f"gradients/{weight.layout.name}"
            found[name] = weight.layout.to_torch(np.asarray(gradient))
        found["gradients/images"] = np.moveaxis(np.asarray(by_images), 3, 1)
        return found

    def train(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Returns the loss of each step, and the weights after the last.

        Args:
            images: (steps, N, H, W, C).
            labels: (steps, N).
        """
        losses = []
        with tf.device(self.device), precision_policy(self.precision):
            optimizer = create_optimizer("momentum", inputs.LEARNING_RATE)
            for batch, targets in zip(images, labels, strict=True):
                batch = tf.constant(batch, self.dtype)
                loss, gradients = compute_gradients(self.model, batch, targets)
                optimizer.apply(gradients, self.model.trainable_variables)
                losses.append(float(loss))
        found = weights.to_common(self.weights)
        arrays = {f"steps/{name}": np.array(x) for name, x in found.items()}
        return {"steps/losses": np.array(losses)} | arrays


def convolutions(dtype: str, device: str, absolute: bool = False) -> Arrays:
    """Returns `conv2d` and its gradients on the grid."""
    place = select_device(device, tf32=dtype == "tf32")
    dtype = DTYPES.get(dtype, tf.float32)
    found = {}
    for index, case in enumerate(inputs.CONVOLUTIONS):
        arrays = [np.abs(x) if absolute else x for x in case.arrays()]
        with tf.device(place):
            images, kernel = (tf.cast(x, dtype) for x in arrays)
            with tf.GradientTape() as tape:
                tape.watch([images, kernel])
                outputs = ops.conv2d(images, kernel, **case.settings)
            factors = inputs.factors(tuple(outputs.shape))
            factors = tf.cast(np.abs(factors) if absolute else factors, dtype)
            gradients = tape.gradient(outputs, [images, kernel], factors)
        found[f"{index}/outputs"] = _to_numpy(outputs)
        found[f"{index}/by images"] = _to_numpy(gradients[0])
        found[f"{index}/by kernel"] = _to_numpy(gradients[1])
    return found


def _to_numpy(tensor: tf.Tensor) -> np.ndarray:
    wide = tf.float32 if tensor.dtype == tf.bfloat16 else tensor.dtype
    return tf.cast(tensor, wide).numpy()


def train_model(options: runs.Options) -> Path:
    """Trains a model; returns the run folder."""
    return train(options).folder


def speed(
    name: str, device: str, image_size: int, batch_size: int, seconds: float
) -> Arrays:
    """Returns the images per second of float32 training steps on one batch."""
    with tf.device(select_device(device)):
        shape = recipes.shape(recipes.find(name), 10, image_size)
        model = create_model(name, **shape.arguments(), seed=0)
        optimizer = create_optimizer("momentum", 1e-3)
        train_step = make_train_step(model, optimizer)
        size = (batch_size, image_size, image_size, shape.in_channels)
        generator = np.random.default_rng(0)
        images = tf.constant(generator.standard_normal(size, np.float32))
        labels = tf.constant(generator.integers(0, 10, batch_size))
        return {
            "images per second": images_per_second(train_step, images, labels, seconds)
        }


def clear() -> None:
    """Gives back the memory of models that are gone."""
    keras.backend.clear_session()
    gc.collect()

"""The PyTorch side of the device report; imports no TensorFlow and no Keras."""

import gc
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from parity.device import inputs
from parity.device.timing import images_per_second
from parity.spec import recipes, runs
from torch_impl import create_model, ops, tracing, weights
from torch_impl.devices import select_device
from torch_impl.optim import create_optimizer
from torch_impl.steps import autocast, compute_gradients, make_train_step, training_loss
from torch_impl.train import train

Arrays = dict[str, np.ndarray]
DTYPES = {"float64": torch.float64, "bfloat16": torch.bfloat16}


def facts() -> dict[str, object]:
    """Returns versions, and the GPU that this framework sees, None for none."""
    versions = {"torch": torch.__version__, "torchvision": version("torchvision")}
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    if cudnn:
        cudnn = f"{cudnn // 10_000}.{cudnn % 10_000 // 100}.{cudnn % 100}"
    versions |= {"CUDA": torch.version.cuda, "cuDNN": cudnn}
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {
            "name": properties.name,
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "compute capability": f"{properties.major}.{properties.minor}",
        }
    return {"versions": {k: str(v or "none") for k, v in versions.items()}, "gpu": gpu}


class Network:
    """A model in inference mode, in one type on one device.

    bfloat16 is automatic mixed precision: the weights stay float32.

    Args:
        name: the model.
        dtype: "float64", "float32", "tf32" or "bfloat16".
        device: "cpu" or "gpu".
    """

    def __init__(self, name: str, dtype: str, device: str):
        self.device = select_device(device, tf32=dtype == "tf32")
        self.precision = dtype
        self.dtype = torch.float64 if dtype == "float64" else torch.float32
        model = create_model(name, **inputs.architecture(name))
        self.model = model.to(self.device, self.dtype).eval()
        with torch.no_grad(), tracing.record_calls(self.model) as calls:
            self.model(self._place(inputs.batch(name)[0][:1]))
        # Heads that run in training only: then the model itself is told of training.
        self.model.training = bool(tracing.unused_layers(self.model, calls))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each weight in the common form."""
        named = weights.named_weights(self.model)
        return {name: tuple(tensor.shape) for name, tensor in named.items()}

    def load(self, tensors: Arrays) -> None:
        """Takes weights in the common form."""
        weights.load_state_dict(self.model, tensors, "the probe")

    def passes(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Returns outputs, loss and gradients, in PyTorch's names and layout."""
        images = self._place(images).requires_grad_()
        labels = torch.from_numpy(labels).to(self.device)
        with autocast(self.device.type, self.precision):
            outputs = tracing.tensors_in(self.model(images))
        outputs = tuple(x.to(self.dtype) for x in outputs)  # the loss is not mixed
        loss = training_loss(outputs if len(outputs) > 1 else outputs[0], labels)
        named = {k: p for k, p in self.model.named_parameters() if p.requires_grad}
        *gradients, by_images = torch.autograd.grad(loss, [*named.values(), images])
        found = {f"outputs/{index}": x for index, x in enumerate(outputs)}
        found["gradients/loss"] = loss
        found |= {f"gradients/{k}": x for k, x in zip(named, gradients, strict=True)}
        found["gradients/images"] = by_images
        return {name: _to_numpy(tensor) for name, tensor in found.items()}

    def train(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Returns the loss of each step, and the weights after the last.

        Args:
            images: (steps, N, H, W, C).
            labels: (steps, N).
        """
        optimizer = create_optimizer(
            "momentum", inputs.LEARNING_RATE, self.model.parameters()
        )
        losses = []
        for batch, targets in zip(images, labels, strict=True):
            targets = torch.from_numpy(targets).to(self.device)
            loss, _ = compute_gradients(self.model, self._place(batch), targets)
            optimizer.step()
            losses.append(float(loss))
        found = weights.named_weights(self.model)
        arrays = {f"steps/{name}": _to_numpy(x).copy() for name, x in found.items()}
        return {"steps/losses": np.array(losses)} | arrays

    def _place(self, images: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
        return tensor.to(self.device, self.dtype)


def convolutions(dtype: str, device: str, absolute: bool = False) -> Arrays:
    """Returns `conv2d` and its gradients on the grid, as the Keras side has them."""
    place = select_device(device, tf32=dtype == "tf32")
    dtype = DTYPES.get(dtype, torch.float32)
    found = {}
    for index, case in enumerate(inputs.CONVOLUTIONS):
        arrays = [np.abs(x) if absolute else x for x in case.arrays()]
        images, kernel = (
            torch.tensor(x.transpose(axes), dtype=dtype, device=place)
            for x, axes in zip(arrays, ((0, 3, 1, 2), (3, 2, 0, 1)), strict=True)
        )
        images.requires_grad_()
        kernel.requires_grad_()
        outputs = ops.conv2d(images, kernel, **case.settings)
        as_keras = outputs.permute(0, 2, 3, 1)
        factors = inputs.factors(tuple(as_keras.shape))
        factors = np.abs(factors) if absolute else factors
        factors = torch.tensor(factors, dtype=dtype, device=place)
        gradients = torch.autograd.grad(as_keras, [images, kernel], factors)
        found[f"{index}/outputs"] = _to_numpy(as_keras)
        found[f"{index}/by images"] = _to_numpy(gradients[0].permute(0, 2, 3, 1))
        found[f"{index}/by kernel"] = _to_numpy(gradients[1].permute(2, 3, 1, 0))
    return found


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def train_model(options: runs.Options) -> Path:
    """Trains a model; returns the run folder."""
    return train(options).folder


def speed(
    name: str, device: str, image_size: int, batch_size: int, seconds: float
) -> Arrays:
    """Returns the images per second of float32 training steps on one batch."""
    place = select_device(device)
    shape = recipes.shape(recipes.find(name), 10, image_size)
    model = create_model(name, **shape.arguments(), seed=0).to(place)
    optimizer = create_optimizer("momentum", 1e-3, model.parameters())
    train_step = make_train_step(model, optimizer)
    size = (batch_size, shape.in_channels, image_size, image_size)
    generator = np.random.default_rng(0)
    images = torch.tensor(generator.standard_normal(size, np.float32), device=place)
    labels = torch.tensor(generator.integers(0, 10, batch_size), device=place)
    return {"images per second": images_per_second(train_step, images, labels, seconds)}


def clear() -> None:
    """Gives back the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""One side's tensors of a forward or backward pass, in PyTorch's layout and float64."""

from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import tracing as keras_tracing
from keras_impl import weights as keras_weights
from keras_impl.steps import training_loss as keras_loss
from parity.precision import keras_as, torch_as
from torch_impl import tracing as torch_tracing
from torch_impl.steps import training_loss as torch_loss

Arrays = tuple[np.ndarray, ...]


class Row(NamedTuple):
    """A layer's tensors, or one gradient."""

    name: str
    inputs: Arrays | None
    outputs: Arrays


class Trace(NamedTuple):
    """All rows by name and count of calls, and what the model returned."""

    rows: dict[tuple[str, int], Row]
    outputs: Arrays | None = None


def _keyed(rows: list[Row]) -> dict[tuple[str, int], Row]:
    keyed = {}
    for row in rows:
        count = sum(name == row.name for name, _ in keyed)
        keyed[row.name, count] = row
    return keyed


def keras_outputs(
    model: keras.Model, images: np.ndarray, dtype: str, device: str
) -> Trace:
    """Returns every leaf layer's tensors in inference mode, heads for training too."""
    with keras_as(model, dtype, device) as cast_model:
        heads = _has_keras_heads(cast_model, tf.constant(images[:1], dtype))
        with keras_tracing.record_calls(cast_model) as calls:
            output = _keras_call(cast_model, tf.constant(images, dtype), heads)
    maps = keras_tracing.flattened_maps(calls)
    rows = [
        Row(
            call.name, _channels_first(call.inputs, x), _channels_first(call.outputs, y)
        )
        for call, (x, y) in zip(calls, maps, strict=True)
    ]
    outputs = keras_tracing.tensors_in(output)
    return Trace(_keyed(rows), _channels_first(outputs, (None,) * len(outputs)))


def _has_keras_heads(model: keras.Model, images: tf.Tensor) -> bool:
    """Returns whether layers with weights run in training only."""
    with keras_tracing.record_calls(model) as calls:
        model(images, training=False)
    return bool(keras_tracing.unused_layers(model, calls))


def _keras_call(model: keras.Model, images: tf.Tensor, heads: bool) -> object:
    """Returns the outputs in inference mode, with those of heads for training.

    A model's `call` alone, without Keras around it, tells its layers nothing of
    training: they stay in inference mode.
    """
    if heads:
        return model.call(images, training=True)
    return model(images, training=False)


def _prepare(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Puts a model in inference mode, but lets heads for training run.

    Those are known by weights that are not used in inference: then the model itself,
    and none of its modules, is told that it is training.
    """
    model.eval()
    with torch.no_grad(), torch_tracing.record_calls(model) as calls:
        model(images[:1])
    model.training = bool(torch_tracing.unused_layers(model, calls))


def _channels_first(tensors: tuple, maps: tuple) -> Arrays:
    arrays = []
    for tensor, flattened in zip(tensors, maps, strict=True):
        array = np.asarray(tensor, float)
        if flattened:
            map = array.reshape(-1, *flattened)
            array = np.moveaxis(map, 3, 1).reshape(array.shape)
        elif array.ndim == 4:
            array = np.moveaxis(array, 3, 1)
        arrays.append(array)
    return tuple(arrays)


def torch_outputs(
    model: torch.nn.Module, images: np.ndarray, dtype: str, device: str
) -> Trace:
    """Returns every leaf module's tensors in inference mode, heads for training too."""
    with (
        torch_as(model, dtype, device) as cast_model,
        torch.no_grad(),
    ):
        tensor = _torch_images(images, dtype, device)
        _prepare(cast_model, tensor)
        with torch_tracing.record_calls(cast_model) as calls:
            output = cast_model(tensor)
    rows = [Row(c.name, _to_numpy(c.inputs), _to_numpy(c.outputs)) for c in calls]
    return Trace(_keyed(rows), _to_numpy(torch_tracing.tensors_in(output)))


def _torch_images(images: np.ndarray, dtype: str, device: str) -> torch.Tensor:
    tensor = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    return tensor.to("cuda" if device == "gpu" else "cpu", getattr(torch, dtype))


def _to_numpy(tensors: tuple[torch.Tensor, ...]) -> Arrays:
    return tuple(tensor.detach().cpu().double().numpy() for tensor in tensors)


def keras_gradients(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, dtype: str, device: str
) -> Trace:
    """Returns the loss and its gradients, in the order of the backward pass."""
    weights = keras_weights.named_weights(model)
    weights = [weight for weight in weights if weight.variable.trainable]
    with keras_as(model, dtype, device) as cast_model:
        tensor = tf.constant(images, dtype)
        heads = _has_keras_heads(cast_model, tensor[:1])
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            loss = keras_loss(_keras_call(cast_model, tensor, heads), labels)
        variables = [weight.variable for weight in weights]
        *gradients, by_images = tape.gradient(loss, [*variables, tensor])
    named = {
        weight.layout.name: weight.layout.to_torch(gradient_or_nan(gradient, variable))
        for weight, variable, gradient in zip(
            weights, variables, gradients, strict=True
        )
    }
    by_images = np.moveaxis(gradient_or_nan(by_images, images), -1, 1)
    return _backward(np.asarray(loss, float), named, by_images)


def torch_gradients(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    device: str,
) -> Trace:
    """Returns the loss and its gradients, in the order of the backward pass."""
    with torch_as(model, dtype, device) as cast_model:
        tensor = _torch_images(images, dtype, device).requires_grad_()
        target = torch.from_numpy(labels).to(tensor.device)
        _prepare(cast_model, tensor)
        loss = torch_loss(cast_model(tensor), target)
        parameters = {k: p for k, p in cast_model.named_parameters() if p.requires_grad}
        *gradients, by_images = torch.autograd.grad(
            loss, [*parameters.values(), tensor], allow_unused=True
        )
        named = {
            name: gradient_or_nan(gradient, parameter)
            for (name, parameter), gradient in zip(
                parameters.items(), gradients, strict=True
            )
        }
        by_images = gradient_or_nan(by_images, tensor)
    return _backward(loss.detach().cpu().numpy(), named, by_images)


def _backward(
    loss: np.ndarray, gradients: dict[str, np.ndarray], by_images: np.ndarray
) -> Trace:
    rows = [Row(name, None, (array,)) for name, array in gradients.items()]
    first, last = Row("loss", None, (loss,)), Row("images", None, (by_images,))
    return Trace(_keyed([first, *reversed(rows), last]))


def gradient_or_nan(gradient: object, like: object) -> np.ndarray:
    """Returns a gradient in float64, or NaN where the loss does not depend on it."""
    if gradient is None:
        return np.full(tuple(like.shape), np.nan)
    if isinstance(gradient, torch.Tensor):
        gradient = gradient.detach().cpu()
    return np.array(gradient, float)

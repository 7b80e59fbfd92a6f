"""Effective receptive fields of both sides: `python -m parity receptive-field`.

Source: Luo, Li, Urtasun & Zemel, "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks", NeurIPS 2016, arXiv:1701.04128.
"""

import difflib
from pathlib import Path

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import create_model as create_keras_model
from keras_impl import tracing as keras_tracing
from keras_impl import weights as keras_weights
from parity.precision import keras_as, torch_as
from parity.spec.errors import UsageError
from parity.spec.fields import EffectiveField
from parity.spec.recipes import Shape
from parity.spec.summary import Row
from parity.spec.tolerances import TOLERANCES, relative_error
from parity.weights import copy_weights, read_weights
from torch_impl import create_model as create_torch_model
from torch_impl import tracing as torch_tracing
from torch_impl import weights as torch_weights
from torch_impl.summary import summarize

BATCH = 4  # images at a time, for the memory of large networks
STACK_CHANNELS = 256
STACK_IMAGE = Shape(height=9, width=9, in_channels=STACK_CHANNELS, num_classes=1)


def model_field(
    name: str,
    layer: str,
    shape: Shape,
    images: int = 32,
    seed: int = 0,
    weights: Path | None = None,
) -> EffectiveField:
    """Returns a model's effective receptive field on both sides.

    Args:
        name: the model.
        layer: the attribute path of a layer whose output is a map.
        shape: the model's input and output.
        images: how many random images.
        seed: of the images, and of the initial weights.
        weights: a file of any format; None takes the initial weights.

    Raises:
        UsageError: no such layer, one without a map or one that only trains.
    """
    torch_model = create_torch_model(name, **shape.arguments(), seed=seed)
    row = _find(name, torch_model, layer, shape)
    keras_model = create_keras_model(name, **shape.arguments())
    if weights is not None:
        tensors, _ = read_weights(name, weights, shape)
        torch_weights.load_state_dict(torch_model, tensors, str(weights))
        keras_weights.load_state_dict(keras_model, tensors, str(weights))
    else:
        copy_weights(torch_model, keras_model)
    inputs = random_images(shape, images, seed)
    title = f"{layer} of {name}"
    return measure(keras_model, torch_model, layer, inputs, row.field, title)


def stacked_fields(seed: int = 0) -> tuple[EffectiveField, EffectiveField]:
    """Returns the field of two stacked 3x3 convolutions and of one with 5x5.

    Both see 5x5 pixels. There is a ReLU between the two; weights are He's.
    """
    return tuple(
        _stack(sizes, title, seed)
        for sizes, title in (((3, 3), "two stacked 3x3"), ((5,), "one 5x5"))
    )


def stack_parameters(channels: int = STACK_CHANNELS) -> tuple[int, int]:
    """Returns the weights of two 3x3 convolutions of C channels, and of one 5x5."""
    return 18 * channels**2, 25 * channels**2


def _stack(sizes: tuple[int, ...], title: str, seed: int) -> EffectiveField:
    width = STACK_CHANNELS
    generator = torch.Generator().manual_seed(seed)
    keras_layers = [keras.Input((STACK_IMAGE.height, STACK_IMAGE.width, width))]
    torch_layers = []
    for size in sizes:
        if torch_layers:
            keras_layers.append(keras.layers.ReLU())
            torch_layers.append(torch.nn.ReLU())
        keras_layers.append(keras.layers.Conv2D(width, size, use_bias=False))
        torch_layers.append(torch.nn.Conv2d(width, width, size, bias=False))
        torch.nn.init.kaiming_normal_(torch_layers[-1].weight, generator=generator)
    keras_model = keras.Sequential(keras_layers)
    torch_model = torch.nn.Sequential(*torch_layers)
    copy_weights(torch_model, keras_model)
    last = str(len(torch_layers) - 1)
    row = _find(title, torch_model, last, STACK_IMAGE)
    images = random_images(STACK_IMAGE, BATCH, seed)
    return measure(keras_model, torch_model, last, images, row.field, title)


def random_images(shape: Shape, count: int, seed: int) -> np.ndarray:
    """Returns normally distributed images (count, H, W, C) in float64."""
    size = (count, shape.height, shape.width, shape.in_channels)
    return np.random.default_rng(seed).standard_normal(size)


def measure(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    layer: str,
    images: np.ndarray,
    theoretical: tuple[int, int],
    title: str,
) -> EffectiveField:
    """Returns the effective receptive field of one layer on both sides, in float64.

    That of the unit in the middle of the layer's map, summed over the map's channels.

    Args:
        keras_model: a built model.
        torch_model: its twin.
        layer: the attribute path of a layer whose output is a map, on both sides.
        images: (N, H, W, C), float64.
        theoretical: height and width of the theoretical field.
        title: what to call it.

    Raises:
        UsageError: the unit depends on no pixel, with these weights.
    """
    ours = _in_batches(keras_gradient, keras_model, layer, images)
    theirs = _in_batches(torch_gradient, torch_model, layer, images)
    maps = [np.abs(gradient).sum(-1).mean(0) for gradient in (ours, theirs)]
    if not 0 < np.sum(maps) < np.inf:
        raise UsageError(
            f"{title} has a gradient of 0, infinity or NaN with these weights"
        )
    error = relative_error(ours, theirs)
    equal = error <= TOLERANCES["gradients"]
    return EffectiveField(title, *maps, error, equal, theoretical)


def _in_batches(gradient, model, layer: str, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [gradient(model, layer, images[i : i + BATCH]) for i in starts]
    )


def keras_gradient(model: keras.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Returns the centre unit's gradient by the images (N, H, W, C)."""
    with keras_as(model, "float64", "cpu"):
        inputs = tf.constant(images)
        with tf.GradientTape() as tape, keras_tracing.record_calls(model) as calls:
            tape.watch(inputs)
            model(inputs, training=False)
            output = next(call.outputs[0] for call in calls if call.name == layer)
            _, height, width, _ = output.shape
            centre = tf.reduce_sum(output[:, height // 2, width // 2])
        return tape.gradient(centre, inputs).numpy()


def torch_gradient(
    model: torch.nn.Module, layer: str, images: np.ndarray
) -> np.ndarray:
    """Returns the centre unit's gradient by the images (N, H, W, C)."""
    centres = []

    def keep(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        _, _, height, width = output.shape
        centres.append(output[:, :, height // 2, width // 2].sum())

    with torch_as(model, "float64", "cpu"):
        inputs = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).requires_grad_()
        hook = torch_tracing.named_layers(model)[layer].register_forward_hook(keep)
        try:
            model.eval()(inputs)
        finally:
            hook.remove()
        (gradient,) = torch.autograd.grad(centres[0], inputs)
    return np.moveaxis(gradient.numpy(), 1, -1)


def _find(name: str, model: torch.nn.Module, layer: str, shape: Shape) -> Row:
    rows = {row.name: row for row in summarize(model, shape).rows}
    lists = f"`python -m torch_impl.summary {name}` lists them"
    if layer not in rows:
        near = difflib.get_close_matches(layer, rows, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"unknown layer {layer!r} of {name}; {hint}{lists}")
    row = rows[layer]
    what = f"layer {layer!r} of {name}"
    if not row.inference:
        raise UsageError(f"{what} runs in training only; {lists}")
    if len(row.shape) != 3:
        raise UsageError(f"{what} gives {row.shape[0]} numbers and no map; {lists}")
    return row

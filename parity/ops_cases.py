"""Runs one operation on both sides, with its gradients, and what rounding explains."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.frameworks import tf, torch
from keras_impl import ops as keras_ops
from parity.comparison import relative_error
from parity.precision import select_keras_device, select_torch_device
from parity.spec.errors import UsageError
from torch_impl import ops as torch_ops

# The axes of a Keras tensor in PyTorch's order, by what the tensor is.
LAYOUTS = {
    "maps": (0, 3, 1, 2),
    "kernel": (3, 2, 0, 1),
    "depthwise": (2, 3, 0, 1),
    "matrix": (1, 0),
    "array": None,
}
# Relative L2 errors of single operations in float64; no test needs a larger one.
TOLERANCE = 1e-12
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}


class Results(NamedTuple):
    """An operation's output and the gradients of a weighted sum of it by its tensors.

    Attributes:
        output: as the Keras side has it.
        gradients: by each floating-point tensor, likewise.
    """

    output: np.ndarray
    gradients: list[np.ndarray]


def to_torch(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns an array of the Keras side as the PyTorch side has it."""
    if layout == "depthwise":  # (h, w, C, M) to (C * M, 1, h, w)
        height, width, channels, multiplier = array.shape
        array = array.transpose(LAYOUTS[layout])
        return np.ascontiguousarray(array).reshape(-1, 1, height, width)
    axes = LAYOUTS[layout]
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))


def to_keras(array: np.ndarray, layout: str, shape: Sequence[int]) -> np.ndarray:
    """Returns an array of the PyTorch side as the Keras side has it."""
    if layout == "depthwise":
        height, width, channels, multiplier = shape
        array = array.reshape(channels, multiplier, height, width)
    axes = LAYOUTS[layout]
    return array if axes is None else array.transpose(np.argsort(axes))


def run(
    name: str,
    arrays: Sequence[np.ndarray],
    layouts: Sequence[str],
    settings: Mapping[str, object] | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
    output: str = "maps",
) -> tuple[Results, Results] | tuple[UsageError, UsageError]:
    """Runs an operation of both sides' `ops` on the same numbers.

    Args:
        name: of the operation.
        arrays: its tensors, as the Keras side has them.
        layouts: what each is, of LAYOUTS.
        settings: its keyword arguments.
        dtype: in which the floating-point tensors are given.
        device: "cpu" or "gpu".
        output: what the output is, of LAYOUTS.

    Returns:
        Keras's results and PyTorch's, or the errors that both raise. An error on one
        side only is raised.
    """
    settings = dict(settings or {})
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in arrays]
    sides = []
    for side in (_run_keras, _run_torch):
        try:
            sides.append(side(name, arrays, layouts, settings, device, output))
        except UsageError as error:
            sides.append(error)
    if sum(isinstance(side, UsageError) for side in sides) == 1:
        raise next(side for side in sides if isinstance(side, UsageError))
    return tuple(sides)


def _run_keras(name, arrays, layouts, settings, device, output):
    with tf.device(select_keras_device(device)), tf.GradientTape() as tape:
        tensors = [tf.constant(array) for array in arrays]
        floating = [x for x in tensors if x.dtype.is_floating]
        tape.watch(floating)
        value = getattr(keras_ops, name)(*tensors, **settings)
        target = tf.reduce_sum(weights(value.shape, value.dtype.name) * value)
    gradients = tape.gradient(target, floating, unconnected_gradients="zero")
    return Results(value.numpy(), [x.numpy() for x in gradients])


def _run_torch(name, arrays, layouts, settings, device, output):
    device = select_torch_device(device)
    tensors = [
        torch.tensor(to_torch(x, layout), device=device)
        for x, layout in zip(arrays, layouts, strict=True)
    ]
    floating = [x.requires_grad_() for x in tensors if x.is_floating_point()]
    value = getattr(torch_ops, name)(*tensors, **settings)
    layout = output if value.ndim == 4 or output != "maps" else "array"
    array = to_keras(value.detach().cpu().numpy(), layout, ())
    factors = to_torch(weights(array.shape, str(array.dtype)), layout)
    (torch.tensor(factors, device=device) * value).sum().backward()
    kinds = [
        (x.grad, layout, array.shape)
        for x, layout, array in zip(tensors, layouts, arrays, strict=True)
        if x.requires_grad
    ]
    return Results(
        array,
        [
            np.zeros(shape)
            if gradient is None
            else to_keras(gradient.cpu().numpy(), layout, shape)
            for gradient, layout, shape in kinds
        ],
    )


def weights(shape: Sequence[int], dtype: str = "float64") -> np.ndarray:
    """Returns the weights of the sum whose gradients are taken, all different."""
    return np.linspace(-1, 1, math.prod(shape)).reshape(shape).astype(dtype)


def assert_equal(value: np.ndarray, reference: np.ndarray) -> None:
    """Asserts that two float64 results are the same but for rounding."""
    assert relative_error(value, reference) < TOLERANCE


def assert_same(ours: Results, theirs: Results) -> None:
    """Asserts that both sides' outputs and gradients are the same."""
    assert_equal(theirs.output, ours.output)
    assert len(theirs.gradients) == len(ours.gradients)
    for gradient, reference in zip(theirs.gradients, ours.gradients, strict=True):
        assert_equal(gradient, reference)


def assert_rounded(
    value: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, terms: int
) -> None:
    """Asserts that a float32 result is off by no more than its sums' rounding.

    A sum of n products computed in any order is off by at most n * unit times the sum
    of the products' magnitudes, by 1 / (1 - n * unit) at most more (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", section 3.1); each of the inputs
    was rounded once before, which adds two units.

    Args:
        value: what float32 gave.
        exact: what float64 gave for the float32 inputs.
        magnitude: the sums of the products' magnitudes, such as |W| * |x|.
        terms: products in a sum.
    """
    bound = (terms + 2) * UNITS["float32"] * np.abs(magnitude)
    tiny = np.finfo(np.float32).tiny
    excess = np.abs(np.asarray(value, float) - exact) - bound * 1.01 - tiny
    assert excess.max(initial=-1.0) <= 0

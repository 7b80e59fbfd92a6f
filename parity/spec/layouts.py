"""How a Keras weight is laid out in PyTorch: one rule per kind of tensor.

The common form of a model's weights is a dict from PyTorch's names to arrays in
PyTorch's layout; safetensors files hold it, and either side reads and writes it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.spec.errors import WeightMismatch

# The problems of a set of tensors that an error lists.
LISTED = 8

# (Keras layer class, Keras weight) -> (PyTorch weight, rule, PyTorch's axis order)
VECTOR = ("as it is", (0,))
RULES = {
    ("Conv2D", "kernel"): ("weight", "HWIO -> OIHW", (3, 2, 0, 1)),
    ("Conv2D", "bias"): ("bias", *VECTOR),
    ("Conv2DTranspose", "kernel"): ("weight", "HWOI -> IOHW", (3, 2, 0, 1)),
    ("Conv2DTranspose", "bias"): ("bias", *VECTOR),
    ("Dense", "kernel"): ("weight", "IO -> OI", (1, 0)),
    ("Dense", "bias"): ("bias", *VECTOR),
    ("BatchNormalization", "gamma"): ("weight", *VECTOR),
    ("BatchNormalization", "beta"): ("bias", *VECTOR),
    ("BatchNormalization", "moving_mean"): ("running_mean", *VECTOR),
    ("BatchNormalization", "moving_variance"): ("running_var", *VECTOR),
}


@dataclass(frozen=True)
class Layout:
    """The way from one Keras array to the PyTorch array and back.

    Attributes:
        name: PyTorch's name of the tensor, its attribute path.
        rule: the layout rule in words, e.g. "HWIO -> OIHW".
        keras_shape: shape in Keras.
        split_shape: the Keras shape with the axes apart that PyTorch orders otherwise.
        axes: PyTorch's order of the split axes.
    """

    name: str
    rule: str
    keras_shape: tuple[int, ...]
    split_shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The tensor's shape in PyTorch."""
        shape = tuple(self.split_shape[axis] for axis in self.axes)
        if len(self.split_shape) > len(self.keras_shape):
            return (shape[0], math.prod(shape[1:]))
        return shape

    def permuted(self, array: np.ndarray) -> np.ndarray:
        """Returns a view of a Keras array with its axes apart, in PyTorch's order."""
        return array.reshape(self.split_shape).transpose(self.axes)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Returns a Keras array in PyTorch's layout."""
        return self.permuted(array).reshape(self.torch_shape)

    def to_keras(self, array: np.ndarray, library: Any = np) -> Any:
        """Returns a PyTorch array in Keras's layout.

        Args:
            array: in PyTorch's layout.
            library: whose reshape and transpose to use; `keras.ops` is several times
                as fast as NumPy.
        """
        split = library.reshape(array, [self.split_shape[axis] for axis in self.axes])
        permuted = library.transpose(split, np.argsort(self.axes).tolist())
        return library.reshape(permuted, self.keras_shape)


def find(
    path: str,
    layer_class: str,
    weight: str,
    shape: tuple[int, ...],
    flattened: tuple[int, int, int] | None,
) -> Layout:
    """Returns the layout of one Keras weight.

    Args:
        path: the layer's attribute path.
        layer_class: the layer's class in Keras.
        weight: the weight's name in the layer.
        shape: its shape in Keras.
        flattened: (H, W, C) of the feature map that was flattened into this layer's
            input; PyTorch flattens it as (C, H, W).

    Raises:
        WeightMismatch: no rule covers such a weight, or a weight of another layer
            than a dense one on a flattened map.
    """
    if (layer_class, weight) not in RULES:
        raise WeightMismatch(
            f"no layout rule for {weight!r} of {layer_class} layer {path!r}; "
            f"rules exist for {', '.join(sorted({layer for layer, _ in RULES}))}"
        )
    if flattened and layer_class != "Dense":
        raise WeightMismatch(
            f"no layout rule for {layer_class} layer {path!r} on a flattened map "
            f"{flattened}; put it before the flattening"
        )
    torch_name, rule, axes = RULES[layer_class, weight]
    split_shape = shape
    if flattened and (layer_class, weight) == ("Dense", "kernel"):
        rule, axes = "(HWC)O -> O(CHW)", (3, 2, 0, 1)
        split_shape = (*flattened, shape[-1])
    return Layout(f"{path}.{torch_name}", rule, shape, split_shape, axes)


def check(
    wanted: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]], source: str
) -> None:
    """Checks that every wanted tensor is given once, in its shape, and no other.

    Raises:
        WeightMismatch: lists all that is missing, left over or misshapen.
    """
    problems = [
        f"{name} {shape} is missing"
        for name, shape in wanted.items()
        if name not in given
    ]
    problems += [
        f"{name} {shape} is left over"
        for name, shape in given.items()
        if name not in wanted
    ]
    problems += [
        f"{name} is {given[name]}, not {shape}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    if problems:
        raise WeightMismatch(f"{source} does not fit: {listed(problems)}")


def listed(problems: list[str]) -> str:
    """Returns the first problems in one line, and how many more there are."""
    more = len(problems) - LISTED
    rest = f"; and {more} more" if more > 0 else ""
    return f"{'; '.join(problems[:LISTED])}{rest}"

"""What the arguments of operations have to be; the same lines on both sides."""

from numbers import Integral

import numpy as np

from parity.spec.errors import UsageError


def check(name: str, value: object, fits: bool, wanted: str):
    """Raises UsageError unless a value fits, and says what would."""
    if not fits:
        raise UsageError(f"{name} {value!r} is not {wanted}")


def check_integer(name: str, value: object, least: int, most: int | None = None):
    """Raises UsageError unless a value is an integer of a range."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    fits = fits and least <= value and (most is None or value <= most)
    range_ = f"of {least} or more" if most is None else f"from {least} to {most}"
    check(name, value, fits, f"an integer {range_}")


def check_shape(name: str, shape, *wanted: tuple[int, ...]):
    """Raises UsageError unless a tensor's shape is one of those wanted."""
    shape = tuple(shape)
    check(f"shape of {name}", shape, shape in wanted, " or ".join(map(str, wanted)))


def check_labels(labels: np.ndarray, num_classes: int):
    """Raises UsageError unless labels are integers from 0 to num_classes - 1."""
    check("type of labels", str(labels.dtype), labels.dtype.kind in "iu", "integer")
    for label in labels[(labels < 0) | (labels >= num_classes)]:
        check_integer("label", int(label), 0, num_classes - 1)

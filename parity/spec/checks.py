"""What the arguments of operations have to be; each raises UsageError otherwise."""

from collections.abc import Collection, Iterable, Sequence
from numbers import Integral

import numpy as np

from parity.spec.errors import UsageError, unknown


def check(name: str, value: object, fits: bool, wanted: str) -> None:
    """Accepts a value that fits; the error says what is wanted."""
    if not fits:
        raise UsageError(f"{name} {value!r} is not {wanted}")


def check_name(kind: str, value: str, choices: Collection[str]) -> None:
    """Accepts one of the choices."""
    if value not in choices:
        raise unknown(kind, value, choices)


def check_integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """Accepts an integer from `least` to `most`, and returns it as Python's."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    fits = fits and least <= value and (most is None or value <= most)
    range_ = f"of {least} or more" if most is None else f"from {least} to {most}"
    check(name, value, fits, f"an integer {range_}")
    return int(value)


def check_share(name: str, value: float) -> None:
    """Accepts a number from 0 to 1."""
    check(name, value, 0 <= value <= 1, "from 0 to 1")


def check_shape(name: str, shape: Iterable[int], *wanted: tuple[int, ...]) -> None:
    """Accepts a tensor's shape that is one of those wanted."""
    shape = tuple(shape)
    check(f"shape of {name}", shape, shape in wanted, " or ".join(map(str, wanted)))


def check_channels(channels: int, **tensors) -> None:
    """Accepts tensors of one number per channel, each under its name."""
    for name, tensor in tensors.items():
        check_shape(name, tensor.shape, (channels,))


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Accepts integers from 0 to num_classes - 1."""
    check("type of labels", str(labels.dtype), labels.dtype.kind in "iu", "integer")
    for label in labels[(labels < 0) | (labels >= num_classes)]:
        check_integer("label", int(label), 0, num_classes - 1)


def check_crop(sizes: Sequence[int], top, left, height, width) -> None:
    """Accepts a part that lies inside an image of (height, width)."""
    check_integer("top", top, 0, sizes[0] - 1)
    check_integer("left", left, 0, sizes[1] - 1)
    check_integer("height", height, 1, sizes[0] - top)
    check_integer("width", width, 1, sizes[1] - left)

"""The arithmetic of windows that move over an image: padding, stride, dilation.

A convolution's kernel and a pooling's window are placed alike. The functions of both
sides take `padding` as "same", "valid", a number of pixels for all borders, a pair of
them for (rows, columns), or ((top, bottom), (left, right)).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

from parity.spec.checks import check, check_integer, check_name
from parity.spec.errors import UsageError

Pair = tuple[int, int]
MODES = ("constant", "reflect", "edge")
LEAST = {"size": 1, "kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}


def same_padding(size: int, kernel_size: int, stride: int, dilation=1) -> Pair:
    """Returns the pixels that 'same' adds before and after one axis.

    The output has ceil(size / stride) pixels; an odd total puts the extra pixel
    after the image. Source: tf.nn.convolution's documentation.

    >>> same_padding(28, 5, 1), same_padding(28, 3, 2), same_padding(27, 3, 2)
    ((2, 2), (0, 1), (1, 1))
    """
    outputs = -(-size // stride)
    extent = dilation * (kernel_size - 1) + 1
    total = max((outputs - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def ceil_padding(
    size: int, kernel_size: int, stride: int, before: int, after: int | None = None
) -> int:
    """Returns the pixels that a last window, cut off by the border, lacks behind it.

    Windows start at every `stride` pixels as long as they start inside the image or
    its padding in front (PyTorch's `ceil_mode`).

    Args:
        size: of the image along one axis.
        kernel_size: of the window, what lies between its dilated pixels counted.
        stride: of the window.
        before: pixels of padding in front.
        after: pixels of padding behind; None takes as many.
    """
    after = before if after is None else after
    padded = size + before + after
    count = -(-(padded - kernel_size) // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return max(0, (count - 1) * stride + kernel_size - padded)


def output_size(
    size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    exact: bool = False,
) -> int | Pair:
    """Returns (n + 2p - d(f - 1) - 1) / s + 1, rounded down.

    n is the image's size, f the kernel's, p the padding on either side, s the stride
    and d the dilation; each an integer, or a pair for (rows, columns).

    Args:
        size: n.
        kernel_size: f.
        stride: s.
        padding: p.
        dilation: d.
        exact: whether a division that leaves a remainder is an error, by the lecture
            notes' rule that padding or stride are to be changed then.

    Raises:
        UsageError: the kernel is larger than the padded image, or what `exact` says.

    >>> output_size((32, 64), 5), output_size(28, 3, stride=2, padding=1)
    ((28, 60), 14)
    """
    values = (size, kernel_size, stride, padding, dilation)
    if any(not isinstance(value, Integral) for value in values):
        axes = zip(*map(pair, LEAST, values, LEAST.values()), strict=True)
        return tuple(
            output_size(n, f, stride=s, padding=p, dilation=d, exact=exact)
            for n, f, s, p, d in axes
        )
    for (name, least), value in zip(LEAST.items(), values, strict=True):
        check_integer(name, value, least)
    room = size + 2 * padding - dilation * (kernel_size - 1) - 1
    if room < 0:
        raise _too_large(kernel_size, dilation, size + 2 * padding)
    if exact and room % stride:
        raise UsageError(
            f"({size} + 2 * {padding} - {dilation * (kernel_size - 1) + 1}) / {stride} "
            f"is no integer; {_what_divides(room, stride, padding)} would do"
        )
    return room // stride + 1


def _what_divides(room: int, stride: int, padding: int) -> str:
    least = room - 2 * padding
    paddings = [p for p in range(stride) if least + 2 * p >= 0]
    paddings = [p for p in paddings if (least + 2 * p) % stride == 0][:2]
    strides = [s for s in range(1, room + 1) if room % s == 0]
    nearest = sorted(strides, key=lambda s: (abs(s - stride), s))[:2]
    choices = [f"padding {p}" for p in paddings]
    return " or ".join([*choices, *(f"stride {s}" for s in sorted(nearest))])


@dataclass(frozen=True)
class Placement:
    """Where the windows of an operation lie; each value is (rows, columns).

    Attributes:
        kernel_size: pixels of a window.
        stride: pixels from one window to the next.
        padding: ((top, bottom), (left, right)).
        dilation: pixels from one pixel of a window to the next.
        output_size: the number of windows.
        missing: (bottom, right), the pixels that cut-off windows lack behind the
            padding; 0 but for `ceil_mode`.
    """

    kernel_size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    output_size: Pair
    missing: Pair = (0, 0)


def place(
    sizes: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence = "valid",
    dilation: int | Sequence[int] = 1,
    *,
    ceil_mode: bool = False,
) -> Placement:
    """Returns where windows lie over an image.

    Args:
        sizes: (height, width) of the image.
        kernel_size: an integer or (rows, columns).
        stride: likewise.
        padding: as the module says.
        dilation: an integer or (rows, columns).
        ceil_mode: whether a last window that the border cuts off counts.

    Raises:
        UsageError: a value that is not one of those, or a window that is larger than
            the padded image.
    """
    sizes = tuple(map(int, sizes))
    kernel_size = pair("kernel_size", kernel_size)
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    borders = explicit_padding(padding, sizes, kernel_size, stride, dilation)
    outputs, missing = [], []
    for size, f, s, d, border in zip(
        sizes, kernel_size, stride, dilation, borders, strict=True
    ):
        room = size + sum(border) - d * (f - 1) - 1
        if room < 0:
            raise _too_large(f, d, size + sum(border))
        lack = ceil_padding(size, d * (f - 1) + 1, s, *border) if ceil_mode else 0
        missing.append(lack)
        outputs.append((room + lack) // s + 1)
    return Placement(
        kernel_size, stride, borders, dilation, tuple(outputs), tuple(missing)
    )


def place_pooling(sizes: Sequence[int], *window: object, ceil_mode: bool) -> Placement:
    """Returns where the windows of a pooling lie, each of which sees the image.

    Args:
        sizes: as in `place`.
        window: kernel_size, stride, padding and dilation, as in `place`; without a
            stride (None) windows lie side by side.
        ceil_mode: as in `place`.

    Raises:
        UsageError: as in `place`, or a window sees padding only.
    """
    kernel_size, stride, *rest = window
    stride = kernel_size if stride is None else stride
    windows = place(sizes, kernel_size, stride, *rest, ceil_mode=ceil_mode)
    for axis, size in enumerate(sizes):
        first, step = -windows.padding[axis][0], windows.stride[axis]
        seen = range(0, windows.kernel_size[axis] * windows.dilation[axis])
        seen = seen[:: windows.dilation[axis]]
        for start in range(first, first + windows.output_size[axis] * step, step):
            if not any(0 <= start + offset < size for offset in seen):
                raise UsageError(
                    f"padding {windows.padding[axis]} lets a window of "
                    f"{windows.kernel_size[axis]} pixels see padding only"
                )
    return windows


def explicit_padding(
    padding: str | int | Sequence,
    sizes: Pair,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> tuple[Pair, Pair]:
    """Returns padding as ((top, bottom), (left, right)).

    Raises:
        UsageError: padding is none of what the module says.
    """
    if isinstance(padding, str):
        check_name("padding", padding, ("same", "valid"))
        if padding == "valid":
            return (0, 0), (0, 0)
        axes = zip(sizes, kernel_size, stride, dilation, strict=True)
        rows, columns = (same_padding(*axis) for axis in axes)
        return rows, columns
    if isinstance(padding, Sequence) and any(isinstance(x, Sequence) for x in padding):
        if len(padding) != 2 or not all(
            isinstance(x, Sequence) and len(x) == 2 for x in padding
        ):
            raise UsageError(
                f"padding {padding!r} is not 'same', 'valid', an integer, a pair or "
                "((top, bottom), (left, right))"
            )
        rows, columns = (pair("padding", x, 0) for x in padding)
        return rows, columns
    rows, columns = pair("padding", padding, 0)
    return (rows, rows), (columns, columns)


def explicit_border(
    padding: int | Sequence, sizes: Pair, mode: str
) -> tuple[Pair, Pair]:
    """Returns a border's pixels as ((top, bottom), (left, right)).

    Raises:
        UsageError: padding is none of what the module says, "same" or "valid", or more
            than a "reflect" can mirror; or an unknown mode.
    """
    check_name("mode", mode, MODES)
    wanted = "an integer, a pair or ((top, bottom), (left, right))"
    check("padding", padding, not isinstance(padding, str), wanted)
    border = explicit_padding(padding, sizes, (1, 1))
    for size, pixels in zip(sizes, border, strict=True):
        fits = mode != "reflect" or max(pixels) < size
        check("padding", pixels, fits, f"less than the {size} pixels that it mirrors")
    return border


def pair(name: str, value: int | Sequence[int], least: int = 1) -> Pair:
    """Returns (rows, columns) of an integer for both or of a pair.

    Args:
        name: of the value, for an error.
        value: what was given.
        least: the smallest integer that will do.

    Raises:
        UsageError: the value is neither, or smaller.
    """
    if isinstance(value, Iterable) and not isinstance(value, str):
        values = tuple(value)
        if len(values) != 2:
            raise UsageError(f"{name} {value!r} is not an integer or a pair of them")
    else:
        values = (value, value)
    return tuple(check_integer(name, x, least) for x in values)


def _too_large(kernel_size: int, dilation: int, padded: int) -> UsageError:
    extent = dilation * (kernel_size - 1) + 1
    dilated = f", {extent} with dilation {dilation}" if dilation > 1 else ""
    return UsageError(
        f"a kernel of {kernel_size} pixels{dilated} does not fit an image of {padded}, "
        "padding counted"
    )


def check_groups(channels: int, kernel_channels: int, filters: int, groups: int):
    """Raises UsageError unless a kernel's channels fit the images' and the groups."""
    check_integer("groups", groups, 1)
    if kernel_channels * groups != channels:
        raise UsageError(
            f"a kernel of {kernel_channels} channels in {groups} group(s) does not fit "
            f"images of {channels}"
        )
    if filters % groups:
        raise UsageError(
            f"{filters} filters do not divide into {groups} groups; "
            f"{math.ceil(filters / groups) * groups} would"
        )


def transposed(
    sizes: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: str | int | Sequence,
    output_padding: int | Sequence[int],
) -> tuple[Pair, tuple[Pair, Pair]]:
    """Returns the output's size of a transposed convolution, and what it cuts off.

    Args:
        sizes: (height, width) of the input.
        kernel_size: an integer or (rows, columns).
        stride: likewise.
        padding: as the module says, of the convolution that it transposes; "same"
            gives an output `stride` times as large.
        output_padding: pixels added behind, less than the stride.

    Returns:
        (height, width), and ((top, bottom), (left, right)) such that a convolution
        with that padding of an image of that size is the one that is transposed.

    Raises:
        UsageError: a value that does not fit.
    """
    kernel_size, stride = pair("kernel_size", kernel_size), pair("stride", stride)
    extra = pair("output_padding", output_padding, 0)
    for added, step in zip(extra, stride, strict=True):
        if added >= step:
            raise UsageError(f"output_padding {added} is not less than stride {step}")
    if padding == "same":
        if any(extra):
            raise UsageError(
                f"output_padding {output_padding!r} with padding 'same', whose output "
                "is stride times as large; give the padding in pixels"
            )
        full = tuple(n * s for n, s in zip(sizes, stride, strict=True))
        return full, explicit_padding("same", full, kernel_size, stride)
    border = explicit_padding(padding, sizes, kernel_size, stride)
    full = tuple(
        (n - 1) * s + f - sum(cut) + added
        for n, f, s, cut, added in zip(
            sizes, kernel_size, stride, border, extra, strict=True
        )
    )
    if min(full) < 1:
        raise UsageError(f"padding {padding!r} leaves nothing of the output")
    return full, border

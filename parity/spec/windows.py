"""Where the windows of a convolution or a pooling lie, and what they compute."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from parity.spec.errors import UsageError
from parity.spec.padding import explicit_padding

OPERATIONS = ("conv2d", "conv2d_transpose", "max_pool2d", "avg_pool2d")
DILATED = ("conv2d",)
Pair = tuple[int, int]
LARGEST = 20  # pixels of a side that stay readable in a picture
TOLERANCE = 1e-10  # relative; float64 rounds the sums of small integers far less


@dataclass(frozen=True)
class Windows:
    """The windows of an operation on a padded image, row by row; pairs are H and W.

    A transposed convolution is a convolution turned round: its windows lie on its
    output, one for each pixel of its input, and what would be padding is cut off.

    Attributes:
        operation: one of OPERATIONS.
        size: of the image that the windows lie on, without its padding.
        kernel_size: cells of one window.
        stride: pixels from one window to the next.
        dilation: pixels from one cell of a window to the next.
        padding: pixels before and after, of the rows and of the columns.
        mode: what the padding was asked for as: "same", "valid", or a number of pixels.
    """

    operation: str
    size: Pair
    kernel_size: Pair
    stride: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]
    mode: str | int

    def __str__(self) -> str:
        """One line: the operation and its sizes."""
        cells = "window" if "pool" in self.operation else "kernel"
        parts = [
            f"{self.operation}: input {_by(self.input_size)}",
            f"{cells} {_by(self.kernel_size)}",
            f"stride {_short(self.stride)}",
            f"padding {self.mode}",
            f"output {_by(self.output_size)}",
        ]
        if max(self.dilation) > 1:
            parts.insert(3, f"dilation {_short(self.dilation)}")
        return ", ".join(parts)

    @property
    def transposed(self) -> bool:
        """Whether the windows lie on the output."""
        return self.operation == "conv2d_transpose"

    @property
    def extent(self) -> Pair:
        """The pixels from a window's first cell to its last, gaps counted."""
        axes = zip(self.kernel_size, self.dilation, strict=True)
        return tuple((k - 1) * d + 1 for k, d in axes)

    @property
    def padded_size(self) -> Pair:
        """The image's size with its padding."""
        return tuple(
            n + sum(around) for n, around in zip(self.size, self.padding, strict=True)
        )

    @cached_property
    def count(self) -> Pair:
        """The windows below each other and beside each other."""
        sizes = zip(self.padded_size, self.extent, self.stride, strict=True)
        return tuple(
            (padded - extent) // stride + 1 for padded, extent, stride in sizes
        )

    @property
    def steps(self) -> int:
        """The number of windows."""
        return self.count[0] * self.count[1]

    @property
    def input_size(self) -> Pair:
        """The operation's input, without padding."""
        return self.count if self.transposed else self.size

    @property
    def output_size(self) -> Pair:
        """The operation's output."""
        return self.size if self.transposed else self.count

    def unit(self, step: int) -> Pair:
        """Returns the pixel of the other image that a step's window belongs to."""
        return divmod(step, self.count[1])

    def cells(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows (h, 1) and columns (1, w) of a window on the padded image."""
        axes = zip(
            self.unit(step), self.stride, self.kernel_size, self.dilation, strict=True
        )
        return np.ix_(
            *(at * stride + dilation * np.arange(k) for at, stride, k, dilation in axes)
        )

    def border(self) -> np.ndarray:
        """Returns which pixels of the padded image are padding, bool."""
        return np.pad(np.zeros(self.size, bool), self.padding, constant_values=True)

    def seen(self) -> np.ndarray:
        """Returns which pixels of the padded image are in any window, bool."""
        seen = np.zeros(self.padded_size, bool)
        for step in range(self.steps):
            seen[self.cells(step)] = True
        return seen

    def formula(self, axis: int) -> str:
        """Returns the arithmetic of the output's size along an axis, in one line."""
        before, after = self.padding[axis]
        extent, stride = self.extent[axis], self.stride[axis]
        size = self.output_size[axis]
        if self.transposed:
            full = f"({self.count[axis]} - 1) * {stride} + {extent}"
            rest = size + before + after - (self.count[axis] - 1) * stride - extent
            return f"{full} - {before} - {after}{f' + {rest}' * (rest > 0)} = {size}"
        padded = f"{self.size[axis]} + {before} + {after}"
        return f"floor(({padded} - {extent}) / {stride}) + 1 = {size}"

    def describe_padding(self) -> str:
        """Returns the pixels on each of the four sides."""
        (top, bottom), (left, right) = self.padding
        return f"top {top}, bottom {bottom}, left {left}, right {right}"


def place(
    operation: str,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    padding: str | int = "valid",
) -> Windows:
    """Returns the windows of an operation.

    Args:
        operation: one of OPERATIONS.
        input_size: height and width, as all pairs.
        kernel_size: cells of one window.
        stride: pixels from one window to the next.
        dilation: pixels from one cell of a window to the next.
        padding: "same" (TensorFlow's), "valid", or pixels on every side.

    Raises:
        UsageError: the windows do not fit, leave a pooling nothing to pool, or are too
            many to draw.
    """
    if max(dilation) > 1 and operation not in DILATED:
        raise UsageError(f"{operation} takes no --dilation; {DILATED[0]} does")
    transposed = operation == "conv2d_transpose"
    if transposed:
        size, around = _transposed(input_size, kernel_size, stride, padding)
    else:
        size, axes = input_size, (input_size, kernel_size, stride, dilation)
        around = explicit_padding(padding, *axes)
    windows = Windows(operation, size, kernel_size, stride, dilation, around, padding)
    extent = _by(windows.extent)
    spans = f", which spans {extent} with its gaps," if max(dilation) > 1 else ""
    kernel = f"a kernel of {_by(kernel_size)}{spans}"
    if transposed and min(size) < 1:
        raise UsageError(
            f"{kernel} leaves no output of a {_by(input_size)} input without "
            f"{padding} pixels on every side; give less --padding"
        )
    if min(windows.count) < 1:
        raise UsageError(
            f"{kernel} is larger than the padded input of {_by(windows.padded_size)}; "
            "give a smaller --kernel or more --padding"
        )
    if max(*windows.padded_size, *windows.count) > LARGEST:
        raise UsageError(
            f"{_by(windows.padded_size)} pixels with padding are too many to read; "
            f"give at most {LARGEST} a side"
        )
    if "pool" in operation and _some_window_is_all_padding(windows):
        raise UsageError(
            f"{kernel} lies on padding alone at a border with --padding {padding}, "
            "where there is nothing to pool; give less --padding"
        )
    return windows


def _by(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"


def _short(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else _by(pair)


def _transposed(
    input_size: Pair, kernel_size: Pair, stride: Pair, padding: str | int
) -> tuple[Pair, tuple[Pair, Pair]]:
    """Returns the output's size and what is cut off around it."""
    if padding == "same":
        size = tuple(n * s for n, s in zip(input_size, stride, strict=True))
        return size, explicit_padding(padding, size, kernel_size, stride)
    around = explicit_padding(padding, input_size, kernel_size)
    axes = zip(input_size, stride, kernel_size, around, strict=True)
    return tuple((n - 1) * s + k - sum(cut) for n, s, k, cut in axes), around


def _some_window_is_all_padding(windows: Windows) -> bool:
    border = windows.border()
    return any(border[windows.cells(step)].all() for step in range(windows.steps))


@dataclass(frozen=True)
class Steps:
    """An operation window by window: what it reads, and what both sides made of it.

    Attributes:
        windows: where they lie.
        image: (H, W), the input without padding.
        kernel: (h, w), or None for pooling.
        keras_sizes: height and width of the Keras side's output.
        torch_sizes: of the PyTorch side's.
        keras_outputs: (steps, H, W), as far as each step has come, NaN where nothing is
            written yet; what a side gives beyond the formula's size is cut off.
        torch_outputs: the same of the other side.
        expected: the same by the arithmetic of the windows, with NumPy.
    """

    windows: Windows
    image: np.ndarray
    kernel: np.ndarray | None
    keras_sizes: Pair
    torch_sizes: Pair
    keras_outputs: np.ndarray
    torch_outputs: np.ndarray
    expected: np.ndarray

    def __str__(self) -> str:
        """The sizes, the padding, both sides' outputs and whether they agree."""
        windows = self.windows
        return "\n".join(
            [
                str(windows),
                f"padding: {windows.describe_padding()}",
                f"output height: {windows.formula(0)}",
                f"output width: {windows.formula(1)}",
                f"steps: {windows.steps}",
                *_table("Keras", self.keras_sizes, self.keras_outputs[-1]),
                *_table("PyTorch", self.torch_sizes, self.torch_outputs[-1]),
                self.verdict,
            ]
        )

    @cached_property
    def departs(self) -> tuple[np.ndarray, np.ndarray]:
        """Which outputs are not the arithmetic's: Keras's and PyTorch's, bool."""
        return tuple(
            ~_close(outputs, self.expected)
            for outputs in (self.keras_outputs, self.torch_outputs)
        )

    @cached_property
    def different(self) -> np.ndarray:
        """Which outputs are not the same in Keras, PyTorch and the arithmetic, bool."""
        unlike = ~_close(self.keras_outputs, self.torch_outputs)
        return unlike | self.departs[0] | self.departs[1]

    @property
    def equal(self) -> bool:
        """Whether both sides give what the windows show."""
        sizes = {self.keras_sizes, self.torch_sizes, self.windows.output_size}
        return len(sizes) == 1 and not self.different.any()

    @property
    def verdict(self) -> str:
        """One line: whether the two sides agree, and which departs from the windows."""
        if self.equal:
            return "Keras and PyTorch agree"
        total = self.different[-1].size
        keras, torch = (int(departs[-1].sum()) for departs in self.departs)
        sizes = ""
        if self.keras_sizes != self.torch_sizes:
            sizes = f", sizes {_by(self.keras_sizes)} and {_by(self.torch_sizes)}"
        unlike = int((~_close(self.keras_outputs[-1], self.torch_outputs[-1])).sum())
        if not unlike and not sizes:
            return (
                f"Keras and PyTorch agree, but NOT with the windows: {keras} of {total}"
            )
        return (
            f"Keras and PyTorch DIFFER in {unlike} of {total} outputs{sizes}; "
            f"not as the windows say: Keras {keras}, PyTorch {torch}"
        )

    def padded(self) -> np.ndarray:
        """Returns the image with the value that padding stands for: 0, -inf or NaN.

        NaN means that a mean does not count it.
        """
        fill = {"max_pool2d": -np.inf, "avg_pool2d": np.nan}
        value = fill.get(self.windows.operation, 0.0)
        return np.pad(self.image, self.windows.padding, constant_values=value)

    def arithmetic(self, step: int) -> list[str]:
        """Returns how a step's output is made, a line for each row of the kernel."""
        windows = self.windows
        if windows.transposed:
            value = show(self.image[windows.unit(step)])
            return [f"pixel {value} times each weight,", "added where the window lies"]
        values = self.padded()[windows.cells(step)]
        if windows.operation == "conv2d":
            rows = [
                " + ".join(f"{show(x)}·{_signed(w)}" for x, w in zip(*row, strict=True))
                for row in zip(values, self.kernel, strict=True)
            ]
            lines = ["   " + rows[0], *(f"+ {row}" for row in rows[1:])]
        else:
            rows = [[show(x) for x in row if not np.isnan(x)] for row in values]
            lines = _pooled(windows.operation, [row for row in rows if row])
        lines[-1] += f" = {show(self.expected[step][windows.unit(step)])}"
        return lines


def _pooled(operation: str, rows: list[list[str]]) -> list[str]:
    if operation == "max_pool2d":
        lines = ",\n".join(", ".join(row) for row in rows)
        return f"max({lines})".split("\n")
    lines = " +\n".join(" + ".join(row) for row in rows)
    return f"({lines}) / {sum(map(len, rows))}".split("\n")


def expect(windows: Windows, image: np.ndarray, kernel: np.ndarray | None):
    """Returns what the windows give, (steps, H, W): NaN where nothing is written yet.

    Args:
        windows: where they lie.
        image: (H, W).
        kernel: (h, w), or None for pooling.
    """
    steps = Steps(windows, image, kernel, *((0, 0),) * 2, *(np.empty(0),) * 3)
    states = []
    if windows.transposed:
        canvas = np.zeros(windows.padded_size)
        rows, columns = (
            slice(before, before + n)
            for (before, _), n in zip(windows.padding, windows.size, strict=True)
        )
        for step in range(windows.steps):
            canvas[windows.cells(step)] += image[windows.unit(step)] * kernel
            states.append(canvas[rows, columns].copy())
        return np.stack(states)
    output, padded = np.full(windows.output_size, np.nan), steps.padded()
    for step in range(windows.steps):
        values = padded[windows.cells(step)]
        reduce = {"max_pool2d": np.max, "avg_pool2d": np.nanmean}
        output[windows.unit(step)] = (
            np.sum(values * kernel)
            if kernel is not None
            else reduce[windows.operation](values)
        )
        states.append(output.copy())
    return np.stack(states)


def _table(side: str, size: Pair, values: np.ndarray) -> list[str]:
    plain = str.maketrans({"\N{MINUS SIGN}": "-", "\N{INFINITY}": "inf"})
    texts = [[show(x).translate(plain) or "none" for x in row] for row in values]
    width = max(len(text) for row in texts for text in row)
    rows = ["  ".join(text.rjust(width) for text in row) for row in texts]
    return [f"{side}, {_by(size)}:", *(f"  {row}" for row in rows)]


def _close(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.isclose(values, others, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def show(value: float) -> str:
    """Returns a number as a cell shows it: two decimals at most, and a true minus."""
    if np.isnan(value):
        return ""
    if np.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{abs(value):.2f}".rstrip("0").rstrip(".")
    return f"\N{MINUS SIGN}{text}" if value < 0 and text != "0" else text


def _signed(weight: float) -> str:
    return f"({show(weight)})" if weight < 0 else show(weight)

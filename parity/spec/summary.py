"""A network's table of layers: what both sides must compute to the digit."""

import math
from dataclasses import dataclass

Pair = tuple[int, int]

# Keras's names of the layers that PyTorch names otherwise.
KINDS = {
    "AdaptiveAveragePooling2D": "AdaptiveAvgPool2d",
    "AveragePooling2D": "AvgPool2d",
    "BatchNormalization": "BatchNorm2d",
    "Conv2D": "Conv2d",
    "Dense": "Linear",
    "DepthwiseConv2D": "Conv2d",
    "GlobalAveragePooling2D": "AdaptiveAvgPool2d",
    "MaxPooling2D": "MaxPool2d",
    "SpatialDropout2D": "Dropout2d",
}
VIEWS = ("Flatten", "Identity")  # their output takes no memory of its own
MEGABYTES = 4 / 2**20  # of one float32


@dataclass(frozen=True)
class Row:
    """One call of one layer.

    Attributes:
        name: the layer's attribute path.
        kind: its class, by PyTorch's name.
        shape: of one image's output, channels first.
        parameters: of the layer; 0 when it is called again.
        kernel: weights of a convolution's or a dense layer's kernel; 0 for all else.
        field: height and width in pixels of the theoretical receptive field.
        inference: whether it runs in inference mode, too.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    kernel: int
    field: Pair
    inference: bool

    @property
    def multiply_adds(self) -> int:
        """One for each use of a kernel's weight."""
        return self.kernel * math.prod(self.shape[1:])


@dataclass(frozen=True)
class Summary:
    """A network's layers in execution order, and its totals.

    Attributes:
        rows: every layer that runs in training mode.
        image: (C, H, W).
        parameters: trained by an optimizer.
        state: running statistics.
        channels_last: whether shapes are printed as (H, W, C).
    """

    rows: tuple[Row, ...]
    image: tuple[int, int, int]
    parameters: int
    state: int
    channels_last: bool

    def multiply_adds(self, training: bool = False) -> int:
        """Returns the sum over the layers, for one image."""
        return sum(r.multiply_adds for r in self.rows if training or r.inference)

    def megabytes(self) -> tuple[float, float, float]:
        """Returns the sizes in float32 of image, activations and parameters.

        Activations are counted twice, for their gradients, as torchsummary does.
        """
        outputs = sum(math.prod(r.shape) for r in self.rows if r.kind not in VIEWS)
        counts = (math.prod(self.image), 2 * outputs, self.parameters)
        return tuple(count * MEGABYTES for count in counts)

    def __str__(self) -> str:
        """Returns the table and the totals."""
        names = [row.name + "*" * (not row.inference) for row in self.rows]
        width = max(map(len, ["layer", *names]))
        heads = ("layer", "kind", "output", "parameters", "field", "multiply-adds")
        line = f"{{:{width}}}  {{:17}}  {{:21}}  {{:>11}}  {{:>9}}  {{:>14}}"
        lines = [line.format(*heads)]
        for name, row in zip(names, self.rows, strict=True):
            shape = row.shape[1:] + row.shape[:1] if self.channels_last else row.shape
            numbers = (f"{row.parameters:,}", square(row.field))
            adds = f"{row.multiply_adds:,}"
            lines.append(line.format(name, row.kind, str([-1, *shape]), *numbers, adds))
        sizes = self.megabytes()
        lines += [
            "" if names == [row.name for row in self.rows] else "* in training only\n",
            f"parameters: {self.parameters:,}",
            f"state: {self.state:,}",
            f"multiply-adds: {self.multiply_adds():,} for one image, "
            f"{self.multiply_adds(training=True):,} in training",
            "MB: image {:.2f}, forward and backward {:.2f}, parameters {:.2f}".format(
                *sizes
            )
            + f", total {sum(sizes):.2f}",
        ]
        return "\n".join(lines)


def square(size: Pair) -> str:
    """Returns "5" for (5, 5) and "5x7" for (5, 7)."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"

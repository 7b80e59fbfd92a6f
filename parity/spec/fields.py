"""Receptive fields: which pixels of an image a unit can see, and which it does see."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Field:
    """Which pixels a unit of a map sees; every pair is height and width.

    Attributes:
        size: pixels that one unit sees, those beyond the border too.
        jump: pixels from one unit's field to its neighbour's.
        units: the map's height and width; a flattened map keeps them.
    """

    size: tuple[Fraction | int, ...]
    jump: tuple[Fraction | int, ...]
    units: tuple[int, ...]

    def window(self, kernel, stride, dilation=(1, 1)) -> "Field":
        """Returns the field behind a convolution or a pooling."""
        grown = zip(self.size, self.jump, kernel, dilation, strict=True)
        size = tuple(size + (k - 1) * d * jump for size, jump, k, d in grown)
        jump = tuple(j * s for j, s in zip(self.jump, stride, strict=True))
        return replace(self, size=size, jump=jump)

    def whole(self) -> "Field":
        """Returns the field of a unit that sees the whole map."""
        return replace(self.window(self.units, (0, 0)), units=(1, 1))

    def adaptive(self, units) -> "Field":
        """Returns the field behind an adaptive pooling to so many units.

        Of n units, window i of m has those from floor(i n / m) to ceil((i + 1) n / m).
        """
        kernel, stride = [], []
        for n, m in zip(self.units, units, strict=True):
            kernel.append(max(-(-(i + 1) * n // m) - i * n // m for i in range(m)))
            stride.append(Fraction(n - kernel[-1], max(m - 1, 1)))
        return self.window(kernel, stride)


def merge(fields: list[Field]) -> Field:
    """Returns the largest field of branches that are added or concatenated."""
    pairs = ([getattr(f, name) for f in fields] for name in ("size", "jump", "units"))
    return Field(*(tuple(map(max, *values, values[0])) for values in pairs))


@dataclass(frozen=True)
class EffectiveField:
    """How strongly each pixel moves the centre unit of a layer, on both sides.

    Attributes:
        title: what was measured.
        keras_map: (H, W), the absolute gradient summed over the image's channels and
            averaged over images; not negative.
        torch_map: the same of the other side.
        error: relative L2 error between the sides' gradients.
        equal: whether that is rounding.
        theoretical: height and width of the theoretical field in pixels.
    """

    title: str
    keras_map: np.ndarray
    torch_map: np.ndarray
    error: float
    equal: bool
    theoretical: tuple[int, int]

    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the column and the row through the centre, the mean of the sides."""
        mean = (self.keras_map + self.torch_map) / 2
        row, column = (round(gaussian(mean.sum(axis))[1]) for axis in (1, 0))
        return mean[:, column], mean[row]

    def support(self) -> tuple[range, range]:
        """Returns the rows and the columns between which some gradient is not 0."""
        seen = (self.keras_map + self.torch_map) > 0
        indices = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        return tuple(range(int(i[0]), int(i[-1]) + 1) for i in indices)

    def sigmas(self) -> tuple[float, float]:
        """Returns the fitted Gaussian's vertical and horizontal deviation in pixels."""
        column, row = (gaussian(profile)[2] for profile in self.profiles())
        return column, row

    def __str__(self) -> str:
        """Returns what was found, in three lines."""
        height, width = self.theoretical
        return (
            f"{self.title}: {'equal' if self.equal else 'different'}, relative error "
            f"between the sides {self.error:.1e}\n"
            "effective field, Gaussian fit: sigma {:.2f} pixels down, {:.2f} across\n"
            f"theoretical field: {height}x{width} pixels"
        ).format(*self.sigmas())


def gaussian(profile: np.ndarray) -> tuple[float, float, float]:
    """Returns the height, mean and deviation of the Gaussian with a profile's moments.

    Its height is the one of least squares.
    """
    positions = np.arange(len(profile))
    mean = np.average(positions, weights=profile)
    sigma = np.sqrt(np.average((positions - mean) ** 2, weights=profile))
    curve = np.exp(-((positions - mean) ** 2) / (2 * max(sigma, 1e-9) ** 2))
    return (
        float(profile @ curve / max(curve @ curve, 1e-300)),
        float(mean),
        float(sigma),
    )

"""What both sides are given for the device report, and how rounding disturbs it.

A result in a narrower type is judged by what rounding explains of it. That is measured
in float64: a computed sum of products is the exact one of factors that are slightly off
(Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1), so the
weights and the images are put off by as much as the type rounds, and the network
magnifies it as it magnifies real rounding.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from parity import probe
from parity.spec import recipes

# The relative error of one rounding: of a product's factors, and of a result. Sums of
# products are held in float32 in all three types. Other sums, of a bias's gradient, are
# held in the result's type: TensorFlow's CPU kernel adds bfloat16 to bfloat16.
UNITS = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
RESULT_UNITS = {"float32": 2.0**-24, "tf32": 2.0**-24, "bfloat16": 2.0**-8}
SUM_UNIT = 2.0**-24
# Of a product two factors are rounded, and of the sum the result.
ROUNDINGS = 3
# The largest effect of this many disturbances counts, times two: that is a sample. Half
# of them turn a near tie over, of a maximum or at a ReLU's edge, which moves a gradient
# by a thousand times what the others do (vgg16_conv: 2.6e-3 and 7e-6).
SIMULATIONS = 9
MARGIN = 2.0
# Of a training's steps.
LEARNING_RATE = 1e-3
# What comes behind the last layer, the loss, is float32 in every type.
LEAST = 8 * SUM_UNIT


def architecture(name: str) -> dict[str, object]:
    """Returns the arguments of `create_model`: unequal sizes, narrow dense layers."""
    recipe = recipes.find(name)
    arguments = recipes.shape(recipe, image_size=probe.image_size(recipe)).arguments()
    if name.startswith(("alexnet", "vgg")):
        arguments["hidden_units"] = 48
    return arguments


def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (3, H, W, C), float64 that float32 has too, and labels (3,)."""
    recipe = recipes.find(name)
    shape = (3, *probe.image_size(recipe), recipe.in_channels)
    labels = probe.labels(3, max(2, recipe.num_classes))
    return probe.images(shape).astype(float), labels


def batches(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (steps, 16, H, W, C) and labels (steps, 16)."""
    recipe = recipes.find(name)
    shape = (steps, 16, *probe.image_size(recipe), recipe.in_channels)
    labels = probe.labels(16 * steps, max(2, recipe.num_classes))
    return probe.images(shape).astype(float), labels.reshape(steps, 16)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns probe weights in the common form, whatever order a side names them in."""
    return probe.weights(dict(sorted(shapes.items())))


def disturb(
    tensors: dict[str, np.ndarray], dtype: str, seed: int
) -> dict[str, np.ndarray]:
    """Returns float64 tensors that are off by what a type's rounding amounts to.

    A sum of k products is off by about sqrt(k) roundings of its own (Higham & Mary
    2019, "A New Approach to Probabilistic Rounding Error Analysis").

    Args:
        tensors: weights in the common form, or the images.
        dtype: of UNITS.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    disturbed = {}
    for name, array in tensors.items():
        products = math.prod(array.shape[1:]) if name != "images" else 0
        size = ROUNDINGS * UNITS[dtype] + math.sqrt(products) * SUM_UNIT
        noise = 2 * generator.random(array.shape, np.float32) - 1
        disturbed[name] = array * (1 + size * noise.astype(float))
    return disturbed


def bound(effect: float, result_unit: float, added: float = 0.0) -> float:
    """Returns the relative error that rounding explains.

    Args:
        effect: the largest of the disturbances.
        result_unit: of RESULT_UNITS.
        added: what rounding a sum over positions amounts to.
    """
    return LEAST + MARGIN * (effect + result_unit + added)


class Convolution(NamedTuple):
    """One case of `conv2d`: images (2, H, W, 8), 16 filters."""

    size: tuple[int, int]
    kernel_size: tuple[int, int]
    settings: dict[str, object]

    def __str__(self) -> str:
        """Returns the case in words."""
        settings = ", ".join(f"{k} {v}" for k, v in self.settings.items())
        sizes = (f"{height}x{width}" for height, width in (self.size, self.kernel_size))
        return " by ".join(sizes) + f": {settings}"

    @property
    def groups(self) -> int:
        """Parts of the channels."""
        return self.settings.get("groups", 1)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images (N, H, W, C) and a kernel (h, w, C / groups, F)."""
        channels, filters = 8, 16
        generator = np.random.default_rng(0)
        shapes = (
            (2, *self.size, channels),
            (*self.kernel_size, channels // self.groups, filters),
        )
        first, second = (generator.standard_normal(shape) for shape in shapes)
        return tuple(x.astype(np.float32).astype(float) for x in (first - 0.5, second))

    def terms(self, outputs: np.ndarray) -> dict[str, int]:
        """Returns the products in a sum, by what is summed."""
        images, kernel = self.arrays()
        by_images = math.prod(self.kernel_size) * kernel.shape[3] // self.groups
        return {
            "outputs": math.prod(kernel.shape[:3]),
            "by images": by_images,
            "by kernel": math.prod(outputs.shape[:3]),
        }


def factors(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the factors of the sum of outputs whose gradients are taken."""
    return np.linspace(-1, 2, math.prod(shape)).reshape(shape)


CONVOLUTIONS = [
    Convolution(size, kernel_size, {"stride": stride, "padding": padding})
    for size, kernel_size, stride, padding in itertools.product(
        ((12, 10), (13, 9)),
        ((1, 1), (3, 3), (3, 4), (5, 5)),
        (1, 2),
        ("same", "valid"),
    )
] + [
    Convolution(size, (3, 3), settings)
    for size in ((12, 10), (13, 9))
    for settings in (
        {"padding": 1},
        {"padding": ((0, 1), (2, 0))},
        {"stride": (2, 1), "padding": "same"},
        {"dilation": 2, "padding": "same"},
        {"groups": 2, "padding": "same"},
        {"groups": 8, "stride": 2, "padding": 1},
    )
]

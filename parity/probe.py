"""Inputs and weights that can see a bug.

Images have negative values and, where the network allows it, three different sizes;
no bias is zero and no running statistic is 0 or 1, which would hide a missing or a
scaled one; activations stay near 1, so that no layer saturates.
"""

import math

import numpy as np

from parity.spec import recipes

# Networks that are further rows of a table, whose other rows are tried every time.
DEEP = ("resnet34", "resnet101", "resnet152", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn")
DEEP += ("vgg19", "vgg19_bn", "vgg16_conv", "googlenet_bn")


def images(shape: tuple[int | None, ...], seed: int = 0) -> np.ndarray:
    """Returns normally distributed images for an input shape (None, H, W, C).

    Three images unless the shape fixes the number; 32-pixel axes where it leaves them
    open. Exactly representable in float32, so that every precision sees the same.
    """
    sizes = [3 if shape[0] is None else shape[0]]
    sizes += [32 if size is None else size for size in shape[1:]]
    return np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)


def labels(count: int, num_classes: int, seed: int = 0) -> np.ndarray:
    """Returns random labels int64 (count,)."""
    return np.random.default_rng(seed).integers(0, num_classes, count)


def weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns float32 weights in the common form, by PyTorch's names.

    Args:
        shapes: each tensor's name and shape in PyTorch's layout.
        seed: the same seed gives the same weights.
    """
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = generator.standard_normal(shape)
        if name.endswith("running_var"):
            values = np.exp(values / 4)
        elif len(shape) == 1 and name.endswith("weight"):
            values = 1 + values / 4
        elif len(shape) == 1:
            values = values / 4
        else:
            values *= math.sqrt(2 / math.prod(shape[1:]))
        tensors[name] = values.astype(np.float32)
    return tensors


def image_size(recipe: recipes.Recipe) -> tuple[int, int]:
    """Returns a height and a different width at which a model works.

    The width is 4 pixels more than the height; both lie near 32 where that is enough.
    """
    height = max(min(recipe.image_size, 32), recipe.smallest_image_size)
    return height, height + 4

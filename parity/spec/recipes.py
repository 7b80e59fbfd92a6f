"""One recipe per model: its shape and how it is trained."""

import fnmatch
from dataclasses import dataclass
from numbers import Integral

from parity.spec.errors import UsageError, unknown


@dataclass(frozen=True)
class Recipe:
    """A model's shape and the training that its source describes.

    Attributes:
        image_size: height and width of the square input, in pixels.
        smallest_image_size: the least height and width at which every layer has an
            output.
        parameters: trainable parameters at the default shape.
        drop_last: whether an epoch's last batch is dropped when it is not full.
        learning_rate: constant over the training.
    """

    name: str
    source: str
    image_size: int
    smallest_image_size: int
    in_channels: int
    num_classes: int
    parameters: int
    dataset: str
    epochs: int
    batch_size: int
    drop_last: bool
    optimizer: str
    learning_rate: float


RECIPES = {
    "lenet5": Recipe(
        name="lenet5",
        source="lecture notes on CNNs, section LeNet-5",
        image_size=28,
        smallest_image_size=16,
        in_channels=1,
        num_classes=10,
        parameters=44_426,
        dataset="digits",
        epochs=50,
        batch_size=256,
        drop_last=False,
        optimizer="adam",
        learning_rate=1e-3,
    ),
    "lenet5_1998": Recipe(
        name="lenet5_1998",
        source="LeCun et al. 1998, figure 2",
        image_size=32,
        smallest_image_size=16,
        in_channels=1,
        num_classes=10,
        parameters=61_706,
        dataset="digits",
        epochs=50,
        batch_size=256,
        drop_last=False,
        optimizer="adam",
        learning_rate=1e-3,
    ),
}

# Each optimizer's constants, by the names of its paper. Adam: Kingma & Ba 2015,
# algorithm 1. Momentum: heavy ball, velocity = momentum * velocity + gradient.
OPTIMIZERS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
}


@dataclass(frozen=True)
class Shape:
    """A model's input and output: (N, height, width, in_channels) to num_classes."""

    height: int
    width: int
    in_channels: int
    num_classes: int

    def arguments(self) -> dict[str, object]:
        """Returns the arguments of `create_model` that make this shape."""
        return {
            "num_classes": self.num_classes,
            "image_size": (self.height, self.width),
            "in_channels": self.in_channels,
        }


def names(pattern: str = "*") -> list[str]:
    """Returns the model names that match a shell-style pattern, sorted."""
    return sorted(fnmatch.filter(RECIPES, pattern))


def find(name: str) -> Recipe:
    """Returns the recipe of a model.

    Raises:
        UsageError: there is no such model; names near ones.
    """
    if name not in RECIPES:
        raise unknown("model", name, names())
    return RECIPES[name]


def shape(
    recipe: Recipe,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> Shape:
    """Returns a model's shape; None stands for the recipe's value.

    Args:
        recipe: the model's recipe.
        num_classes: number of logits.
        image_size: height and width in pixels, one number for both or a pair.
        in_channels: channels of the input images.

    Raises:
        UsageError: a number is not a positive integer or the image is too small.
    """
    size = recipe.image_size if image_size is None else image_size
    if isinstance(size, tuple | list) and len(size) != 2:
        raise UsageError(f"image_size must be a number or a pair, not {size!r}")
    height, width = size if isinstance(size, tuple | list) else (size, size)
    result = Shape(
        height,
        width,
        recipe.in_channels if in_channels is None else in_channels,
        recipe.num_classes if num_classes is None else num_classes,
    )
    for field, value in vars(result).items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{field} must be a positive integer, not {value!r}")
    if min(height, width) < recipe.smallest_image_size:
        smallest = recipe.smallest_image_size
        raise UsageError(
            f"image size {height}x{width} is too small for {recipe.name}: "
            f"the smallest that works is {smallest}x{smallest}"
        )
    return result

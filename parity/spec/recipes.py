"""One recipe per model: its shape, and by its lecture's training how it is trained."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from parity.spec import schedules
from parity.spec.errors import UsageError, unknown


@dataclass(frozen=True)
class Recipe:
    """A model's shape and the training that its source describes.

    Attributes:
        source: where the network comes from.
        image_size: height and width of the square input, in pixels.
        smallest_image_size: the least height and width at which every layer has an
            output.
        in_channels: channels of the input.
        num_classes: logits; 1 is the logit of the second of two classes.
        parameters: trainable parameters at the default shape.
        training: a name in TRAININGS.
    """

    name: str
    source: str
    image_size: int
    smallest_image_size: int
    in_channels: int
    num_classes: int
    parameters: int
    training: str


@dataclass(frozen=True)
class Training:
    """How a lecture trains.

    Attributes:
        dataset: a name in the catalogue, or "folder".
        batch_size: images per batch; "full" is one batch of the whole set.
        drop_last: whether an epoch's last batch is dropped when it is not full.
        learning_rate: of the first epoch.
        scheduler: a name in SCHEDULERS.
        augment: names of augmentations, in the order they are made.
        normalise: whether images are brought to mean 0 and deviation 1, or left in 0
            to 1.
    """

    source: str
    dataset: str
    epochs: int
    batch_size: int | str
    drop_last: bool = False
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    scheduler: str = "constant"
    augment: tuple[str, ...] = ()
    normalise: bool = True


# The lectures train on MNIST; digits are its bundled stand-in.
TRAININGS = {
    "cnn": Training(
        'lecture notes, "What is a convolution?"', "digits", 10, 256, normalise=False
    ),
    "lenet": Training("lecture notes on CNNs, LeNet-5", "digits", 50, 256),
    "animals": Training(
        "lecture notes on CNNs, VGG and ResNet",
        "folder",
        50,
        128,
        scheduler="step",
        augment=("crop",),
    ),
    "mnist_lab": Training(
        'lecture notes, "Lab 10: MNIST CNN"',
        "digits",
        15,
        100,
        drop_last=True,
        normalise=False,
    ),
    "binary": Training(
        'lecture notes, "Convolutional networks (1)", section 5',
        "digits",
        50,
        "full",
        normalise=False,
    ),
    "binary_batches": Training(
        'lecture notes, "Convolutional networks (1)", section 6',
        "digits",
        5,
        128,
        normalise=False,
    ),
}

RECIPES = {
    "alexnet": Recipe(
        "alexnet",
        "Krizhevsky et al. 2012, figure 2",
        image_size=224,
        smallest_image_size=63,
        in_channels=3,
        num_classes=1000,
        parameters=60_965_224,
        training="animals",
    ),
    "alexnet_owt": Recipe(
        "alexnet_owt",
        "Krizhevsky 2014; torchvision's alexnet",
        image_size=224,
        smallest_image_size=63,
        in_channels=3,
        num_classes=1000,
        parameters=61_100_840,
        training="animals",
    ),
    "block_conv": Recipe(
        "block_conv",
        "lecture notes on CNNs, convolution",
        image_size=32,
        smallest_image_size=3,
        in_channels=3,
        num_classes=32,
        parameters=896,
        training="cnn",
    ),
    "block_conv_pool": Recipe(
        "block_conv_pool",
        "lecture notes on CNNs, pooling",
        image_size=32,
        smallest_image_size=4,
        in_channels=3,
        num_classes=32,
        parameters=896,
        training="cnn",
    ),
    "block_dense": Recipe(
        "block_dense",
        "lecture notes on CNNs, fully connected layer",
        image_size=1,
        smallest_image_size=1,
        in_channels=32,
        num_classes=10,
        parameters=330,
        training="cnn",
    ),
    "cnn_binary": Recipe(
        "cnn_binary",
        'lecture notes, "Convolutional networks (1)"',
        image_size=28,
        smallest_image_size=6,
        in_channels=1,
        num_classes=1,
        parameters=2_721,
        training="binary",
    ),
    "cnn_dropout": Recipe(
        "cnn_dropout",
        'lecture notes, "What is a convolution?"',
        image_size=28,
        smallest_image_size=4,
        in_channels=1,
        num_classes=10,
        parameters=119_530,
        training="cnn",
    ),
    "cnn_padded_pool": Recipe(
        "cnn_padded_pool",
        'lecture notes, "CNN and MNIST"',
        image_size=28,
        smallest_image_size=6,
        in_channels=1,
        num_classes=10,
        parameters=55_338,
        training="cnn",
    ),
    "cnn_two_layer": Recipe(
        "cnn_two_layer",
        'lecture notes, "Lab 10: MNIST CNN"',
        image_size=28,
        smallest_image_size=4,
        in_channels=1,
        num_classes=10,
        parameters=50_186,
        training="mnist_lab",
    ),
    "googlenet": Recipe(
        "googlenet",
        "Szegedy et al. 2015, table 1",
        image_size=224,
        smallest_image_size=31,
        in_channels=3,
        num_classes=1000,
        parameters=13_378_280,
        training="animals",
    ),
    "googlenet_bn": Recipe(
        "googlenet_bn",
        "torchvision's googlenet",
        image_size=224,
        smallest_image_size=15,
        in_channels=3,
        num_classes=1000,
        parameters=13_004_888,
        training="animals",
    ),
    "lenet5": Recipe(
        "lenet5",
        "lecture notes on CNNs, LeNet-5",
        image_size=28,
        smallest_image_size=16,
        in_channels=1,
        num_classes=10,
        parameters=44_426,
        training="lenet",
    ),
    "lenet5_1998": Recipe(
        "lenet5_1998",
        "LeCun et al. 1998, figure 2",
        image_size=32,
        smallest_image_size=16,
        in_channels=1,
        num_classes=10,
        parameters=61_706,
        training="lenet",
    ),
    "resnet18": Recipe(
        "resnet18",
        "He et al. 2016, table 1, 18 layers",
        image_size=224,
        smallest_image_size=1,
        in_channels=3,
        num_classes=1000,
        parameters=11_689_512,
        training="animals",
    ),
    "resnet34": Recipe(
        "resnet34",
        "He et al. 2016, table 1, 34 layers",
        image_size=224,
        smallest_image_size=1,
        in_channels=3,
        num_classes=1000,
        parameters=21_797_672,
        training="animals",
    ),
    "resnet50": Recipe(
        "resnet50",
        "He et al. 2016, table 1, 50 layers",
        image_size=224,
        smallest_image_size=1,
        in_channels=3,
        num_classes=1000,
        parameters=25_557_032,
        training="animals",
    ),
    "resnet101": Recipe(
        "resnet101",
        "He et al. 2016, table 1, 101 layers",
        image_size=224,
        smallest_image_size=1,
        in_channels=3,
        num_classes=1000,
        parameters=44_549_160,
        training="animals",
    ),
    "resnet152": Recipe(
        "resnet152",
        "He et al. 2016, table 1, 152 layers",
        image_size=224,
        smallest_image_size=1,
        in_channels=3,
        num_classes=1000,
        parameters=60_192_808,
        training="animals",
    ),
    "vgg11": Recipe(
        "vgg11",
        "Simonyan & Zisserman 2015, table 1, A",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=132_863_336,
        training="animals",
    ),
    "vgg11_bn": Recipe(
        "vgg11_bn",
        "torchvision's vgg11_bn",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=132_868_840,
        training="animals",
    ),
    "vgg13": Recipe(
        "vgg13",
        "Simonyan & Zisserman 2015, table 1, B",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=133_047_848,
        training="animals",
    ),
    "vgg13_bn": Recipe(
        "vgg13_bn",
        "torchvision's vgg13_bn",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=133_053_736,
        training="animals",
    ),
    "vgg16": Recipe(
        "vgg16",
        "Simonyan & Zisserman 2015, table 1, D",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=138_357_544,
        training="animals",
    ),
    "vgg16_bn": Recipe(
        "vgg16_bn",
        "torchvision's vgg16_bn",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=138_365_992,
        training="animals",
    ),
    "vgg16_conv": Recipe(
        "vgg16_conv",
        "Simonyan & Zisserman 2015, section 3.2",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=138_357_544,
        training="animals",
    ),
    "vgg19": Recipe(
        "vgg19",
        "Simonyan & Zisserman 2015, table 1, E",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=143_667_240,
        training="animals",
    ),
    "vgg19_bn": Recipe(
        "vgg19_bn",
        "torchvision's vgg19_bn",
        image_size=224,
        smallest_image_size=32,
        in_channels=3,
        num_classes=1000,
        parameters=143_678_248,
        training="animals",
    ),
}

# Of the losses of heads that run in training only: Szegedy et al. 2015, section 5.
AUXILIARY_WEIGHT = 0.3

# Each optimizer's constants, by the names of its paper. Momentum: heavy ball,
# velocity = momentum * velocity + gradient. Nesterov: Sutskever et al. 2013, section 2.
# Adam: Kingma & Ba 2015, algorithm 1. AdamW: Loshchilov & Hutter 2019, algorithm 2, the
# decay times the learning rate. RMSprop: Tieleman & Hinton 2012, lecture 6e. Adagrad:
# Duchi et al. 2011, figure 1. Epsilon stands outside the root everywhere.
OPTIMIZERS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01},
    "rmsprop": {"rho": 0.9, "epsilon": 1e-8},
    "adagrad": {"epsilon": 1e-10},
}

# What a gradient may be kept within: each number, each tensor's norm, the norm of all.
CLIPPINGS = ("value", "norm", "global_norm")


def optimizer_settings(
    name: str, weight_decay: float | None = None, clip_norm: float | None = None
) -> dict[str, object]:
    """Returns the arguments of an optimizer, apart from the learning rate.

    Args:
        name: one of OPTIMIZERS.
        weight_decay: decoupled in AdamW, otherwise part of the gradient; None takes
            the optimizer's own.
        clip_norm: what the norm of all gradients together is kept within, before the
            weight decay; None is no bound.

    Raises:
        UsageError: there is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    settings = dict(OPTIMIZERS[name])
    if weight_decay is not None:
        settings["weight_decay"] = weight_decay
    if clip_norm is not None:
        settings["clip"] = ("global_norm", clip_norm)
    return settings


def check_clip(clip: tuple[str, float]) -> None:
    """Raises UsageError for a clipping that is not one of CLIPPINGS and a bound."""
    kind, limit = clip
    if kind not in CLIPPINGS:
        raise unknown("clipping", kind, CLIPPINGS)
    if not limit > 0:
        raise UsageError(f"gradients cannot be clipped to {limit}: above zero would do")


# The learning rate by epoch; the cosine's decay ends with the training.
SCHEDULERS = {
    "constant": {},
    "step": {"step_size": 5, "gamma": 0.6},
    "exponential": {"decay_steps": 1, "gamma": 0.95},
    "cosine": {},
    "warmup_cosine": {"steps": 5, "start": 0.1},
    "plateau": {"gamma": 0.5, "patience": 3, "threshold": 1e-4},
}


def learning_rate(
    scheduler: str, initial: float, epoch: int, epochs: int, losses: Sequence[float]
) -> float:
    """Returns the learning rate of an epoch.

    Args:
        scheduler: one of SCHEDULERS.
        initial: the rate of the first epoch, or after the warm-up.
        epoch: from 0.
        epochs: of the whole training.
        losses: the training loss of each epoch before, for "plateau".

    Raises:
        UsageError: "plateau" without the losses.
    """
    constants = SCHEDULERS[scheduler]
    if scheduler == "plateau":
        if len(losses) != epoch:
            raise UsageError(
                "scheduler plateau follows the losses of whole epochs, of which there "
                "are none here: choose another scheduler, or no more than one epoch"
            )
        return schedules.plateau(initial, losses, **constants)
    factor = {
        "constant": schedules.constant,
        "step": schedules.step_decay,
        "exponential": schedules.exponential_decay,
        "cosine": lambda: schedules.cosine_decay(epochs),
        "warmup_cosine": lambda steps, start: schedules.warm_up(
            steps, schedules.cosine_decay(epochs - steps), start
        ),
    }[scheduler](**constants)
    return initial * factor(epoch)


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


def training(name: str) -> Training:
    """Returns a lecture's training.

    Raises:
        UsageError: there is no such training; names near ones.
    """
    if name not in TRAININGS:
        raise unknown("recipe", name, list(TRAININGS))
    return TRAININGS[name]


def num_outputs(recipe: Recipe, num_classes: int) -> int:
    """Returns the logits of a model that tells so many classes apart.

    Raises:
        UsageError: a model with one logit is to tell apart more or less than two.
    """
    if recipe.num_classes > 1:
        return num_classes
    if num_classes != 2:
        raise UsageError(
            f"{recipe.name} tells two classes apart, not {num_classes}: choose two"
        )
    return 1


def check_architecture(
    name: str, architecture: dict[str, object], choices: set[str]
) -> None:
    """Raises UsageError for an argument that a model's class does not take."""
    for argument in architecture:
        if argument not in choices:
            raise unknown(f"argument of {name}", argument, sorted(choices))


def shape(
    recipe: Recipe,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    cdims: Sequence[int] | None = None,
) -> Shape:
    """Returns a model's shape; None stands for the recipe's value.

    Args:
        recipe: the model's recipe.
        num_classes: number of logits.
        image_size: height and width in pixels, one number for both or a pair.
        in_channels: channels of the input images.
        cdims: those of a configurable network, each of which halves the image.

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
    smallest = recipe.smallest_image_size if cdims is None else 2 ** len(cdims)
    if min(height, width) < smallest:
        raise UsageError(
            f"image size {height}x{width} is too small for {recipe.name}: "
            f"the smallest that works is {smallest}x{smallest}"
        )
    return result

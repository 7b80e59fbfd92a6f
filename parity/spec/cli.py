"""The one command line of both sides' train, evaluate and predict programs.

Importing this loads no framework, so that `--help` and a wrong argument are answered
at once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from parity.spec import augmentation, datasets, devices, images, metrics, recipes, runs
from parity.spec.errors import Failure, UsageError, unknown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Returns a parser that ends in one line and exit code 2 on wrong usage."""
    return _Parser(prog=f"python -m {program}", description=description)


def run(program: str, main: Callable[[], int]) -> NoReturn:
    """Runs a program: what a user can mend ends in one line, without a traceback."""
    try:
        sys.exit(main())
    except UsageError as error:
        print(f"python -m {program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except Failure as error:
        print(f"python -m {program}: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print(f"python -m {program}: stopped", file=sys.stderr)
        sys.exit(130)


def integer(least: int) -> Callable[[str], int]:
    """Returns a parser of integers from `least` to the largest of 64 bits."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not an integer of {least} or more"
            )
        if value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} has more than 63 bits")
        return value

    return parse


positive = integer(1)
natural = integer(0)


def batch_size(text: str) -> int | str:
    """Parses a number of images, or "full" for the whole set."""
    return text if text == "full" else positive(text)


def positive_float(text: str) -> float:
    """Parses a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def natural_float(text: str) -> float:
    """Parses a finite number of zero or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of zero or more")
    return value


def one_of(kind: str, choices: list[str]) -> Callable[[str], str]:
    """Returns a parser of names that answers a wrong one with near ones."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, choices)))
        return text

    return parse


def some_of(kind: str, choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Returns a parser of names with commas between them."""
    parse_one = one_of(kind, choices)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(parse_one, text.split(","))))

    return parse


def augmentations(text: str) -> tuple[str, ...]:
    """Parses names of augmentations, or "none"."""
    if text == "none":
        return ()
    return some_of("augmentation", augmentation.NAMES)(text)


model_name = one_of("model", recipes.names())
dataset_name = one_of("data set", list(datasets.NAMES))
recipe_name = one_of("recipe", list(recipes.TRAININGS))
scheduler_name = one_of("scheduler", list(recipes.SCHEDULERS))
optimizer_name = one_of("optimizer", list(recipes.OPTIMIZERS))
precision_name = one_of("precision", list(devices.PRECISIONS))


def device_name(text: str) -> str:
    """Parses the name of a device."""
    try:
        devices.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_model(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """Adds the model's name."""
    parser.add_argument(
        "model",
        type=model_name,
        metavar="MODEL",
        help=", ".join(recipes.names()),
        nargs="?" if optional else None,
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Adds the model's input and output; None stands for the recipe's value."""
    parser.add_argument("--image-size", type=positive, metavar="PIXELS")
    parser.add_argument("--num-classes", type=positive, metavar="N")
    parser.add_argument("--in-channels", type=positive, metavar="N")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds what a training is made of; None stands for the recipe's value."""
    parser.add_argument(
        "--recipe",
        type=recipe_name,
        metavar="NAME",
        help=f"a lecture's training: {', '.join(recipes.TRAININGS)} (default: the "
        "model's)",
    )
    _add_data(parser)
    parser.add_argument("--image-size", type=positive, metavar="PIXELS")
    parser.add_argument(
        "--augment",
        type=augmentations,
        metavar="NAMES",
        help=f"{','.join(augmentation.NAMES)} or none, of the training images",
    )
    parser.add_argument(
        "--normalise",
        action=argparse.BooleanOptionalAction,
        help="bring images to mean 0 and deviation 1, or leave them in 0 to 1",
    )
    parser.add_argument(
        "--batch-size", type=batch_size, metavar="N", help='or "full", the whole set'
    )
    parser.add_argument(
        "--optimizer",
        type=optimizer_name,
        metavar="NAME",
        help=", ".join(recipes.OPTIMIZERS),
    )
    parser.add_argument("--learning-rate", "--lr", type=positive_float, metavar="RATE")
    parser.add_argument(
        "--scheduler",
        type=scheduler_name,
        metavar="NAME",
        help=f"by epoch: {', '.join(recipes.SCHEDULERS)} (of the training loss)",
    )
    parser.add_argument(
        "--weight-decay",
        type=natural_float,
        metavar="X",
        help="decoupled in adamw, otherwise part of the gradient (default: "
        f"{recipes.OPTIMIZERS['adamw']['weight_decay']} in adamw, otherwise 0)",
    )
    parser.add_argument(
        "--clip-norm",
        type=positive_float,
        metavar="X",
        help="keep the norm of all gradients together within this",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="of the initial weights and the batch order (default: 0)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds where to run."""
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="|".join(devices.DEVICES),
        help="auto takes a GPU where the framework sees one (default: auto)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=dataset_name,
        metavar="NAME",
        help=f"{', '.join(datasets.NAMES)} (default: the recipe's)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="where data sets are looked for and downloaded to (default: data); for "
        "folder, one folder of images per class, or train and test with these",
    )
    parser.add_argument(
        "--label-names",
        metavar="FILE",
        help="other names for classes, a JSON object, or animals10: the lecture's",
    )
    parser.add_argument(
        "--strict-data",
        action="store_true",
        help="stop at a file that is no whole image, instead of leaving it out",
    )
    parser.add_argument(
        "--workers",
        type=natural,
        default=0,
        metavar="N",
        help="processes (PyTorch) or threads (TensorFlow) that read images; 0 is the "
        "program itself in PyTorch and TensorFlow's choice (default: 0)",
    )


def parse_train(program: str, arguments: list[str] | None = None) -> runs.Options:
    """Returns the options of a training; ends the program on --help or an error."""
    flags = parser(
        program, "Train a network; whatever is not given comes from its recipe."
    )
    add_model(flags, optional=True)
    add_training(flags)
    flags.add_argument("--epochs", type=positive, metavar="N")
    _add_metrics(flags)
    flags.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start from a run's .safetensors file, from either side",
    )
    add_device(flags)
    _add_arithmetic(flags)
    _add_record(flags)
    # What is not given is another thing than what is given as it is by default, when
    # a run goes on.
    flags.set_defaults(**dict.fromkeys(vars(flags.parse_args([]))))
    given = vars(flags.parse_args(arguments))
    model, resume = given.pop("model"), given.pop("resume")
    try:
        if resume:
            return runs.resumed(resume, model, **given)
        if model is None:
            raise UsageError("which MODEL? or --resume DIR to go on with a run")
        return runs.options(model, **given)
    except UsageError as error:
        flags.error(str(error))


def _add_arithmetic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        type=precision_name,
        metavar="|".join(devices.PRECISIONS),
        help="of the arithmetic; weights are float32 in all but float64, and tf32 is "
        "for GPUs (default: float32)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="by PyTorch's compiler or by XLA; slower for small networks on a CPU",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="try precisions and compilation for some steps and take the fastest; the "
        "two sides are then as near as that precision",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same numbers from the same run on a GPU too, where that is slower",
    )
    parser.add_argument(
        "--sync-bn",
        action="store_true",
        help="in several processes: batch normalisation over all their images",
    )


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="N",
        help="steps, beside a checkpoint after each epoch",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files as well"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the run folder (default: runs/MODEL-FRAMEWORK-TIME)",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with a run from its last checkpoint, or from the one given",
    )
    parser.add_argument("--quiet", action="store_true", help="print the last line only")


def shape_of(arguments: argparse.Namespace) -> recipes.Shape:
    """Returns the shape of the model that the arguments name."""
    return recipes.shape(
        recipes.find(arguments.model),
        arguments.num_classes,
        arguments.image_size,
        arguments.in_channels,
    )


def parse_summary(
    program: str, arguments: list[str] | None = None
) -> tuple[str, recipes.Shape]:
    """Returns the model and its shape; ends the program on --help or an error."""
    flags = parser(program, "List a network's layers, sizes and receptive fields.")
    add_model(flags)
    add_shape(flags)
    given = flags.parse_args(arguments)
    try:
        return given.model, shape_of(given)
    except UsageError as error:
        flags.error(str(error))


def parse_evaluate(
    program: str, arguments: list[str] | None = None
) -> argparse.Namespace:
    """Returns the arguments of evaluate: run, dataset, data_dir, split, device."""
    flags = parser(program, "Measure a trained network's loss and accuracy.")
    _add_run(flags)
    _add_data(flags)
    flags.add_argument("--split", choices=("test", "train"), default="test")
    _add_metrics(flags)
    add_device(flags)
    return flags.parse_args(arguments)


def parse_predict(
    program: str, arguments: list[str] | None = None
) -> argparse.Namespace:
    """Returns the arguments of predict: run, images, device."""
    flags = parser(program, "Name the class of image files, with probabilities.")
    _add_run(flags)
    flags.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="any format Pillow reads; light strokes on dark, as in MNIST",
    )
    add_device(flags)
    return flags.parse_args(arguments)


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics",
        type=some_of("metric", metrics.METRICS),
        default=("top1",),
        metavar="NAMES",
        help=f"{','.join(metrics.METRICS)} (default: top1)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder or its .safetensors file"
    )


def print_predictions(
    paths: list[Path], probabilities: list[list[float]], classes: tuple[str, ...]
) -> None:
    """Prints each image's label and its three largest probabilities.

    Says which images were more than 8-bit grey or RGB and have been converted.
    """
    for path, row in zip(paths, probabilities, strict=True):
        if conversion := images.inspect(path)[0].conversion:
            print(f"converted: {path}, an image {conversion}", file=sys.stderr)
        ranked = sorted(zip(row, classes, strict=True), reverse=True)[:3]
        listed = ", ".join(f"{name} {value:.4f}" for value, name in ranked)
        print(f"{path}: {ranked[0][1]}  ({listed})")

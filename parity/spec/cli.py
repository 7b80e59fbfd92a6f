"""The one command line of both sides' train, evaluate and predict programs.

Importing this loads no framework, so that `--help` and a wrong argument are answered
at once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from parity.spec import datasets, recipes, runs
from parity.spec.errors import UsageError, unknown

DEVICES = ("auto", "cpu", "gpu")


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


def positive_float(text: str) -> float:
    """Parses a finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def one_of(kind: str, choices: list[str]) -> Callable[[str], str]:
    """Returns a parser of names that answers a wrong one with near ones."""

    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, choices)))
        return text

    return parse


model_name = one_of("model", recipes.names())
dataset_name = one_of("data set", list(datasets.CATALOGUE))
optimizer_name = one_of("optimizer", list(recipes.OPTIMIZERS))
device_name = one_of("device", list(DEVICES))


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model's name."""
    parser.add_argument(
        "model", type=model_name, metavar="MODEL", help=", ".join(recipes.names())
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds what a training is made of; None stands for the recipe's value."""
    _add_data(parser)
    parser.add_argument("--image-size", type=positive, metavar="PIXELS")
    parser.add_argument("--batch-size", type=positive, metavar="N")
    parser.add_argument(
        "--optimizer",
        type=optimizer_name,
        metavar="NAME",
        help=", ".join(recipes.OPTIMIZERS),
    )
    parser.add_argument("--learning-rate", "--lr", type=positive_float, metavar="RATE")
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
        metavar="|".join(DEVICES),
        help="auto takes the GPU where the framework sees one (default: auto)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=dataset_name,
        metavar="NAME",
        help=f"{', '.join(datasets.CATALOGUE)} (default: the recipe's)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="where data sets are looked for and downloaded to (default: data)",
    )


def parse_train(program: str, arguments: list[str] | None = None) -> runs.Options:
    """Returns the options of a training; ends the program on --help or an error."""
    flags = parser(
        program, "Train a network; whatever is not given comes from its recipe."
    )
    add_model(flags)
    add_training(flags)
    flags.add_argument("--epochs", type=positive, metavar="N")
    flags.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start from a run's .safetensors file, from either side",
    )
    add_device(flags)
    flags.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="the run folder (default: runs/MODEL-FRAMEWORK-TIME)",
    )
    flags.add_argument("--quiet", action="store_true", help="print the last line only")
    given = vars(flags.parse_args(arguments))
    try:
        return runs.options(given.pop("model"), **given)
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


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder or its .safetensors file"
    )


def print_predictions(
    paths: list[Path], probabilities: list[list[float]], classes: tuple[str, ...]
) -> None:
    """Prints each image's label and its three largest probabilities."""
    for path, row in zip(paths, probabilities, strict=True):
        ranked = sorted(zip(row, classes, strict=True), reverse=True)[:3]
        listed = ", ".join(f"{name} {value:.4f}" for value, name in ranked)
        print(f"{path}: {ranked[0][1]}  ({listed})")

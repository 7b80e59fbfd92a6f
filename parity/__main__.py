"""The command line: `python -m parity compare|convert|train|accuracy MODEL ...`.

Exit code 0 when the two sides are equal (or differ by float32 rounding), 1 when they
are different, 2 on wrong usage.
"""

import argparse
from pathlib import Path

from parity.spec import cli, recipes, runs


def _arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    flags = cli.parser("parity", "Compare the Keras and the PyTorch side.")
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")

    compare = commands.add_parser(
        "compare", help="outputs and gradients of both sides, layer by layer"
    )
    _add_shape(compare)
    compare.add_argument(
        "--keras", type=Path, metavar="FILE", help="weights of the Keras side"
    )
    compare.add_argument(
        "--torch",
        type=Path,
        metavar="FILE",
        help="weights of the PyTorch side (default for both: the same probe weights)",
    )
    _add_precision(compare)

    convert = commands.add_parser(
        "convert",
        help="weights from one format to another, by suffix: .safetensors, "
        ".weights.h5, .keras, .pt, .pth",
    )
    _add_shape(convert)
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")

    train = commands.add_parser(
        "train", help="both sides step by step: batch, loss, gradients, weights"
    )
    cli.add_model(train)
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=cli.positive, metavar="N", help="default: 100")
    length.add_argument("--epochs", type=cli.positive, metavar="N")
    cli.add_training(train)
    _add_precision(train)

    accuracy = commands.add_parser(
        "accuracy", help="whole trainings over several seeds, tested for equivalence"
    )
    cli.add_model(accuracy)
    accuracy.add_argument("--seeds", type=cli.integer(2), default=5, metavar="N")
    accuracy.add_argument("--epochs", type=cli.positive, metavar="N")
    cli.add_training(accuracy)
    cli.add_device(accuracy)
    return flags.parse_args(arguments)


def _add_shape(parser: argparse.ArgumentParser) -> None:
    cli.add_model(parser)
    parser.add_argument("--image-size", type=cli.positive, metavar="PIXELS")
    parser.add_argument("--num-classes", type=cli.positive, metavar="N")
    parser.add_argument("--in-channels", type=cli.positive, metavar="N")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the whole report")


def _compare(arguments: argparse.Namespace) -> int:
    from parity.commands import compare_sides
    from parity.spec.files import write_json

    outputs, gradients = compare_sides(
        arguments.model,
        _shape(arguments),
        arguments.keras,
        arguments.torch,
        dtype=arguments.dtype,
        device=arguments.device,
    )
    print(outputs)
    print(gradients)
    if arguments.json:
        write_json(
            arguments.json,
            {"outputs": outputs.to_dict(), "gradients": gradients.to_dict()},
        )
    return int("different" in (outputs.verdict, gradients.verdict))


def _convert(arguments: argparse.Namespace) -> int:
    from parity.weights import convert

    rows = convert(
        arguments.model, arguments.source, arguments.target, _shape(arguments)
    )
    for row in rows:
        print(f"{row.name:24} {row.rule:16} {row.keras_shape} -> {row.torch_shape}")
    print(f"{len(rows)} tensors written to {arguments.target}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from parity.commands import train_sides

    steps = None if arguments.epochs else arguments.steps or 100
    report = train_sides(
        _options(arguments), steps, dtype=arguments.dtype, device=arguments.device
    )
    print(report)
    if arguments.json:
        report.to_json(arguments.json)
    return int(report.verdict == "different")


def _accuracy(arguments: argparse.Namespace) -> int:
    from parity.equivalence import compare_accuracies

    result = compare_accuracies(_options(arguments), arguments.seeds)
    print(result)
    return int(not result.equivalent)


def _options(arguments: argparse.Namespace) -> runs.Options:
    fields = set(runs.Options.__dataclass_fields__) & set(vars(arguments))
    return runs.options(**{name: getattr(arguments, name) for name in fields})


def _shape(arguments: argparse.Namespace) -> recipes.Shape:
    return recipes.shape(
        recipes.find(arguments.model),
        arguments.num_classes,
        arguments.image_size,
        arguments.in_channels,
    )


def main() -> int:
    """Runs the command of the command line."""
    arguments = _arguments()
    commands = {
        "compare": _compare,
        "convert": _convert,
        "train": _train,
        "accuracy": _accuracy,
    }
    return commands[arguments.command](arguments)


if __name__ == "__main__":
    cli.run("parity", main)

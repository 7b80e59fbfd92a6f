"""The command line: `python -m parity COMMAND ...`.

Exit code 0 when the two sides are equal (or differ by float32 rounding), 1 when they
are different, 2 on wrong usage.
"""

import argparse
from pathlib import Path

from parity import ops_command, runs_command, score
from parity.device import report
from parity.diagnosis import command as diagnose_command
from parity.spec import cli, runs, windows


def _arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    flags = cli.parser("parity", "Compare the Keras and the PyTorch side.")
    commands = flags.add_subparsers(dest="command", required=True, metavar="COMMAND")

    compare = commands.add_parser(
        "compare", help="outputs and gradients of both sides, layer by layer"
    )
    cli.add_model(compare)
    cli.add_shape(compare)
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
    cli.add_model(convert)
    cli.add_shape(convert)
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

    field = commands.add_parser(
        "receptive-field",
        help="which pixels move a layer's middle unit, on both sides, as a picture",
    )
    cli.add_model(field, optional=True)
    cli.add_shape(field)
    what = field.add_mutually_exclusive_group(required=True)
    what.add_argument("--layer", metavar="NAME", help="see *_impl.summary MODEL")
    what.add_argument(
        "--stacked", action="store_true", help="two 3x3 convolutions against one 5x5"
    )
    field.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    field.add_argument("--images", type=cli.positive, default=32, metavar="N")
    field.add_argument("--seed", type=cli.natural, default=0, metavar="N")
    field.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of both sides, any format (default: the seed's initial weights)",
    )
    _add_show(commands)
    ops_command.add_arguments(commands)
    runs_command.add_arguments(commands)
    diagnose_command.add_arguments(commands)
    score.add_arguments(commands)
    report.add_arguments(commands)
    given = flags.parse_args(arguments)
    if given.command == "receptive-field" and (given.model is None) != given.stacked:
        field.error("give a MODEL and --layer NAME, or --stacked and no MODEL")
    return given


def _add_show(commands) -> None:
    show = commands.add_parser(
        "show", help="a kernel's steps over a small image, on both sides, as a picture"
    )
    show.add_argument(
        "operation",
        type=cli.one_of("operation", list(windows.OPERATIONS)),
        metavar="OPERATION",
        help=", ".join(windows.OPERATIONS),
    )
    sizes = {"type": _pair, "metavar": "N|HxW"}
    show.add_argument("--input", **sizes, default=(5, 5), help="default: 5")
    show.add_argument("--kernel", **sizes, help="default: 3, of a pooling 2")
    show.add_argument("--stride", **sizes, help="default: 1, of a pooling the kernel")
    show.add_argument("--dilation", **sizes, default=(1, 1), help="default: 1")
    show.add_argument(
        "--padding",
        type=_padding,
        default="valid",
        metavar="same|valid|N",
        help="TensorFlow's same, none, or pixels on every side (default: valid)",
    )
    show.add_argument(
        "--seed",
        type=cli.natural,
        default=0,
        metavar="N",
        help="of the image and the kernel (default: 0)",
    )
    show.add_argument("--output", type=Path, required=True, metavar="FILE.png|.gif")


def _pair(text: str) -> tuple[int, int]:
    sizes = text.lower().split("x")
    if len(sizes) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 5 or 5x7")
    first, last = map(cli.positive, (sizes[0], sizes[-1]))
    return first, last


def _padding(text: str) -> str | int:
    if text in ("same", "valid"):
        return text
    try:
        return cli.natural(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not same, valid or an integer of 0 or more"
        ) from None


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the whole report")


def _compare(arguments: argparse.Namespace) -> int:
    from parity.commands import compare_sides
    from parity.spec.files import write_json

    outputs, gradients = compare_sides(
        arguments.model,
        cli.shape_of(arguments),
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
        arguments.model, arguments.source, arguments.target, cli.shape_of(arguments)
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


def _receptive_field(arguments: argparse.Namespace) -> int:
    from parity import receptive_field
    from parity.spec.files import write_atomically
    from parity.spec.pictures import draw_receptive_fields

    if arguments.stacked:
        fields = receptive_field.stacked_fields(arguments.seed)
        stack, single = receptive_field.stack_parameters()
        print(f"weights: 18 C^2 = {stack:,} stacked, 25 C^2 = {single:,} in one")
    else:
        field = receptive_field.model_field(
            arguments.model,
            arguments.layer,
            cli.shape_of(arguments),
            arguments.images,
            arguments.seed,
            arguments.weights,
        )
        fields = (field,)
    print(*fields, sep="\n")
    write_atomically(arguments.output, lambda path: draw_receptive_fields(fields, path))
    return int(not all(field.equal for field in fields))


def _show(arguments: argparse.Namespace) -> int:
    from parity.spec.files import write_atomically
    from parity.spec.step_pictures import check, draw_steps

    pooling = "pool" in arguments.operation
    kernel_size = arguments.kernel or ((2, 2) if pooling else (3, 3))
    stride = arguments.stride or (kernel_size if pooling else (1, 1))
    placed = windows.place(
        arguments.operation,
        arguments.input,
        kernel_size,
        stride,
        arguments.dilation,
        arguments.padding,
    )
    check(placed, arguments.output)

    from parity.kernel_steps import take_steps

    steps = take_steps(placed, arguments.seed)
    print(steps)
    write_atomically(arguments.output, lambda path: draw_steps(steps, path))
    return int(not steps.equal)


def _options(arguments: argparse.Namespace) -> runs.Options:
    fields = set(runs.Options.__dataclass_fields__) & set(vars(arguments))
    return runs.options(**{name: getattr(arguments, name) for name in fields})


def main() -> int:
    """Runs the command of the command line."""
    arguments = _arguments()
    commands = {
        "compare": _compare,
        "convert": _convert,
        "train": _train,
        "accuracy": _accuracy,
        "receptive-field": _receptive_field,
        "show": _show,
        "ops": ops_command.run,
        "runs": runs_command.main,
        "diagnose": diagnose_command.main,
        "score": score.main,
        "device-report": report.main,
    }
    return commands[arguments.command](arguments)


if __name__ == "__main__":
    cli.run("parity", main)

"""The command `python -m parity runs`: run folders laid over each other.

Importing this loads no framework, and neither does running it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from parity.ops_command import check_writable
from parity.spec.files import write_atomically, write_json

WIDEST = 32  # characters of a value in the table


def add_arguments(commands) -> None:
    """Adds the command to the others."""
    runs = commands.add_parser(
        "runs",
        help="run folders laid over each other: what differs, and whether they are "
        "the same curve",
    )
    runs.add_argument("first", type=Path, metavar="RUN", help="a run folder")
    runs.add_argument(
        "others",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="others, each of which is compared with the first",
    )
    runs.add_argument("--output", type=Path, metavar="FILE.png", help="draw the curves")
    runs.add_argument("--json", type=Path, metavar="FILE", help="the whole report")


def main(arguments: argparse.Namespace) -> int:
    """Prints what differs and the verdicts; 1 when a run is a different curve."""
    for path in (arguments.output, arguments.json):
        if path:
            check_writable(path)
    from parity import run_curves

    records = run_curves.read([arguments.first, *arguments.others])
    comparisons = [run_curves.compare(records[0], other) for other in records[1:]]
    labels = [record.label for record in records]
    print(*_summaries(records), sep="\n", end="\n\n")
    if rows := run_curves.differing(records):
        table = [("argument", *labels)]
        table += [(name, *map(_short, values)) for name, values in rows.items()]
        print(*_aligned(table), sep="\n", end="\n\n")
    print(*comparisons, sep="\n")
    if arguments.json:
        write_json(arguments.json, run_curves.report(records, comparisons))
    if arguments.output:
        write_atomically(arguments.output, lambda path: run_curves.draw(records, path))
    return int(any(x.verdict == "different" for x in comparisons))


def _summaries(records: Sequence) -> list[str]:
    head = ("run", "epochs", "test accuracy", "best", "train loss", "seconds")
    table = [(*head, "images/s")]
    for record in records:
        found = record.summary()
        of_epochs = f"/{found['of_epochs']}" if found["of_epochs"] else ""
        best = _number(found["best_test_accuracy"], ".4f")
        table.append(
            (
                record.label,
                f"{found['epochs']}{of_epochs}",
                _number(found["test_accuracy"], ".4f"),
                f"{best} (epoch {found['best_epoch']})" if best != "-" else best,
                _number(found["train_loss"], ".4g"),
                _number(found["seconds"], ".1f"),
                _number(found["images_per_second"], ",.0f"),
            )
        )
    return _aligned(table)


def _number(value: float | None, digits: str) -> str:
    return "-" if value is None else f"{value:{digits}}"


def _short(value: object) -> str:
    if value is None:
        return "-"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]

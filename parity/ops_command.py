"""The command `python -m parity ops`: the table of operations, every row executed.

Importing this loads no framework, so that a wrong argument is answered at once.
"""

import argparse
import contextlib
import difflib
import json
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from parity.rows import ROWS, find
from parity.rows.record import BACKENDS, SECTIONS, Row
from parity.rows.signatures import CALLS
from parity.spec.errors import UsageError
from parity.spec.files import write_atomically


def add_arguments(commands) -> None:
    """Adds the command to the others."""
    ops = commands.add_parser(
        "ops", help="the table of operations in both frameworks, every row executed"
    )
    ops.add_argument(
        "word",
        nargs="?",
        metavar="WORD",
        help="an operation, such as conv2d, shown with both sides' code, or any word "
        "of a row (default: all rows)",
    )
    ops.add_argument("--json", action="store_true", help="print JSON in place of text")
    ops.add_argument("--html", type=Path, metavar="FILE", help="write a web page")
    ops.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    ops.add_argument(
        "--no-backends",
        action="store_true",
        help="leave out the other Keras backends, each of which takes a process",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measures rows, prints them, and writes the page; 1 when a row has a problem."""
    rows = select(arguments.word)
    if arguments.html:
        check_writable(arguments.html)

    from rich.console import Console

    from parity.ops_table import measure, print_end, print_operation, print_table

    # What a row prints is no part of the table.
    with contextlib.redirect_stdout(sys.stderr):
        measured = measure(
            rows,
            date.today().isoformat(),
            device=arguments.device,
            backends=() if arguments.no_backends else BACKENDS,
            progress=_progress,
        )
    if arguments.html:
        from parity.ops_page import page

        text = page(measured)
        write_atomically(arguments.html, lambda path: path.write_text(text, "utf-8"))
    console = Console() if sys.stdout.isatty() else None
    if arguments.json:
        print(json.dumps(measured.to_dict(), indent=2, allow_nan=False))
    elif arguments.html:
        print_end(measured, console)
    elif arguments.word in CALLS:
        print_operation(arguments.word, measured, console)
    else:
        print_table(measured, console)
    return int(bool(measured.problems))


def select(word: str | None) -> list[Row]:
    """Returns the rows about an operation, or with a word, or all.

    Raises:
        UsageError: there are none.
    """
    if word in CALLS:
        return [row for row in ROWS if word in row.operations]
    if word is None:
        return list(ROWS)
    try:
        return find(word)
    except UsageError as error:
        names = [*CALLS, *SECTIONS, *(row.name for row in ROWS)]
        near = difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"{error}{hint}") from None


def check_writable(path: Path) -> None:
    """Raises a UsageError where a file cannot be written, before there is work lost."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
    folder = next(x for x in path.absolute().parents if x.exists())
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-"):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _progress(rows: Iterable) -> Iterable:
    """Returns rows that show on a terminal how many of them have been run."""
    if not sys.stderr.isatty():
        return rows
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(list(rows), "rows", console=console, transient=True)

"""The table of operations, measured, for a terminal: `python -m parity ops`."""

import importlib
import inspect
import io
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from parity.frameworks import torch
from parity import measuring
from parity.measuring import Error, Measurement
from parity.rows import signatures
from parity.rows.record import BACKENDS, Row
from parity.spec.files import plain

ROOT = Path(__file__).parent.parent
MODULES = ("ops", "optim", "initializers")
WIDE = 140  # columns of a terminal from which on each row is one line of a table
PIPED = 400  # columns where no terminal sets a limit


@dataclass(frozen=True)
class Measured:
    """Rows, what running them gave, and with what.

    Attributes:
        rows: of the table.
        measurements: one for each row.
        device: "cpu" or "gpu".
        versions: of the packages.
        hardware: in words.
        date: of the measurement, "2026-01-31".
    """

    rows: list[Row]
    measurements: list[Measurement]
    device: str
    versions: dict[str, str]
    hardware: str
    date: str

    def __iter__(self) -> Iterator[tuple[Row, Measurement]]:
        """Gives each row with its measurement."""
        return zip(self.rows, self.measurements, strict=True)

    @property
    def problems(self) -> dict[str, str]:
        """What is not as a row says it is, by the row's name."""
        return {row.name: found.problem for row, found in self if found.problem}

    @property
    def columns(self) -> tuple[str, ...]:
        """The types that were computed in."""
        types = ("float64", "float32", "tf32")
        return types if self.device == "gpu" else types[:2]

    @property
    def backends(self) -> tuple[str, ...]:
        """The other Keras backends that any row was run on."""
        return tuple(
            name
            for name in BACKENDS
            if any(name in found.backends for found in self.measurements)
        )

    def sections(self) -> Iterator[tuple[str, list[tuple[Row, Measurement]]]]:
        """Gives each section with its rows."""
        for section in dict.fromkeys(row.section for row in self.rows):
            yield section, [pair for pair in self if pair[0].section == section]

    def to_dict(self) -> dict:
        """Returns all of it as JSON has it."""
        rows = [
            asdict(row) | {"measurement": measurement.to_dict()}
            for row, measurement in self
        ]
        facts = ("date", "device", "hardware", "versions")
        return {name: getattr(self, name) for name in facts} | {"rows": plain(rows)}


def measure(
    rows: Iterable[Row],
    date: str,
    *,
    device: str = "cpu",
    backends: Iterable[str] = BACKENDS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Measured:
    """Runs rows.

    Args:
        rows: of the table.
        date: to write beside the numbers.
        device: "cpu" or "gpu".
        backends: other Keras backends to run the Keras code on.
        progress: wraps the rows, to show how far it is.
    """
    rows = list(rows)
    found = measuring.measure(rows, device=device, backends=backends, progress=progress)
    return Measured(rows, found, device, measuring.versions(), hardware(device), date)


def hardware(device: str) -> str:
    """Returns the processor's name and size, and the GPU's where that is used."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
        name = names[0] if names else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    found = f"{name}, {cores or os.cpu_count()} cores"
    if device == "gpu":
        found = f"{torch.cuda.get_device_name(0)}; {found}"
    return found


def brief(error: Error | None) -> str:
    """Returns an error in a word: a number, "shape", or an exception's name."""
    if error is None:
        return "-"
    if error.text:
        return re.match(r"(shape|\w+(?=:))?", error.text)[0] or "none"
    return number(error.relative)


def number(value: float) -> str:
    """Returns an error in two digits."""
    if value == 0:
        return "0"
    return f"{value:{'.2g' if 1e-3 <= value < 99.5 else '.1e'}}"


def agreement(row: Row, error: Error | None) -> str:
    """Returns whether a backend gives what TensorFlow gives: yes, or the error."""
    if error is None:
        return "-"
    return "yes" if measuring.agrees(row, error) else brief(error)


def where(row: Row) -> str:
    """Returns under what a row's naive port runs, " with TF_X=1"."""
    listed = " ".join(f"{name}={value}" for name, value in row.environment.items())
    return f" with {listed}" if listed else ""


def print_table(measured: Measured, console: Console | None = None) -> None:
    """Prints all rows by section, and what is not as they say.

    Args:
        measured: the rows.
        console: of a terminal; None prints plain text that depends on no terminal.
    """
    parts = [_head(measured)]
    for section, pairs in measured.sections():
        parts += [Text(), Text(section, "bold")]
        if console is None or console.width >= WIDE:
            parts.append(_table(pairs, measured, console))
        else:
            parts += [_block(*pair, console) for pair in pairs]
    _print([*parts, Text(), *_end(measured)], console)


def print_operation(
    name: str, measured: Measured, console: Console | None = None
) -> None:
    """Prints both sides' function, the calls that it stands for, and its rows.

    Args:
        name: of the operation.
        measured: the rows about it.
        console: as in print_table.
    """
    parts = [Text(name, "bold"), *_sources(name, console), Text()]
    sides = signatures.calls(name)
    for title, calls in zip(("Keras", "PyTorch"), sides, strict=True):
        parts += [Text(title, "bold"), *(_call(call) for call in calls), Text()]
    parts += [_differences(*sides), Text(), _head(measured)]
    for row, measurement in measured:
        parts += [Text(), _block(row, measurement, console, whole=True)]
    _print([*parts, Text(), *_end(measured)], console)


def print_end(measured: Measured, console: Console | None = None) -> None:
    """Prints how many rows there are, and what is not as they say.

    Args:
        measured: the rows.
        console: as in print_table.
    """
    _print(_end(measured), console)


def functions(name: str) -> tuple[Callable, Callable]:
    """Returns an operation's function of both sides."""
    found = []
    for side in ("keras_impl", "torch_impl"):
        modules = [importlib.import_module(f"{side}.{module}") for module in MODULES]
        found.append(next(vars(m)[name] for m in modules if name in vars(m)))
    return tuple(found)


def _sources(name: str, console: Console | None) -> list[RenderableType]:
    """Returns both sides' code, beside each other where the terminal is wide enough."""
    sources, headed = [], []
    for function in dict.fromkeys(functions(name)):  # some are both sides' own
        file = Path(inspect.getsourcefile(function)).relative_to(ROOT)
        source = inspect.getsource(function).rstrip()
        sources.append(source)
        title = Text(file.as_posix(), "italic")
        headed.append(Group(Text(), title, _code(source, console)))
    widths = [max(map(len, source.splitlines())) for source in sources]
    if console is None or sum(widths) + 4 > console.width:
        return headed
    table = Table.grid(padding=(0, 4, 0, 0))
    for width in widths:
        table.add_column(width=width)
    table.add_row(*headed)
    return [table]


def _call(call: signatures.Call) -> Padding:
    """Returns a call with its signature; defaults that differ stand out."""
    text = Text(str(call))
    for parameter in call.parameters:
        if parameter.differs:
            text.highlight_words([parameter.text], "bold red")
    return Padding(text, (0, 0, 0, 2))


def _differences(ours: list, theirs: list) -> RenderableType:
    differing = [
        (call.name, parameter.text)
        for call in (*ours, *theirs)
        for parameter in call.parameters
        if parameter.differs
    ]
    if not differing:
        return Text("Of what both sides have a default for, none differs.")
    table = Table.grid(padding=(0, 2))
    for name, text in differing:
        table.add_row(Text(f"  {name}"), Text(text, "bold red"))
    return Group(Text("Defaults that differ", "bold"), table)


def _table(
    pairs: Iterable[tuple[Row, Measurement]],
    measured: Measured,
    console: Console | None,
) -> RenderableType:
    """Returns the rows of a section as lines of a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    fixed = {"no_wrap": True}
    table.add_column("name", overflow="fold")
    table.add_column("category", **fixed)
    for name in ("naive", *measured.columns):
        table.add_column(name, justify="right", **fixed)
    for name in measured.backends:
        table.add_column(name, **fixed)
    table.add_column("Keras", overflow="fold")
    table.add_column("PyTorch", overflow="fold")
    for row, found in pairs:
        table.add_row(
            Text(row.name, "bold red" if found.problem else ""),
            Text(row.category),
            Text(brief(found.naive), "red" if found.naive else "dim"),
            *(Text(brief(found.left.get(x))) for x in measured.columns),
            *(Text(agreement(row, found.backends.get(x))) for x in measured.backends),
            _code(row.keras, console),
            _code(row.torch, console),
        )
    return table


def _block(
    row: Row, found: Measurement, console: Console | None, whole: bool = False
) -> RenderableType:
    """Returns a row on lines of its own.

    Args:
        row: of the table.
        found: its measurement.
        console: as in print_table.
        whole: whether the naive port and the explanations are shown too.
    """
    title = Text.assemble(
        (row.name, "bold red" if found.problem else "bold"), f"  {row.category}"
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    if row.what:
        table.add_row("", Text(row.what))
    first = f"Keras on {row.backend}" if row.backend else "Keras"
    table.add_row(first, _code(row.keras, console))
    if row.torch:
        table.add_row("PyTorch", _code(row.torch, console))
    if row.naive and whole:
        table.add_row(f"naive{where(row)}", _code(row.naive, console))
    if found.naive:
        table.add_row("errs by", Text(found.naive.text or brief(found.naive), "red"))
    left = ", ".join(f"{dtype} {brief(error)}" for dtype, error in found.left.items())
    table.add_row("left", Text(left or f"not measured: {found.skipped}"))
    if found.backends:
        agreed = (f"{x} {agreement(row, e)}" for x, e in found.backends.items())
        table.add_row("backends", Text(", ".join(agreed)))
    explained = ("symptom", "fix", "note", "limit_reason") if whole else ()
    for name in explained:
        if text := getattr(row, name):
            table.add_row(name.split("_")[0], Text(text))
    return Group(title, Padding(table, (0, 0, 0, 2)))


def _head(measured: Measured) -> Text:
    versions = ", ".join(f"{name} {x}" for name, x in measured.versions.items())
    explained = (
        "naive: what the port that people write errs by, a relative L2 error",
        f"{', '.join(measured.columns)}: what the right code leaves",
        f"{', '.join(BACKENDS)}: whether Keras gives there what it gives on TensorFlow",
    )
    explained = explained if measured.backends else explained[:2]
    return Text("\n".join((versions, f"on {measured.hardware}", *explained)), "dim")


def _end(measured: Measured) -> list[Text]:
    problems = [
        Text(f"{name}: {problem}", "red") for name, problem in measured.problems.items()
    ]
    count = len(measured.rows)
    listed = f"{count} {'row' if count == 1 else 'rows'}, "
    listed += f"{len(problems) or 'all'} {'not ' if problems else ''}as the table says"
    if skipped := sum(bool(found.skipped) for found in measured.measurements):
        listed += f", {skipped} not measured here"
    return [*problems, Text(listed)]


def _code(code: str, console: Console | None) -> RenderableType:
    if console is None:
        return Text(code)
    return Syntax(
        code, "python", theme="ansi_dark", background_color="default", word_wrap=True
    )


def _print(parts: Iterable[RenderableType], console: Console | None) -> None:
    if console:
        for part in parts:
            console.print(part)
        return
    text = io.StringIO()
    unlimited = Console(file=text, width=PIPED, color_system=None)
    for part in parts:
        unlimited.print(part)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))

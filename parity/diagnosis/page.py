"""A diagnosis as text, coloured on a terminal, and as one page of HTML."""

import importlib.resources
import io
import math
import string
import sys
from collections.abc import Iterable, Sequence
from html import escape

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parity.diagnosis.causes import CAUSES
from parity.diagnosis.findings import Diagnosis, Finding, Match
from parity.spec.tolerances import TOLERANCES

LONGEST = 40  # rows of the alignment that text shows
NAMED = 3  # further places of one cause that text names
AROUND = 2  # rows shown on either side of one that is not equal
PIPED = 10_000  # characters of a line where there is no terminal
STYLES = {"equal": "green", "rounding": "yellow", "different": "bold red"}
COLUMNS = ("keras", "torch", "operation", "inherited", "introduced", "verdict")
UNITS = "relative L2, float64"
COPIED = {
    "copy": "PyTorch's side was given Keras's weights",
    "as_is": "both sides kept their own weights",
}


def text(diagnosis: Diagnosis, terminal: bool | None = None) -> str:
    """Returns what `print(diagnosis)` shows: the verdict, the causes, the alignment.

    Args:
        diagnosis: to show.
        terminal: whether to colour it and to break lines at the terminal's width;
            None does so where the standard output is one.
    """
    if terminal is None:
        terminal = sys.stdout.isatty()
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=None if terminal else PIPED,
        highlight=False,
    )
    for part in _parts(diagnosis):
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def headline(diagnosis: Diagnosis) -> str:
    """Returns the verdict in one line, with the error that it rests on."""
    word, error = diagnosis.verdict, number(diagnosis.error)
    if word == "equal":
        return f"equal: outputs agree up to {error} ({UNITS}){_most(diagnosis)}"
    if word == "rounding":
        return f"rounding: outputs differ by {error} ({UNITS}){_most(diagnosis)}"
    if math.isinf(diagnosis.error):
        outputs = "outputs differ in shape, or in where they are not finite"
    elif any(finding.level == "forward" for finding in diagnosis.findings):
        outputs = f"outputs differ by {error} ({UNITS})"
    else:
        outputs = f"outputs agree up to {error} ({UNITS})"
    return f"different: {_count(diagnosis)}; {outputs}"


def _count(diagnosis: Diagnosis) -> str:
    findings = diagnosis.findings
    count = len(findings)
    kinds = len(grouped(findings))
    listed = f"{kinds} {'cause' if kinds == 1 else 'causes'}"
    if count > kinds:
        listed += f" at {count} places"
    if unexplained := sum(finding.cause == "unexplained" for finding in findings):
        alone = unexplained == count
        listed += ", unexplained" if alone else f", {unexplained} of them unexplained"
    return listed


def _most(diagnosis: Diagnosis) -> str:
    """Returns the evidence: what the layer that errs most introduces."""
    rows = [row for row in diagnosis.alignment if math.isfinite(row.introduced)]
    if not rows:
        return ""
    worst = max(rows, key=lambda row: row.introduced)
    if not worst.introduced:
        return "; no layer introduces an error"
    most = f"; no layer introduces more than {number(worst.introduced)}"
    return f"{most} ({_place(worst)})" if diagnosis.verdict == "rounding" else most


def basis(diagnosis: Diagnosis) -> str:
    """Returns what was compared, and how, in one line."""
    levels = {
        "forward": "the outputs were compared",
        "backward": "the outputs, the loss and the gradients were compared",
        "training": "the outputs, the loss, the gradients and training were compared",
    }
    line = f"{levels[diagnosis.level]} (level {diagnosis.level}); "
    line += f"{COPIED[diagnosis.weights]} (weights {diagnosis.weights})"
    if diagnosis.verdict == "rounding":
        line += "; a constant that one side rounds to float32 explains what is left"
    return line


def number(error: float | None) -> str:
    """Returns an error in a few characters."""
    if error is None:
        return "-"
    return f"{error:.1e}" if error else "0"


def change(finding: Finding) -> str:
    """Returns what removing a cause does to the error that is introduced."""
    before = number(finding.error_before)
    if finding.error_after is None:
        return f"{before}, and no change was found that takes it away"
    return f"{before} -> {number(finding.error_after)}"


def title(finding: Finding) -> str:
    """Returns a cause in a few words."""
    cause = CAUSES.get(finding.cause)
    return cause.title if cause else ""


def errors(row: Match) -> tuple[str, str]:
    """Returns a row's two errors; a layer without a partner has none."""
    if row.keras_name is None or row.torch_name is None:
        return "-", "-"
    return number(row.inherited), number(row.introduced)


def verdict(row: Match) -> str:
    """Returns a row's verdict, with where the difference is if not in the pair."""
    before = row.verdict == "different" and row.introduced <= TOLERANCES["outputs"]
    return "different before" if before else row.verdict


def _place(part: Finding | Match) -> str:
    return f"{part.keras_name or '-'} | {part.torch_name or '-'}"


# --- text


def _parts(diagnosis: Diagnosis) -> Iterable[RenderableType]:
    yield Text(headline(diagnosis), STYLES.get(diagnosis.verdict, ""))
    yield Text(basis(diagnosis), "dim")
    for index, alike in enumerate(grouped(diagnosis.findings), 1):
        first = alike[0]
        times = f"  at {len(alike)} places" if len(alike) > 1 else ""
        yield ""
        yield Text.assemble(
            (f"{index}  ", "dim"), (first.cause, "bold"), f"  {title(first)}{times}"
        )
        yield Padding(_finding(first, alike[1:]), (0, 0, 0, 3))
    if diagnosis.notes:
        yield ""
    for note in diagnosis.notes:
        yield Text(f"note: {note}", "yellow")
    if diagnosis.alignment:
        yield ""
        yield _table(diagnosis.alignment)


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Returns the findings that one change mends together, in order."""
    groups: dict[tuple, list[Finding]] = {}
    for finding in findings:
        key = (finding.cause, finding.level, finding.fix, finding.ties)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def _finding(finding: Finding, others: Sequence[Finding] = ()) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row("keras | torch", Text(_place(finding)))
    if others:
        named = ", ".join(_place(other) for other in others[:NAMED])
        more = f", and {len(others) - NAMED} more" if len(others) > NAMED else ""
        table.add_row("and", Text(named + more))
    table.add_row("error", Text(change(finding), "red"))
    if finding.level != "forward":
        table.add_row("level", Text(finding.level))
    table.add_row("in PyTorch", Text(finding.fix))
    table.add_row("or, in Keras", Text(finding.keras_fix))
    if finding.ties:
        table.add_row("or it is", Text(", ".join(finding.ties)))
    return table


def _table(rows: Sequence[Match]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in COLUMNS:
        right = name in ("inherited", "introduced")
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=name not in ("keras", "torch"),
            overflow="fold",
        )
    shown = chosen(rows)
    previous = -1
    for index in [*shown, len(rows)]:
        if left := index - previous - 1:
            some = "1 row" if left == 1 else f"{left} rows"
            table.add_row(Text(f"... {some}", "dim"))
        if index < len(rows):
            table.add_row(*_cells(rows[index]))
        previous = index
    if len(shown) < len(rows):
        table.caption = (
            f"{len(rows) - len(shown)} of {len(rows)} rows are left out; "
            "to_json and the page have them all"
        )
        table.caption_justify = "left"
        table.caption_style = "dim"
    return table


def chosen(rows: Sequence[Match], longest: int = LONGEST) -> list[int]:
    """Returns which rows of an alignment to show: those around what is not equal."""
    if len(rows) <= longest:
        return list(range(len(rows)))
    marked = [i for i, row in enumerate(rows) if row.verdict != "equal"]
    marked = marked or [0, len(rows) - 1]
    found: set[int] = set()
    # What differs comes first, then what is near it.
    for distance in range(AROUND + 1):
        for index in marked:
            for near in (index - distance, index + distance):
                if 0 <= near < len(rows) and len(found) < longest:
                    found.add(near)
    return sorted(found)


def _cells(row: Match) -> tuple[Text, ...]:
    same = row.verdict == "equal"
    inherited, introduced = errors(row)
    return (
        Text(row.keras_name or "-"),
        Text(row.torch_name or "-"),
        Text(row.operation),
        Text(inherited, "dim"),
        Text(introduced, "dim" if same else "red"),
        Text(verdict(row), STYLES.get(row.verdict, "yellow")),
    )


# --- HTML


def html(diagnosis: Diagnosis) -> str:
    """Returns one page that needs no network, the same for the same diagnosis."""
    template = importlib.resources.files("parity") / "diagnosis_page.html"
    rows = diagnosis.alignment
    alone = sum(row.verdict.startswith("only in") for row in rows)
    same = sum(row.verdict == "equal" for row in rows)
    listed = f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}, {same} equal"
    listed += f", {alone} without a partner" if alone else ""
    word, _, rest = headline(diagnosis).partition(": ")
    return string.Template(template.read_text("utf-8")).substitute(
        verdict=escape(word),
        rest=escape(rest),
        basis=escape(basis(diagnosis)),
        findings=_findings(diagnosis),
        notes=_notes(diagnosis.notes),
        count=escape(listed),
        rows="".join(_row(i, row, diagnosis) for i, row in enumerate(rows)),
    )


def _findings(diagnosis: Diagnosis) -> str:
    if not diagnosis.findings:
        return ""
    items = "".join(
        _article(index, finding, diagnosis)
        for index, finding in enumerate(diagnosis.findings, 1)
    )
    head = '<section aria-labelledby="causes"><h2 id="causes">Causes</h2>'
    return f"{head}\n{items}</section>\n"


def _article(index: int, finding: Finding, diagnosis: Diagnosis) -> str:
    rows = [
        f'<a href="#row-{i}">row {i + 1}</a>'
        for i, row in enumerate(diagnosis.alignment)
        if index in _found_at(row, diagnosis)
    ]
    layers = f"<code>{escape(_place(finding))}</code>"
    parts = {
        "Keras | PyTorch": f"{layers} {', '.join(rows)}",
        "Error": escape(change(finding)),
        "Level": escape(finding.level),
        "In PyTorch": escape(finding.fix),
        "Or, in Keras": escape(finding.keras_fix),
    }
    for side, value in finding.values.items():
        name = {"keras": "Keras has", "torch": "PyTorch has"}.get(side, side)
        shown = "nothing" if value is None else str(value)
        parts[escape(name)] = f"<code>{escape(shown)}</code>"
    if finding.ties:
        ties = ", ".join(f"<code>{escape(tie)}</code>" for tie in finding.ties)
        parts["Or it is"] = ties
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{part}</dd></div>\n" for name, part in parts.items()
    )
    return (
        f'<article id="finding-{index}">\n'
        f"<h3>{index}. <code>{escape(finding.cause)}</code> {escape(title(finding))}"
        f"</h3>\n<dl>\n{listed}</dl>\n</article>\n"
    )


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return f"<section><h2>Notes</h2>\n<ul>\n{items}</ul></section>\n" if notes else ""


def _found_at(row: Match, diagnosis: Diagnosis) -> list[int]:
    """Returns the numbers of the findings that are about a row."""
    return [
        index
        for index, finding in enumerate(diagnosis.findings, 1)
        if row.verdict not in ("equal", "rounding")
        and (
            (row.keras_name is not None and row.keras_name == finding.keras_name)
            or (row.torch_name is not None and row.torch_name == finding.torch_name)
        )
    ]


def _short(weight: str, layer: str | None) -> str:
    return escape(weight.removeprefix(f"{layer}."))


def _row(index: int, row: Match, diagnosis: Diagnosis) -> str:
    kind = row.verdict.split()[0]
    links = " ".join(
        f'<a href="#finding-{i}">cause {i}</a>' for i in _found_at(row, diagnosis)
    )
    copied = ", ".join(
        f"{_short(ours, row.keras_name)} &rarr; {_short(theirs, row.torch_name)}"
        for ours, theirs in row.copied
    )
    inherited, introduced = errors(row)
    cells = [
        f"<td><code>{escape(row.keras_name or '-')}</code></td>",
        f"<td><code>{escape(row.torch_name or '-')}</code></td>",
        f"<td>{escape(row.operation)}</td>",
        f'<td class="number">{inherited}</td>',
        f'<td class="number">{introduced}</td>',
        f'<td class="verdict">{escape(verdict(row))} {links}</td>',
        f"<td><small>{copied}</small></td>",
    ]
    return (
        f'<tr id="row-{index}" class="{escape(kind)}"><th scope="row">{index + 1}</th>'
        f"{''.join(cells)}</tr>\n"
    )

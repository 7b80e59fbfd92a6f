"""The table of operations, measured, as one web page that needs no network."""

import difflib
import importlib.resources
import string
from collections.abc import Callable
from html import escape

from pygments.lexers import PythonLexer
from pygments.token import Token

from parity.measuring import ROUNDING, Measurement
from parity.ops_table import Measured, agreement, brief, number, where
from parity.rows.record import AXES, CATEGORIES, Input, Row
from parity.spec import diagrams

DASH = "\N{EN DASH}"
# Classes of the words that have a colour.
SHADES = {
    Token.Keyword: "keyword",
    Token.Operator.Word: "keyword",
    Token.Literal.String: "string",
    Token.Literal.Number: "number",
    Token.Comment: "comment",
    Token.Name.Builtin: "builtin",
    Token.Name.Function: "builtin",
    Token.Name.Class: "builtin",
}

# Pictures at the head of a section: what they show, and how they are drawn.
PICTURES: dict[str, tuple[str, Callable[[], str]]] = {
    "padding": (
        "A kernel of 3 at stride 2 over six pixels: TensorFlow puts the odd pixel of "
        "padding behind the image, PyTorch pads both sides alike, and the windows lie "
        "one pixel apart.",
        diagrams.padding_svg,
    ),
    "pooling": (
        "Average pooling of an image that is the same everywhere: PyTorch counts the "
        "zeros of the padding unless told otherwise, Keras never does.",
        diagrams.average_pool_svg,
    ),
    "images": (
        "Where a resize from 4 to 8 pixels reads the image, in the two conventions.",
        diagrams.resize_svg,
    ),
}


def page(measured: Measured) -> str:
    """Returns the page, the same one for the same measurements.

    Args:
        measured: the rows.
    """
    template = importlib.resources.files("parity") / "ops_page.html"
    sections = list(measured.sections())
    count = len(measured.rows)
    return string.Template(template.read_text("utf-8")).substitute(
        count=f"{count} row{'' if count == 1 else 's'}",
        run=_run(measured),
        backends=_backends(measured.backends),
        limits=" and ".join(
            f"{ROUNDING[column]:.0e} in {column}" for column in measured.columns
        ),
        facts=_facts(measured),
        problems=_problems(measured),
        chips="".join(
            f'<label class="chip"><input type="checkbox" name="category" '
            f'value="{escape(category)}">{escape(category)} '
            f"<small>{sum(row.category == category for row in measured.rows)}</small>"
            "</label>\n"
            for category in CATEGORIES
            if any(row.category == category for row in measured.rows)
        ),
        options="".join(
            f"<option>{escape(section)}</option>\n" for section, _ in sections
        ),
        contents="".join(
            f'<li><a href="#{section}">{escape(section)}</a> '
            f"<small>{len(pairs)}</small></li>\n"
            for section, pairs in sections
        ),
        sections="".join(_section(*part, measured) for part in sections),
    )


def _run(measured: Measured) -> str:
    skipped = sum(bool(found.skipped) for found in measured.measurements)
    if not skipped:
        return "Every row has been run"
    count = len(measured.rows)
    return f"Of {count} rows {count - skipped} have been run, the others could not here"


def _backends(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    return (
        f" The columns {' and '.join(names)} tell whether the Keras code gives on "
        "these backends what it gives on TensorFlow, in float32."
    )


def _facts(measured: Measured) -> str:
    facts = {
        "Versions": ", ".join(f"{name} {x}" for name, x in measured.versions.items()),
        "Hardware": f"{measured.hardware}; run on the {measured.device.upper()}",
        "Measured": measured.date,
    }
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>\n"
        for name, text in facts.items()
    )


def _problems(measured: Measured) -> str:
    if not measured.problems:
        return ""
    items = "".join(
        f'<li><a href="#{escape(name)}"><code>{escape(name)}</code></a>: '
        f"{escape(problem)}</li>\n"
        for name, problem in measured.problems.items()
    )
    return (
        f'<div class="problems"><p>Not as the table says:</p>\n'
        f"<ul>\n{items}</ul></div>\n"
    )


def _section(
    section: str, pairs: list[tuple[Row, Measurement]], measured: Measured
) -> str:
    name = escape(section)
    picture = ""
    if section in PICTURES:
        caption, draw = PICTURES[section]
        picture = (
            f'<figure>\n<div class="picture">{draw()}</div>\n'
            f"<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
        )
    labels = "".join(
        f"<span>{label}</span>"
        for label in ("naive port", *measured.columns, *measured.backends)
    )
    rows = "".join(_row(*pair, measured) for pair in pairs)
    return (
        f'<section id="{name}" data-section="{name}" aria-labelledby="h-{name}">\n'
        f'<div class="head"><h2 id="h-{name}">{name}</h2>\n'
        f'<div class="columns" aria-hidden="true">{labels}</div></div>\n'
        f"{picture}{rows}</section>\n"
    )


def _row(row: Row, found: Measurement, measured: Measured) -> str:
    name = escape(row.name)
    return (
        f'<details class="row{" problem" if found.problem else ""}" id="{name}" '
        f'data-category="{escape(row.category)}">\n'
        f"<summary>{_summary(row, found, measured)}</summary>\n"
        f'<div class="body">\n<p class="name"><a href="#{name}">{name}</a></p>\n'
        f"{_problem(found)}{_codes(row, found)}"
        f'<div class="facts">\n{_numbers(row, found)}{_more(row)}</div>\n'
        "</div>\n</details>\n"
    )


def _summary(row: Row, found: Measurement, measured: Measured) -> str:
    """Returns the line of a row that is seen while it is closed."""
    cells = [("naive", brief(found.naive), "wrong")]
    for dtype in measured.columns:
        cells.append((dtype, brief(found.left.get(dtype)), "left"))
    for backend in measured.backends:
        text = agreement(row, found.backends.get(backend))
        cells.append((backend, text, "left" if text == "yes" else "off"))
    spans = "".join(
        f'<span class="cell{" none" if text == "-" else f" {kind}"}">'
        f'<span class="label">{label} </span>{escape(DASH if text == "-" else text)}'
        "</span>"
        for label, text, kind in cells
    )
    return (
        f'<h3>{escape(row.what or row.name)}</h3><span class="category">'
        f'{escape(row.category)}</span><span class="cells">{spans}</span>'
    )


def _problem(found: Measurement) -> str:
    if not found.problem:
        return ""
    return f'<p class="problems">Not as the table says: {escape(found.problem)}</p>\n'


def _codes(row: Row, found: Measurement) -> str:
    """Returns the two codes side by side, and below the naive one on its side."""
    ours = f"Keras on {row.backend}" if row.backend else "Keras"
    boxes = [_code(ours, row.keras, "keras")]
    if row.torch:
        boxes.append(_code("PyTorch", row.torch, "torch"))
    if row.naive:
        title, side = (ours, "keras") if row.naive_keras else ("PyTorch", "torch")
        error = "not measured"
        if found.naive:
            error = found.naive.text or f"relative error {brief(found.naive)}"
        note = f'<span class="wrong"><strong>wrong</strong>: {escape(error)}</span>'
        title = f"{title}, naive port{where(row)}"
        right = row.keras if row.naive_keras else row.torch
        boxes.append(_code(title, row.naive, f"naive {side}", note, right))
        boxes.append(_texts({"Symptom": row.symptom, "Fix": row.fix}))
    side = " naive-keras" if row.naive_keras else ""
    side = side if row.torch else " alone"
    return f'<div class="codes{side}">\n{"".join(boxes)}</div>\n'


def _code(title: str, code: str, kind: str, note: str = "", right: str = "") -> str:
    """Returns a box with code, in which what differs from the right code is marked."""
    lines = []
    for line, html in zip(
        code.splitlines(), _colour(code, right).splitlines(), strict=True
    ):
        indent = len(line) - len(line.lstrip())
        style = f' style="--indent:{indent}ch"' if indent else ""
        lines.append(f'<span class="line"{style}>{html}\n</span>')
    return (
        f'<figure class="code {kind}">\n<figcaption>{escape(title)} {note}</figcaption>'
        f"\n<pre><code>{''.join(lines)}</code></pre>\n</figure>\n"
    )


def _colour(code: str, right: str) -> str:
    lexer = PythonLexer(stripnl=False, ensurenl=False)
    wanted, tokens = (list(lexer.get_tokens(text)) for text in (right, code))
    changed: set[int] = set()
    matcher = difflib.SequenceMatcher(None, wanted, tokens, autojunk=False)
    if matcher.ratio() > 0.5:  # else the code is another one altogether
        for tag, _, _, start, end in matcher.get_opcodes():
            changed |= set(range(start, end)) if tag != "equal" else set()
    parts = []
    for index, (kind, value) in enumerate(tokens):
        names = [shade for kinds, shade in SHADES.items() if kind in kinds][:1]
        names += ["changed"] if index in changed and value.strip() else []
        text = escape(value)
        if names:
            opened = f'<span class="{" ".join(names)}">'
            pieces = (f"{opened}{x}</span>" if x else "" for x in text.split("\n"))
            text = "\n".join(pieces)
        parts.append(text)
    return "".join(parts)


def _texts(texts: dict[str, str]) -> str:
    items = "".join(
        f"<dt>{name}</dt><dd>{escape(text)}</dd>\n"
        for name, text in texts.items()
        if text
    )
    return f"<dl>\n{items}</dl>\n" if items else ""


def _more(row: Row) -> str:
    texts = {"Note": row.note}
    if row.limit:
        texts["Equal up to"] = f"{row.limit:.0e}: {row.limit_reason}"
    if not row.process:
        texts["Inputs"] = "; ".join(
            _input(name, tensor) for name, tensor in row.inputs.items()
        )
    else:
        texts["Runs"] = "as a process of its own"
    texts["Operation"] = ", ".join(row.operations)
    return _texts(texts)


def _input(name: str, tensor: Input) -> str:
    """Returns a tensor's shape, on the PyTorch side too where that is another."""
    axes = AXES.get(tensor.layout)
    if axes is None:
        return f"{name} {tuple(tensor.shape)}"
    theirs = tuple(tensor.shape[axis] for axis in axes)
    return f"{name} {tuple(tensor.shape)}, in PyTorch {theirs}"


def _numbers(row: Row, found: Measurement) -> str:
    """Returns all that was measured, with the largest difference of any number."""
    if found.skipped:
        return f"<p>Not measured: {escape(found.skipped)}.</p>\n"
    errors = {}
    for dtype, error in found.naives.items():
        errors[f"naive port, {dtype}"] = error
    for dtype, error in found.left.items():
        errors[f"fix, {dtype}" if row.naive else dtype] = error
    for backend, error in found.backends.items():
        errors[f"Keras on {backend}"] = error
    lines = []
    for name, error in errors.items():
        cells = f'<td colspan="2">{escape(error.text)}</td>'
        if not error.text:
            values = number(error.relative), number(error.absolute)
            cells = "".join(f"<td>{value}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>\n')
    return (
        '<table>\n<thead><tr><td></td><th scope="col">relative error</th>'
        '<th scope="col">largest difference</th></tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody></table>\n"
    )

"""What a score says on the terminal."""

import sys
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.score import TARGETS, Outcome, Score


def show(found: Score) -> None:
    """Prints what was missed, the table, and the parts."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for outcome in found.outcomes:
        if not outcome.right:
            console.print(Text("\n".join(_miss(outcome)), "red"))
    rows = list(table(found))
    if console.is_terminal:
        shown = Table(*rows[0])
        for row in rows[1:]:
            shown.add_row(*row)
        console.print(shown)
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
            console.print(Text("  ".join(cells).rstrip()))
    console.print(Text("\n".join(summary(found))))


def _miss(outcome: Outcome) -> Iterator[str]:
    yield outcome.name
    yield from (f"  planted: {text}" for text in outcome.expected or ("nothing",))
    yield from (f"  said:    {text}" for text in outcome.said)
    if outcome.error:
        yield f"  raised:  {outcome.error}"
    elif not outcome.said:
        yield f"  said:    {'different' if outcome.detected else 'nothing'}"


def table(found: Score) -> Iterator[tuple[str, ...]]:
    """Yields the head and a row for each group.

    The numbers of cases detected, found at the right layer, named, found at the right
    layer of both sides; those of which more was said than what was planted; and those
    that the gates of other tools take for different.
    """
    from parity.faults.gates import GATES

    head = ("group", "cases", "detected", "right layer", "right cause", "both sides")
    yield (*head, "more said", *GATES)
    for group in (*found.groups, "all faults"):
        chosen = found.chosen(group)
        if group == "all faults":
            chosen = [x for x in found.outcomes if x.group != "equal"]
        counts = [sum(x.detected for x in chosen)]
        counts += [sum(x.layer for x in chosen), sum(x.named for x in chosen)]
        counts += [sum(x.both for x in chosen), sum(x.others > 0 for x in chosen)]
        cells = [str(count) for count in counts]
        if group == "equal":
            cells = [cells[0], "-", "-", "-", "-"]
        judged = [x.gates for x in chosen if x.gates]
        said = Counter(name for gates in judged for name, yes in gates.items() if yes)
        of = "" if len(judged) == len(chosen) else f"/{len(judged)}"
        gates = [f"{said[name]}{of}" if judged else "-" for name in GATES]
        yield (group, str(len(chosen)), *cells, *gates)


def summary(found: Score) -> Iterator[str]:
    """Yields each part beside its target."""
    names = {
        "detected": "faults detected",
        "layer": "right layer",
        "cause": "right cause",
        "several": "several at once, all found",
        "accused": "equal pairs accused",
    }
    for key, part in found.parts.items():
        target = f"at least {TARGETS[key]:.0%}" if key in TARGETS else "none"
        value = "-" if part is None else f"{part:.1%}"
        yield f"{names[key]}: {value} ({target})"
    seconds = [x.seconds for x in found.outcomes]
    if seconds:
        yield f"{sum(seconds):.0f} s, the longest {max(seconds):.1f} s"

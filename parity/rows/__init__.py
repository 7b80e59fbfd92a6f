"""The table of operations: one literal record per row, in a file per group.

Importing this loads no framework; `parity.measuring` runs the rows.
"""

from parity.rows import (
    activations,
    backends,
    convolution,
    data,
    images,
    initializers,
    losses,
    metrics,
    normalization,
    numerics,
    optimizers,
    padding,
    pooling,
    preprocessing,
    schedules,
    weights,
)
from parity.rows.record import Row
from parity.spec.errors import UsageError

ROWS: tuple[Row, ...] = (
    *weights.ROWS,
    *convolution.ROWS,
    *padding.ROWS,
    *pooling.ROWS,
    *normalization.ROWS,
    *activations.ROWS,
    *images.ROWS,
    *losses.ROWS,
    *initializers.ROWS,
    *optimizers.ROWS,
    *schedules.ROWS,
    *preprocessing.ROWS,
    *data.ROWS,
    *metrics.ROWS,
    *numerics.ROWS,
    *backends.ROWS,
)


def find(word: str) -> list[Row]:
    """Returns the rows that a word is in: of their names, sections, texts or codes.

    Raises:
        UsageError: no row has it.
    """
    rows = [row for row in ROWS if word.lower() in _text(row)]
    if not rows:
        sections = ", ".join(dict.fromkeys(row.section for row in ROWS))
        raise UsageError(f"no row has {word!r}; sections are {sections}")
    return rows


def _text(row: Row) -> str:
    parts = (row.name, row.section, row.category, row.what, row.symptom, row.fix)
    codes = (row.keras, row.torch, row.naive, *row.operations, row.note)
    return "\n".join((*parts, *codes)).lower()

"""Rows of the table: normalization."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

"""Rows of the table: weights."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

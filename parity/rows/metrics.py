"""Rows of the table: metrics."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

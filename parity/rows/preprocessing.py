"""Rows of the table: preprocessing."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

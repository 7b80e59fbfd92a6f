"""Rows of the table: backends."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

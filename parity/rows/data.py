"""Rows of the table: data."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

"""Rows of the table: images."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

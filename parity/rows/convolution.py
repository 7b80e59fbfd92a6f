"""Rows of the table: convolution."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

"""Rows of the table: initializers."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

"""Rows of the table: optimizers."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

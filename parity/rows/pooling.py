"""Rows of the table: pooling."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

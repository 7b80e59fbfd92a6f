"""Rows of the table: numerics."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

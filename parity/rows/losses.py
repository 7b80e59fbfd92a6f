"""Rows of the table: losses."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

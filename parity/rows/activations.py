"""Rows of the table: activations."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

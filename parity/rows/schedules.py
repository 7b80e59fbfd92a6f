"""Rows of the table: schedules."""

from parity.rows.record import Row

ROWS: tuple[Row, ...] = ()

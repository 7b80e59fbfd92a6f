"""Every row of the table is run: its trap still errs, and its fix leaves rounding."""

import ast
import dataclasses
import functools

import pytest

from parity.frameworks import missing_gpu
from parity import measuring, rows
from parity.rows.record import BACKENDS, CATEGORIES, SECTIONS

ROW_NAMES = [row.name for row in rows.ROWS]
BY_NAME = {row.name: row for row in rows.ROWS}


@functools.cache
def measurements():
    """Every row is measured once; the backends' processes start once."""
    found = measuring.measure(rows.ROWS, backends=BACKENDS)
    return {measurement.name: measurement for measurement in found}


@pytest.mark.parametrize("name", ROW_NAMES)
def test_the_row_is_as_it_says(name):
    assert measurements()[name].problem == ""


@pytest.mark.parametrize("name", ROW_NAMES)
def test_the_row_is_whole(name):
    row = BY_NAME[name]
    assert row.section in SECTIONS
    assert row.category in CATEGORIES
    assert row.keras
    assert row.torch or row.backend
    assert not (row.naive_keras and row.naive_torch)
    assert row.category == "same" or row.what
    assert bool(row.naive) == bool(row.symptom) == bool(row.fix)
    assert bool(row.limit) == bool(row.limit_reason)
    for code in (row.keras, row.torch, row.naive):
        ast.parse(code)
        assert all(len(line) <= 88 for line in code.splitlines())


def test_names_are_used_once():
    assert len(set(ROW_NAMES)) == len(ROW_NAMES)


@pytest.mark.parametrize(("dtype", "tf32"), [("float64", 0), ("float32", 0)])
def test_the_rows_on_a_gpu(dtype, tf32):
    if reason := missing_gpu():
        pytest.skip(reason)
    chosen = [row for row in rows.ROWS if not (row.backend or row.process)]
    chosen = [dataclasses.replace(r, dtypes=(dtype,)) for r in chosen]
    found = measuring.measure(chosen, device="gpu", tf32=bool(tf32))
    assert {m.name: m.problem for m in found if m.problem} == {}


def with_changes(**changes):
    row = dataclasses.replace(BY_NAME["padding.same_stride_even"], **changes)
    (found,) = measuring.measure([row])
    return found.problem


def test_a_trap_that_is_gone_is_seen():
    right = BY_NAME["padding.same_stride_even"].torch
    assert "no error any more" in with_changes(naive_torch=right)


def test_a_fix_that_leaves_more_than_rounding_is_seen():
    problem = with_changes(torch="F.conv2d(images, kernel, stride=2, padding=1)")
    assert "the fix leaves 1.4e+00 in float64, more than 1e-10" in problem


def test_a_fix_that_fails_is_seen():
    assert "NameError" in with_changes(torch="F.conv2d(pictures, kernel)")


def test_another_symptom_is_seen():
    problem = with_changes(naive_torch="F.conv2d(images, kernel, padding=1)")
    assert "shows shape" in problem
    problem = with_changes(naive_torch="F.conv2d(images, kernel, stride='2')")
    assert "shows TypeError" in problem

"""Runs a row's code; imports no framework."""

import ast
import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Failure:
    """What there is instead of results.

    Attributes:
        kind: name of the exception, or "killed" of a process that a signal ended.
        line: the first line of what it says.
    """

    kind: str
    line: str

    def __str__(self) -> str:
        """Returns both, in one line."""
        return f"{self.kind}: {self.line}"[:160]


Arrays = list[np.ndarray]


def run(
    code: str,
    names: dict[str, object],
    to_numpy: Callable[[object], np.ndarray],
    *,
    channels_last: bool,
) -> Arrays | Failure:
    """Returns what code ends in, channels first, or the exception that it raises.

    Args:
        code: whose last statement is an expression.
        names: what it may use.
        to_numpy: makes an array of a tensor or a number.
        channels_last: whether four-dimensional results are NHWC.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            parts = flatten(execute(code, names))
            arrays = [_numbers(to_numpy(part)) for part in parts]
    except Exception as error:  # whatever the naive port raises is its result
        line = (str(error).strip() or "no message").splitlines()[0]
        return Failure(type(error).__name__, line)
    if channels_last:
        arrays = [np.moveaxis(x, -1, 1) if x.ndim == 4 else x for x in arrays]
    return arrays


def execute(code: str, names: dict[str, object]) -> object:
    """Runs code and returns the value of its last line, as a notebook's cell does.

    Args:
        code: whose last statement is an expression.
        names: what it may use; what it defines is added.
    """
    *first, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        raise SyntaxError("the last line is no expression")
    exec(compile(ast.Module(first, []), "<row>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<row>", "eval"), names)


def flatten(value: object) -> list:
    """Returns the tensors and numbers of nested lists, tuples and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [x for part in value for x in flatten(part)]
    return [value]


def _numbers(array: np.ndarray) -> np.ndarray:
    """Returns an array that NumPy can calculate with: its own numbers and no others."""
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a result is {array.dtype.name}, not real numbers")
    return array

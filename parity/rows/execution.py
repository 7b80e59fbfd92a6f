"""Runs a row's code; imports no framework."""

import ast


def execute(code: str, names: dict[str, object]) -> object:
    """Runs code and returns the value of its last line, as a notebook's cell does.

    Args:
        code: whose last statement is an expression.
        names: what it may use; what it defines is added.
    """
    *first, last = ast.parse(code).body
    exec(compile(ast.Module(first, []), "<row>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<row>", "eval"), names)


def flatten(value: object) -> list:
    """Returns the tensors and numbers of nested lists, tuples and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [x for part in value for x in flatten(part)]
    return [value]

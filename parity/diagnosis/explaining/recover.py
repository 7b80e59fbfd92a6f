"""Finds the parameter of a known operation that gives what another step computed."""

import itertools
import math
from collections.abc import Iterator

from parity.diagnosis.locate import TOLERANCE
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Tensor
from parity.diagnosis.replay import error_between, is_rounding

EPSILONS = [10.0**-power for power in range(2, 13)] + [0.0, 1.001e-5, 2e-5, 1e-16]
# What people set each parameter to, tried before any number is searched for.
CANDIDATES: dict[str, list] = {
    "epsilon": EPSILONS,
    "alpha": [1e-4, 1e-3, 1.0, 5e-5, 1e-2],
    "beta": [0.75, 0.5, 1.0],
    "k": [1.0, 2.0, 0.0],
    "slope": [0.01, 0.2, 0.3, 0.1, 0.25, 0.0, 1.0],
    "function": [*operations.FUNCTIONS],
    "border": [0.0, -math.inf],
    "count_padding": [True, False],
    "ceil": [True, False],
    "axis": [1, 2, 3, 0],
    "log": [True, False],
    "groups": [1, 2, 4, 8],
    "method": ["bilinear", "nearest", "bicubic"],
    "grid": ["half_pixel", "corners", "origin"],
    "antialias": [True, False],
    "training": [True, False],
    "axes": [(1,), (2, 3), (1, 2, 3)],
}
# Numbers that any value may have been given.
CONTINUOUS = ("epsilon", "alpha", "beta", "k", "slope")


def recover(
    kind: str, parameters: dict, inputs: list[Tensor], target: Tensor
) -> tuple[str, object, float] | None:
    """Returns one parameter, its value and the error left; None where none is enough.

    Args:
        kind: of operation.
        parameters: those known.
        inputs: of the step.
        target: what the other side computed of them.
    """

    def error(name: str, value: object) -> float:
        changes = value if name == "several" else {name: value} if name else {}
        try:
            made = operations.run(kind, parameters | changes, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
            return math.inf
        return error_between(made, target)

    start = error("", None)

    def holds(left: float) -> bool:
        # TensorFlow computes some operations in float32 whatever it is given.
        return left <= TOLERANCE or (is_rounding(left) and start > 1e3 * left)

    if kind == "resize":
        return _resize(parameters, error, holds)
    for name in parameters:
        for value in _candidates(kind, name, parameters):
            left = error(name, value)
            if holds(left):
                return name, value, left
    for name in parameters:
        if name not in CONTINUOUS or isinstance(parameters[name], Tensor | type(None)):
            continue
        value, left = _search(name, parameters[name], error)
        if left <= TOLERANCE:
            return name, float(f"{value:.9g}"), left
    return None


def _resize(parameters: dict, error, holds) -> tuple[str, object, float] | None:
    """Tries every way to resize; names the first parameter that must change."""
    names = ("method", "grid", "antialias")
    for values in itertools.product(*(CANDIDATES[name] for name in names)):
        changes = dict(zip(names, values, strict=True))
        left = error("several", changes)
        if holds(left):
            for name, value in changes.items():
                if parameters[name] != value:
                    return name, value, left
    return None


def _candidates(kind: str, name: str, parameters: dict) -> Iterator[object]:
    known = parameters[name]
    if name == "alpha" and kind == "lrn":
        yield from (known * parameters["size"], known / parameters["size"])
    if name == "beta" and kind != "lrn":
        return
    if name == "size" and kind == "lrn":
        yield from (known + 1, known - 1, 2 * known + 1, known // 2, 2 * known)
    if name == "mode" and kind in ("pool", "reduce", "adaptive_pool"):
        yield from ("max", "average", "mean", "sum")
    if name == "mode" and kind == "merge":
        yield from ("add", "multiply", "average", "maximum", "subtract")
    if name in ("padding", "crop"):
        yield from _paddings()
    if name in ("stride", "dilation"):
        yield from ((1, 1), (2, 2), (3, 3), (4, 4))
    for value in CANDIDATES.get(name, ()):
        if value != known and not isinstance(known, Tensor):
            yield value


def _paddings() -> Iterator[tuple]:
    for before in range(4):
        for after in range(4):
            yield ((before, after), (before, after))


def _search(name: str, known: float, error) -> tuple[float, float]:
    """Returns the number with the least error, by a golden section on a log scale."""
    low, high = (
        (math.log(1e-14), math.log(1.0))
        if name == "epsilon"
        else (
            math.log(max(abs(known), 1e-8) / 1e3),
            math.log(max(abs(known), 1e-8) * 1e3),
        )
    )
    grid = [low + (high - low) * i / 60 for i in range(61)]
    errors = [error(name, math.exp(x)) for x in grid]
    best = min(range(61), key=errors.__getitem__)
    if not math.isfinite(errors[best]):
        return known, math.inf
    a, b = grid[max(best - 1, 0)], grid[min(best + 1, 60)]
    ratio = (math.sqrt(5) - 1) / 2
    c, d = b - ratio * (b - a), a + ratio * (b - a)
    left, right = error(name, math.exp(c)), error(name, math.exp(d))
    for _ in range(90):
        if left < right:
            b, d, right = d, c, left
            c = b - ratio * (b - a)
            left = error(name, math.exp(c))
        else:
            a, c, left = c, d, right
            d = a + ratio * (b - a)
            right = error(name, math.exp(d))
    value = math.exp((a + b) / 2)
    return value, error(name, value)

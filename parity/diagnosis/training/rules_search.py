"""Searches for the rules of an optimizer whose steps are known and nothing else.

What hooks, subclasses and loops of one's own do can't be read. One thing in known
rules is changed at a time until they make the same steps.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from parity.diagnosis.training.reading import TORCH_PLACES
from parity.diagnosis.training.rules import (
    AFTER,
    BEFORE,
    INSIDE,
    OUTSIDE,
    Arrays,
    Rules,
    simulate,
)

# Steps so near are the same ones, where constants are read and where they are searched.
SAME = 1e-6
# Weights that moved by less than this part of themselves have few digits to compare, in
# float64 and in float32.
LEAST_PART, FLOAT32_LEAST_PART = 1e-6, 5e-3
# A tensor's steps are compared relative to their norm, but at least to this part of the
# norm of all steps together.
SMALLEST_PART = 1e-3

# Points of a first look for a constant, and halvings of the interval around the best.
POINTS, HALVINGS = 25, 60


@dataclass(frozen=True)
class Trial:
    """What the steps are made of, and how near two results are the same.

    Attributes:
        start: the weights before.
        gradients: of each step.
        tolerance: relative L2 error of the way from the start.
        least: the part of the weights that counts as a way at least.
    """

    start: Arrays
    gradients: list[Arrays]
    tolerance: float
    least: float = LEAST_PART

    def distance(self, made: list[Arrays], goal: list[Arrays]) -> float:
        """Returns the relative L2 error of the tensor and step where it is largest."""
        largest = 0.0
        for ours, theirs in zip(made, goal, strict=True):
            moved = [a - b for a, b in zip(theirs, self.start, strict=True)]
            least = SMALLEST_PART * math.hypot(*map(np.linalg.norm, moved))
            for a, b, way in zip(ours, theirs, moved, strict=True):
                size = max(
                    np.linalg.norm(way), least, self.least * np.linalg.norm(b), 1e-300
                )
                error = np.linalg.norm(a - b) / size
                largest = max(largest, error if error == error else math.inf)
        return float(largest)

    def error(self, rules: Rules, goal: list[Arrays]) -> float:
        """Returns how far from known steps those are that rules make."""
        with np.errstate(all="ignore"):
            return self.distance(simulate(rules, self.start, self.gradients), goal)


def search(
    trial: Trial, own: Rules | None, other: Rules | None, made: list[Arrays]
) -> Rules | None:
    """Returns rules that make known steps, None where none are found.

    Args:
        trial: what the steps are made of.
        own: the rules that were read, None where that was impossible.
        other: those of the other side.
        made: the steps.
    """
    limit = max(SAME, trial.tolerance)
    for base in (own, other):
        if base is None:
            continue
        if trial.error(base, made) <= limit:
            return base
    for base in (own, other):
        for found in _candidates(trial, base, other, made) if base else ():
            if trial.error(found, made) <= limit:
                return found
    return None


def _candidates(
    trial: Trial, base: Rules, other: Rules | None, made: list[Arrays]
) -> Iterator[Rules]:
    """Yields rules in which one thing is changed, the likeliest first."""

    def tuned(change: Callable[[float], Rules], low: float, high: float) -> Rules:
        best = _minimum(lambda x: trial.error(change(x), made), low, high)
        short = change(float(f"{best:.4g}"))
        is_short = trial.error(short, made) <= max(SAME, trial.tolerance)
        return short if is_short else change(best)

    sizes = {
        "value": max(abs(g).max() for step in trial.gradients for g in step),
        "norm": max(np.linalg.norm(g) for step in trial.gradients for g in step),
        "global norm": max(
            math.hypot(*map(np.linalg.norm, step)) for step in trial.gradients
        ),
    }
    if base.clip is None:
        for kind, size in sizes.items():
            if other and other.clip and other.clip[0] == kind:
                yield replace(base, clip=other.clip)
                yield replace(base, clip=other.clip, slack=1e-6)
            if size > 0:
                for slack in (0.0, 1e-6):
                    yield tuned(
                        lambda x, kind=kind, slack=slack: replace(
                            base, clip=(kind, x), slack=slack
                        ),
                        1e-4 * size,
                        size,
                    )
    if base.clip:
        yield replace(base, clip=None)
    yield replace(base, kept=True)
    if other:
        names = ("penalty", "absolute", "coupled", "decoupled")
        yield _with(base, other, *names)
        moved = [
            (rule.penalty + rule.coupled, rule.decoupled) for rule in other.tensors
        ]
        for factor in (1.0, 0.5, 2.0):
            for swapped in (True, False):
                tensors = []
                for rule, (inside, beside) in zip(base.tensors, moved, strict=True):
                    a, b = (beside, inside) if swapped else (inside, beside)
                    none = dict.fromkeys(names, 0.0)
                    none |= {"coupled": factor * a, "decoupled": factor * b}
                    tensors.append(replace(rule, **none))
                yield replace(base, tensors=tuple(tensors))
    first = base.tensors[0]
    yield base.change(nesterov=not first.nesterov)
    yield base.change(centered=not first.centered)
    yield base.change(rate_inside=not first.rate_inside)
    for place in (AFTER, BEFORE, INSIDE, OUTSIDE):
        if first.epsilon_place and place != first.epsilon_place:
            yield base.change(epsilon_place=place)
    for name in ("decoupled", "coupled"):
        yield tuned(lambda x, name=name: base.change(**{name: x}), 1e-8, 10.0)
    yield tuned(lambda x: _faster(base, x), 1e-4, 1e4)
    if first.kind in ("SGD", "RMSprop"):
        yield tuned(lambda x: base.change(momentum=1 - x), 1e-4, 1.0)
    for name in ("beta_1", "beta_2"):
        if getattr(first, name):
            yield tuned(lambda x, name=name: base.change(**{name: 1 - x}), 1e-5, 1.0)
    if first.epsilon:
        yield tuned(lambda x: base.change(epsilon=x), 1e-14, 10.0)
    for kind, place in TORCH_PLACES.items():
        usual = {"epsilon": 1e-8, "epsilon_place": place, "beta_1": 0.9}
        usual["beta_2"] = 0.99 if kind == "RMSprop" else 0.999
        renamed = base.change(kind=kind, momentum=0.0, nesterov=False, **usual)
        yield renamed
        yield tuned(lambda x, renamed=renamed: _faster(renamed, x), 1e-4, 1e4)
    for momentum in (0.0, 0.9):
        plain = base.change(kind="SGD", momentum=momentum, epsilon_place="")
        yield plain
        yield tuned(lambda x, plain=plain: _faster(plain, x), 1e-4, 1e4)


def _with(base: Rules, other: Rules, *names: str) -> Rules:
    tensors = tuple(
        replace(rule, **{name: getattr(theirs, name) for name in names})
        for rule, theirs in zip(base.tensors, other.tensors, strict=True)
    )
    return replace(base, tensors=tensors)


def _faster(rules: Rules, factor: float) -> Rules:
    """Returns rules with all rates times a factor."""
    tensors = tuple(
        replace(rule, rates=tuple(rate * factor for rate in rule.rates))
        for rule in rules.tensors
    )
    return replace(rules, tensors=tensors)


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns where a function of a positive number is smallest, about."""
    points = np.geomspace(low, high, POINTS)
    best = int(np.argmin([function(point) for point in points]))
    low, high = points[max(best - 1, 0)], points[min(best + 1, POINTS - 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(HALVINGS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return float((low + high) / 2)

"""Faulty ports of networks, and equal ones, to judge a diagnosis by."""

from parity.faults import (
    attention,
    drawn,
    equal,
    forward,
    inputs,
    optimizers,
    ours,
    several,
    steps,
    training,
    weights,
)
from parity.faults.pairs import PLACES, SCALES, Case, Expected, Pair

__all__ = ["PLACES", "SCALES", "Case", "Expected", "Pair", "cases", "drawn"]

FILES = (
    forward,
    steps,
    weights,
    inputs,
    attention,
    ours,
    training,
    optimizers,
    several,
    equal,
)


def cases() -> list[Case]:
    """Returns all cases; none is built before its `make` is called."""
    found = [case for file in FILES for case in file.cases()]
    names = [case.name for case in found]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"cases of the same name: {sorted(repeated)}")
    return found

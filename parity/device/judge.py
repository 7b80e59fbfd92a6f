"""Judges the results of two sides or devices; needs no framework.

The rules are those of `parity/comparison.py`: in float64 two results are equal within
one tolerance; in a narrower type each has to be as near to its own float64 answer as
rounding allows (`parity/device/inputs.py`).
"""

import math
from dataclasses import dataclass

import numpy as np

from parity.device import inputs
from parity.spec.tolerances import relative_error

Arrays = dict[str, np.ndarray]
VERDICTS = ("different", "rounding", "equal", "not run")


@dataclass(frozen=True)
class Comparison:
    """Two results that should be the same.

    Attributes:
        part: of the report.
        name: of the model or the case.
        quantity: "outputs", "gradients", "steps" or "accuracy".
        dtype: in which they were computed.
        pair: whose they are, such as ("keras cpu", "torch cpu").
        verdict: one of VERDICTS.
        error: the largest relative L2 error between them.
        errors: in a narrower type, each one's error from its own float64 answer, of the
            tensor that comes nearest to its bound.
        bound: what rounding explains of either.
        note: that tensor, or why it was not run.
    """

    part: str
    name: str
    quantity: str
    dtype: str
    pair: tuple[str, str]
    verdict: str
    error: float | None = None
    errors: tuple[float, float] | None = None
    bound: float | None = None
    note: str = ""


def errors(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """Returns each tensor's relative error; infinite for one without a partner."""
    return {
        name: relative_error(theirs[name], ours[name])
        if name in ours and name in theirs
        else math.inf
        for name in dict.fromkeys([*ours, *theirs])
    }


def part(arrays: Arrays, prefix: str) -> Arrays:
    """Returns the tensors under `prefix/`, named without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def judge_float64(ours: Arrays, theirs: Arrays, tolerance: float) -> dict[str, object]:
    """Returns the fields of a comparison in float64.

    Args:
        ours: one side's tensors.
        theirs: the other's.
        tolerance: of TOLERANCES.
    """
    found = errors(ours, theirs)
    worst = max(found, key=found.get)
    equal = found[worst] <= tolerance
    verdict = "equal" if equal else "different"
    return {"verdict": verdict, "error": found[worst], "note": worst}


def judge_rounded(
    ours: Arrays,
    theirs: Arrays,
    exact: tuple[Arrays, Arrays],
    bounds: dict[str, float],
    tolerance: float,
) -> dict[str, object]:
    """Returns the fields of a comparison in a narrower type.

    Both have to be within the bound of their own float64 answer, and within two bounds
    of each other, which follows where the answers are the same.

    Args:
        ours: one side's tensors.
        theirs: the other's.
        exact: the float64 answers of the one and the other.
        bounds: what rounding explains, by tensor.
        tolerance: within which the two are equal.
    """
    between = errors(ours, theirs)
    each = [errors(x, y) for x, y in zip(exact, (ours, theirs), strict=True)]
    shares = {}
    for name, error in between.items():
        worse = max(*(side.get(name, math.inf) for side in each), error / 2)
        shares[name] = worse / bounds.get(name, 0.0) if name in bounds else math.inf
    worst = max(shares, key=shares.get)
    largest = max(between.values())
    if not shares[worst] <= 1:
        verdict = "different"
    else:
        verdict = "equal" if largest <= tolerance else "rounding"
    return {
        "verdict": verdict,
        "error": largest,
        "errors": tuple(side.get(worst, math.inf) for side in each),
        "bound": bounds.get(worst),
        "note": worst,
    }


def network_bounds(
    dtype: str, effects: dict[str, float], exact: Arrays, images: np.ndarray
) -> dict[str, float]:
    """Returns what rounding explains of each tensor of a network.

    Args:
        dtype: of the results.
        effects: the largest of the disturbances' effects, by tensor.
        exact: the float64 answers, whose shapes count.
        images: (N, H, W, C).
    """
    bounds = {}
    for name, effect in effects.items():
        if name not in exact:  # it has no partner, and no bound will excuse it
            continue
        unit = inputs.RESULT_UNITS[dtype]
        if name in ("gradients/loss", "steps/losses"):
            bounds[name] = inputs.bound(effect, inputs.RESULT_UNITS["float32"])
            continue
        added = 0.0
        if name.startswith("gradients/") and name != "gradients/images":
            # A weight's gradient is a sum over at most all pixels of all images.
            weight = exact.get(f"{name.rpartition('.')[0]}.weight", exact[name])
            positions = len(images)
            if weight.ndim != 2:
                positions *= math.prod(images.shape[1:3])
            if exact[name].ndim == 1:
                # Its terms may all be alike, and then they do not round at random.
                added = positions * unit
            else:
                added = math.sqrt(positions) * inputs.SUM_UNIT
        bounds[name] = inputs.bound(effect, unit, added)
    return bounds


def operation_bounds(
    dtype: str, exact: Arrays, magnitudes: Arrays, terms: dict[str, int]
) -> dict[str, float]:
    """Returns what rounding explains of each result of one convolution.

    A sum of n products is off by n roundings of the sum of their magnitudes at most
    (Higham 2002, section 3.1), and each factor and the result was rounded once.

    Args:
        dtype: of the results.
        exact: float64 results.
        magnitudes: those for the magnitudes of all inputs.
        terms: products in a sum.
    """
    bounds = {}
    for name, array in exact.items():
        units = inputs.ROUNDINGS * inputs.UNITS[dtype] + terms[name] * inputs.SUM_UNIT
        ratio = np.linalg.norm(magnitudes[name]) / np.linalg.norm(array)
        bounds[name] = float(1.01 * units * ratio)
    return bounds


def judge_chance(
    accuracies: tuple[float, float], count: int, moved: float = 0.0
) -> dict[str, object]:
    """Returns the fields of a comparison of two accuracies.

    Two float32 trainings part in the end. Their accuracies may differ by what two
    samples of one accuracy do: three standard deviations of the binomial law. That is
    of trainings that have come to an end; what rounding alone does to one that has not
    is added, twice since it is a sample.

    Args:
        accuracies: of either side.
        count: test images.
        moved: the most by which first weights that were rounded otherwise moved one
            side's accuracy.
    """
    mean = sum(accuracies) / 2
    # One image of each is granted where all or none are right.
    spread = math.sqrt(2 * max(mean * (1 - mean), 1 / count) / count)
    error = abs(accuracies[0] - accuracies[1])
    bound = 3 * spread + inputs.MARGIN * moved
    verdict = "rounding" if error <= bound else "different"
    return {
        "verdict": "equal" if error == 0 else verdict,
        "error": error,
        "bound": bound,
        "note": f"{accuracies[0]:.4f} and {accuracies[1]:.4f}"
        + (f"; rounding moves it by {moved:.4f}" if moved else ""),
    }

"""The device report's networks: outputs, gradients, and a few steps of training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from parity.device import inputs, judge
from parity.device.judge import Comparison
from parity.device.parts import DTYPES, Job, Sides, attempt, pending
from parity.device.side import NotRun
from parity.spec.tolerances import TOLERANCES

STEPS = {"lenet5": 10, "resnet18": 3}


@dataclass(frozen=True)
class Study:
    """What is compared of one network.

    Attributes:
        part: of the report.
        name: of the model.
        steps: of training; 0 stands for one pass forwards and backwards.
        quantities: what they are called, and the prefix of their tensors.
        dtypes: float64 first.
    """

    part: str
    name: str
    steps: int
    quantities: dict[str, str]
    dtypes: tuple[str, ...]


def network_job(sides: Sides, name: str) -> Job:
    """Returns the job of a network's outputs and gradients."""
    quantities = {"outputs": "outputs", "gradients": "gradients"}
    return _job(sides, Study("networks", name, 0, quantities, DTYPES))


def step_job(sides: Sides, name: str) -> Job:
    """Returns the job of a network's first steps: losses, and weights afterwards."""
    steps = STEPS[name]
    dtypes = ("float64", "float32")
    return _job(sides, Study("steps", name, steps, {f"{steps} steps": "steps"}, dtypes))


def _job(sides: Sides, study: Study) -> Job:
    planned = {
        (quantity, dtype, pair): pending(study.part, study.name, quantity, dtype, pair)
        for dtype in study.dtypes
        for pair in sides.pairs(dtype)
        for quantity in study.quantities
    }

    def run() -> Iterator[Comparison]:
        fields = _compare(sides, study)
        return (replace(planned[key], **found) for key, found in fields)

    return Job(study.part, study.name, list(planned.values()), run)


def _compare(sides: Sides, study: Study) -> Iterator[tuple[tuple, dict]]:
    """Yields (quantity, dtype, pair) and the fields of each comparison."""
    arguments = {"name": study.name, "steps": study.steps}
    exact, effects = {}, {}
    for dtype in filter(sides.pairs, study.dtypes):
        found = {
            place: attempt(
                sides.call,
                place.framework,
                "results",
                dtype=dtype,
                device=place.device,
                **arguments,
            )
            for place in sides.places(dtype)
        }
        bounds = None
        if dtype == "float64":
            exact = {x.framework: found[x] for x in found if x.device == "cpu"}
            effects = attempt(_effects, sides, study.dtypes[1:], arguments)
        else:
            bounds = attempt(_bounds, study.name, dtype, effects, exact)
        for pair in sides.pairs(dtype):
            needed = [found[x] for x in pair]
            if dtype != "float64":
                needed += [exact[x.framework] for x in pair] + [bounds]
            for quantity, prefix in study.quantities.items():
                yield (quantity, dtype, pair), _judge(prefix, dtype, needed)


def _judge(prefix: str, dtype: str, needed: list) -> dict[str, object]:
    """Returns a comparison's fields, or why there is none.

    Args:
        prefix: of the tensors.
        dtype: of DTYPES.
        needed: the results of either; in a narrower type, the float64 answers of
            either and the bounds.
    """
    failed = next((x for x in needed if isinstance(x, NotRun)), None)
    if failed is not None:
        return {"note": str(failed)}
    parts = [judge.part(x, prefix) for x in needed]
    tolerance = TOLERANCES[prefix]
    if dtype == "float64":
        return judge.judge_float64(*parts, tolerance)
    return judge.judge_rounded(*parts[:2], tuple(parts[2:4]), parts[4], tolerance)


def _effects(
    sides: Sides, dtypes: Sequence[str], arguments: dict
) -> dict[str, dict[str, float]]:
    """Returns the disturbances' effects, on PyTorch where it is there: it is faster."""
    place = max(sides.places(), key=lambda x: (x.framework == "torch", x.device))
    dtypes = [dtype for dtype in dtypes if sides.pairs(dtype)]
    return sides.call(
        place.framework, "effects", device=place.device, dtypes=dtypes, **arguments
    )


def _bounds(name: str, dtype: str, effects: dict | NotRun, exact: dict) -> dict:
    if isinstance(effects, NotRun):
        raise effects
    answer = next((x for x in exact.values() if not isinstance(x, NotRun)), None)
    if answer is None:
        raise next(iter(exact.values()))
    images, _ = inputs.batch(name)
    return judge.network_bounds(dtype, effects[dtype], answer, images)


def convolution_job(sides: Sides) -> Job:
    """Returns the job of all convolutions."""
    cases = [str(case) for case in inputs.CONVOLUTIONS]
    planned = [
        pending("conv2d", case, "outputs and gradients", dtype, pair)
        for dtype in DTYPES
        for pair in sides.pairs(dtype)
        for case in cases
    ]

    def run() -> Iterator[Comparison]:
        fields = _compare_convolutions(sides)
        return (replace(x, **y) for x, y in zip(planned, fields, strict=True))

    return Job("conv2d", "all cases", planned, run)


def _compare_convolutions(sides: Sides) -> Iterator[dict]:
    """Yields the fields of each comparison, by type, pair and case."""
    settings = {"dtype": "float64", "device": "cpu"}
    framework = sides.places()[0].framework
    magnitudes = sides.call(framework, "convolutions", absolute=True, **settings)
    exact = {}
    for dtype in filter(sides.pairs, DTYPES):
        found = {
            place: attempt(
                sides.call,
                place.framework,
                "convolutions",
                dtype=dtype,
                device=place.device,
            )
            for place in sides.places(dtype)
        }
        if dtype == "float64":
            exact = {x.framework: found[x] for x in found if x.device == "cpu"}
        for pair in sides.pairs(dtype):
            needed = [found[x] for x in pair] + [exact[x.framework] for x in pair]
            for index in range(len(inputs.CONVOLUTIONS)):
                yield _judge_convolution(index, dtype, needed, magnitudes)


def _judge_convolution(
    index: int, dtype: str, needed: list, magnitudes: dict
) -> dict[str, object]:
    failed = next((x for x in needed if isinstance(x, NotRun)), None)
    if failed is not None:
        return {"note": str(failed)}
    tolerance = TOLERANCES["operation"]
    ours, theirs, *exact = (judge.part(x, str(index)) for x in needed)
    if dtype == "float64":
        return judge.judge_float64(ours, theirs, tolerance)
    terms = inputs.CONVOLUTIONS[index].terms(exact[0]["outputs"])
    largest = judge.part(magnitudes, str(index))
    bounds = judge.operation_bounds(dtype, exact[0], largest, terms)
    return judge.judge_rounded(ours, theirs, tuple(exact), bounds, tolerance)

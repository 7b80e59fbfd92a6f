"""What the device report is made of: sides, places, and jobs with their plans."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from parity.device.judge import Comparison
from parity.device.side import Apart, Here, NotRun, reason

# In the order of importance, and the time of the whole at which each has to end.
PARTS = {
    "networks": 0.55,
    "conv2d": 0.6,
    "steps": 0.65,
    "lockstep": 0.75,
    "accuracy": 0.9,
    "speed": 1.0,
}
DTYPES = ("float64", "float32", "tf32", "bfloat16")
LEAST_SECONDS = 60.0  # for one answer of another process


class Place(NamedTuple):
    """A framework on a device."""

    framework: str
    device: str

    def __str__(self) -> str:
        """Returns "keras cpu"."""
        return f"{self.framework} {self.device}"


@dataclass(frozen=True)
class Speed:
    """How fast one side trains.

    Attributes:
        name: of the model.
        place: such as "keras gpu".
        image_size: in pixels.
        batch_size: images.
        images_per_second: None when it was not run.
        note: why not.
    """

    name: str
    place: str
    image_size: int
    batch_size: int
    images_per_second: float | None = None
    note: str = "time"


@dataclass(frozen=True)
class Job:
    """What is run as one.

    Attributes:
        part: of PARTS.
        name: of the model, or of the grid.
        planned: what it gives, as it is when it is not run.
        run: gives the same with results, in the same order.
    """

    part: str
    name: str
    planned: list[Comparison] | list[Speed]
    run: Callable[[], Iterable[Comparison | Speed]]

    def not_run(self, why: str) -> list[Comparison] | list[Speed]:
        """Returns the plan with a reason."""
        return [replace(item, note=why) for item in self.planned]


class Sides:
    """The frameworks that are installed, in this process or in one of its own each.

    Args:
        frameworks: of "keras" and "torch".
        apart: whether each has its own process.
        folder: for what is written on the way.
        deadline: of time.monotonic, by which all is to be done.
    """

    def __init__(
        self, frameworks: Sequence[str], apart: bool, folder: Path, deadline: float
    ):
        self.apart, self.folder, self.deadline = apart, folder, deadline
        self.sides = {x: Apart(x, folder) if apart else Here(x) for x in frameworks}
        self.facts = {}
        for framework in frameworks:
            try:
                self.facts[framework] = self.call(framework, "facts")
            except NotRun as error:
                nothing = {"versions": {}, "gpu": None}
                self.facts[framework] = nothing | {"error": str(error)}

    def call(self, framework: str, request: str, **arguments) -> dict:
        """Returns a side's answer to a request."""
        seconds = max(LEAST_SECONDS, self.deadline - time.monotonic())
        return self.sides[framework].call(request, arguments, seconds)

    def close(self) -> None:
        """Ends the processes."""
        for side in self.sides.values():
            side.close()

    def places(self, dtype: str = "float64") -> list[Place]:
        """Returns where a type can be computed; TensorFloat-32 is a GPU's."""
        return [
            Place(framework, device)
            for device in ("cpu", "gpu")
            if (dtype, device) != ("tf32", "cpu")
            for framework, facts in self.facts.items()
            if device == "cpu" or facts["gpu"]
        ]

    def pairs(self, dtype: str = "float64") -> list[tuple[Place, Place]]:
        """Returns what is compared: the frameworks on a device, and the devices."""
        places = self.places(dtype)
        return [
            (a, b)
            for i, a in enumerate(places)
            for b in places[i + 1 :]
            if a.device == b.device or a.framework == b.framework
        ]


def pending(
    part: str, name: str, quantity: str, dtype: str, pair: tuple[Place, Place]
) -> Comparison:
    """Returns a comparison that has not been run yet."""
    names = tuple(map(str, pair))
    return Comparison(part, name, quantity, dtype, names, "not run", note="time")


def attempt(call: Callable, *arguments, **keywords) -> dict | NotRun:
    """Returns an answer, or why there is none."""
    try:
        return call(*arguments, **keywords)
    except NotRun as error:
        return error


def attempt_job(job: Job) -> list[Comparison] | list[Speed]:
    """Returns a job's results, and why the rest of its plan could not be run."""
    done = []
    try:
        for item in job.run():
            done.append(item)
    except Exception as error:
        done += job.not_run(reason(error))[len(done) :]
    return done

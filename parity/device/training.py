"""The device report's trainings of both sides, and their speed."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from parity.device import inputs, judge
from parity.device.judge import Comparison
from parity.device.parts import Job, Place, Sides, Speed, pending
from parity.device.side import NotRun
from parity.spec import datasets, files

LOCKSTEP = {"lenet5": 10, "resnet18": 3}  # steps
ACCURACY = {"lenet5": (28, 10), "resnet18": (32, 2)}  # pixels, epochs
# Trainings from first weights that are rounded otherwise: one that has not come to an
# end ends anywhere.
ROUNDED = {"lenet5": 0, "resnet18": 2}
SPEED = {"lenet5": 28, "resnet18": 64}  # pixels
BATCH_SIZES = {"cpu": 32, "gpu": 256}
SPEED_SECONDS = 3.0


def _between_frameworks(sides: Sides) -> list[tuple[Place, Place]]:
    return [(a, b) for a, b in sides.pairs() if a.device == b.device]


def lockstep_jobs(sides: Sides, name: str) -> list[Job]:
    """Returns one job for each type, and device that both sides have."""
    jobs = []
    for dtype in ("float64", "float32"):
        for pair in _between_frameworks(sides):
            quantity = f"{LOCKSTEP[name]} steps"
            planned = pending("lockstep", name, quantity, dtype, pair)

            def run(planned=planned) -> list[Comparison]:
                if sides.apart:
                    raise NotRun("lockstep wants both frameworks in one process")
                return [replace(planned, **_lockstep(planned))]

            jobs.append(Job("lockstep", name, [planned], run))
    return jobs


def _lockstep(planned: Comparison) -> dict[str, object]:
    from parity.commands import train_sides
    from parity.spec import runs

    options = runs.options(
        planned.name,
        dataset="digits",
        image_size=32,
        batch_size=16,
        learning_rate=1e-3,
        scheduler="constant",
        augment=(),
    )
    device = planned.pair[0].split()[1]
    report = train_sides(
        options, LOCKSTEP[planned.name], dtype=planned.dtype, device=device
    )
    first = report.first_divergence
    last = report.steps[-1]
    return {
        "verdict": report.verdict,
        "error": max(step.errors["weights"] for step in report.steps),
        "note": f"step {first.number}, {first.culprit}"
        if first
        else f"losses {last.keras_loss:.6g} and {last.torch_loss:.6g}",
    }


def accuracy_jobs(sides: Sides, name: str) -> list[Job]:
    """Returns the job of one comparison, on the best device that both sides have."""
    pairs = _between_frameworks(sides)
    if not pairs:
        return []
    pair = pairs[-1]
    image_size, epochs = ACCURACY[name]
    quantity = f"accuracy after {epochs} epochs"
    planned = pending("accuracy", name, quantity, "float32", pair)

    def train(place: Place, folder: Path, weights: str | None) -> dict[str, object]:
        return sides.call(
            place.framework,
            "accuracy",
            name=name,
            device=place.device,
            image_size=image_size,
            epochs=epochs,
            folder=str(folder),
            weights=weights,
        )

    def run() -> list[Comparison]:
        weights, found, moved = None, {}, 0.0
        with tempfile.TemporaryDirectory(dir=sides.folder) as name_of_folder:
            folder = Path(name_of_folder)
            for place in reversed(pair):
                found[place] = train(place, folder / place.framework, weights)
                weights = found[place]["weights"]
            place, first = pair[-1], found[pair[-1]]
            for seed in range(ROUNDED[name]):
                rounded = _rounded(first["weights"], folder, seed)
                again = train(place, folder / f"rounded {seed}", rounded)
                moved = max(moved, abs(again["accuracy"] - first["accuracy"]))
        accuracies = tuple(found[x]["accuracy"] for x in pair)
        count = datasets.CATALOGUE["digits"].test_size
        return [replace(planned, **judge.judge_chance(accuracies, count, moved))]

    return [Job("accuracy", name, [planned], run)]


def _rounded(weights: str, folder: Path, seed: int) -> str:
    """Returns a file of weights that are off by what float32 rounds."""
    tensors, metadata = files.load_weights(Path(weights))
    disturbed = inputs.disturb(tensors, "float32", seed)
    disturbed = {name: x.astype(np.float32) for name, x in disturbed.items()}
    path = folder / f"rounded {seed}.safetensors"
    files.save_weights(path, disturbed, metadata)
    return str(path)


def speed_jobs(sides: Sides, name: str) -> list[Job]:
    """Returns one job for each side, on its best device."""
    best = {x.framework: x for x in sides.places()}  # the GPU comes last
    jobs = []
    for place in best.values():
        batch_size = BATCH_SIZES[place.device]
        settings = {"image_size": SPEED[name], "batch_size": batch_size}
        planned = Speed(name, str(place), **settings)

        def run(place=place, planned=planned, settings=settings) -> list[Speed]:
            found = sides.call(
                place.framework,
                "speed",
                name=name,
                device=place.device,
                seconds=SPEED_SECONDS,
                **settings,
            )
            rate = found["images per second"]
            return [replace(planned, images_per_second=rate, note="")]

        jobs.append(Job("speed", name, [planned], run))
    return jobs

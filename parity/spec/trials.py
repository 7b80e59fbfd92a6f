"""Finds the fastest arithmetic for a network on a device, by trying."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from parity.spec import runs
from parity.spec.datasets import Dataset
from parity.spec.loop import Trainer

# Precision, and whether compiled. The first is what the others are measured against.
CANDIDATES = {
    "cpu": (("float32", False), ("bfloat16", False)),
    "gpu": (
        ("float32", False),
        ("tf32", False),
        ("bfloat16", False),
        ("float16", False),
        ("bfloat16", True),
    ),
}
# What one rounding may change, relatively.
ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-9}
ROUNDING["float16"] = 2.0**-12


def fastest(
    options: runs.Options,
    dataset: Dataset,
    device_kind: str,
    create_trainer: Callable[..., Trainer],
    *place: object,
) -> runs.Options:
    """Returns options with the precision and compilation that were fastest; says so.

    Each candidate makes some steps on one batch, with a model of its own.

    Args:
        options: of the run.
        dataset: of the run.
        device_kind: "cpu" or "gpu".
        create_trainer: makes a trainer of options and data set.
        place: its further arguments.
    """
    indices = runs.batch_order(options, len(dataset.train_images), 0)[0]
    speeds = {}
    for precision, compiled in CANDIDATES[device_kind]:
        if compiled and options.sync_bn:
            continue
        trial = replace(options, precision=precision, compile=compiled)
        try:
            speed = measure(create_trainer(trial, dataset, *place), indices)
        except Exception as error:  # no compiler, no memory: another one is taken
            if not speeds:
                raise
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            failed = f"fast: {_name(precision, compiled)} does not run here"
            print(f"{failed}: {line[:150]}", file=sys.stderr)
        else:
            speeds[precision, compiled] = speed
    precision, compiled = max(speeds, key=speeds.get)
    if not options.quiet:
        tried = ", ".join(
            f"{_name(*candidate)} {speed:.0f}" for candidate, speed in speeds.items()
        )
        print(
            f"fast: {_name(precision, compiled)} (images/s: {tried}); "
            f"the two sides agree to its rounding, {ROUNDING[precision]:.0e} at each "
            "operation"
        )
    return replace(options, precision=precision, compile=compiled)


def measure(trainer: Trainer, indices: np.ndarray, steps: int = 3) -> float:
    """Returns images per second of the fastest of some steps on one batch."""
    times = []
    for _ in range(1 + steps):  # the first one prepares
        start = time.perf_counter()
        trainer.to_host(list(trainer.steps([indices], 0)))
        times.append(time.perf_counter() - start)
    return len(indices) / trainer.group.mean(min(times[1:]))


def _name(precision: str, compiled: bool) -> str:
    return f"{precision} compiled" if compiled else precision

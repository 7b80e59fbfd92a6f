"""Finds the fastest arithmetic for a network on a device, by trying."""

import sys
from collections.abc import Callable
from dataclasses import replace

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
            speed = create_trainer(trial, dataset, *place).speed(indices)
        except Exception as error:  # no compiler, no memory: another one is taken
            if not speeds:
                raise
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            failed = f"{precision}{' compiled' if compiled else ''}"
            print(f"fast: {failed} does not run here: {line[:150]}", file=sys.stderr)
        else:
            speeds[precision, compiled] = speed
    (precision, compiled), speed = max(speeds.items(), key=lambda item: item[1])
    if not options.quiet:
        tried = ", ".join(
            f"{name}{' compiled' if compiled else ''} {value:.0f}"
            for (name, compiled), value in speeds.items()
        )
        print(
            f"fast: {precision}{' compiled' if compiled else ''} (images/s: {tried}); "
            f"the two sides agree to its rounding, {ROUNDING[precision]:.0e} at each "
            "operation"
        )
    return replace(options, precision=precision, compile=compiled)

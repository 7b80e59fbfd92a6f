"""What the benchmarks share: made-up images, rounds, child processes, where it ran."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from parity.spec import datasets, memory

PACKAGES = ("keras", "tensorflow", "torch", "torchvision", "numpy")
# Of the CPU's instructions, those that 16-bit arithmetic is fast by.
INSTRUCTIONS = ("avx512f", "avx512_bf16", "amx_bf16")
CLASSES = 10


def made_up(images: np.ndarray) -> datasets.Dataset:
    """Returns a data set of uint8 images (N, H, W, C) whose labels mean nothing."""
    labels = np.random.default_rng(1).integers(0, CLASSES, len(images))
    channels = images.shape[-1]
    statistics = {"mean": (0.5,) * channels, "std": (0.29,) * channels}
    classes = tuple(map(str, range(CLASSES)))
    few = images[:CLASSES], labels[:CLASSES]
    return datasets.Dataset("made up", classes, images, labels, *few, **statistics)


def random_images(count: int, size: int, channels: int) -> np.ndarray:
    """Returns uint8 images (N, H, W, C) of noise."""
    shape = (count, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def time_rounds(
    loops: Mapping[str, Callable[[], None]], rounds: int, clock: str
) -> dict[str, list[float]]:
    """Returns the seconds of each loop in each round, without a first one.

    Every round runs all of them, and begins with another one.

    Args:
        loops: what to run, by name.
        rounds: how often.
        clock: "wall", or "cpu" for the seconds that this process has computed.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    names = list(loops)
    times = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = now()
            loops[name]()
            if number:  # the first round compiles
                times[name].append(now() - start)
    return times


def ratio(times: Sequence[float], beside: Sequence[float]) -> dict[str, float]:
    """Returns how many times as fast as another loop one is, round by round."""
    ratios = [other / own for own, other in zip(times, beside, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def show_ratio(value: Mapping[str, float]) -> str:
    """Returns a ratio with its range over the rounds."""
    return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"


def run_child(script: str, *arguments: object) -> dict[str, float]:
    """Returns what a benchmark prints last, as JSON, in a process of its own."""
    given = [str(argument) for argument in arguments]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    # Also where the package is not installed.
    root = str(Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (root, os.environ.get("PYTHONPATH")))
    )
    command = [sys.executable, script, "--child", *given, "--started", str(time.time())]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def mebibytes(field: str) -> float:
    """Returns what `parity.spec.memory` has of this process, in MiB."""
    found = memory.field(field)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return found / 2**20


def use_processors(count: int | None) -> None:
    """Keeps this process and its children to so many processors; None takes all.

    To be called before a framework is imported, which has as many threads.
    """
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def environment() -> dict[str, object]:
    """Returns the date, versions and CPU."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        "cpu": _cpu_field("model name") or platform.processor(),
        "instructions": [
            name for name in INSTRUCTIONS if name in _cpu_field("flags").split()
        ],
        "threads": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu_field(name: str) -> str:
    """Returns a field of the first processor in Linux's list, "" elsewhere."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def show_environment(found: Mapping[str, object]) -> str:
    """Returns the line above the tables."""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    instructions = ", ".join(found["instructions"]) or "no instructions for 16 bits"
    return (
        f"{found['date']}: {versions}\n{found['cpu']} ({instructions}), "
        f"{found['threads']} threads, load {found['load']} at the beginning"
    )


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table in Markdown, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1])] + [x.rjust(width) for x, width in rest]
        lines.append(f"| {' | '.join(padded)} |")
    rules = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    lines.insert(1, f"| {' | '.join(rules)} |")
    return "\n".join(lines)

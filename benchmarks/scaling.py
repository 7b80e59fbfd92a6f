"""How time and memory grow: `python benchmarks/scaling.py [--what NAMES]`.

batch     images per batch, ResNet-18
pixels    height and width of the images, ResNet-18
depth     layers, ResNet-18 to 152
images    made-up images of 28x28 pixels in a file that is mapped into memory, LeNet-5

Every point is a process of its own, which makes some of the engine's steps (for images:
a whole epoch) and says how long one took and how much memory it then had. Memory is
what the process allocated (RssAnon): pages of a mapped file are the system's, which
takes them back when it needs them. Growth is how much more a point takes than the one
before, and "order" the power of the size that this is.
"""

import argparse
import json
import math
import tempfile
import threading
import time
from pathlib import Path

import common
import numpy as np
import train

from parity.spec import cli, runs

# What grows, and everything else: model, image size, channels, batch size, steps.
POINTS = {
    "batch": (8, 16, 32, 64),
    "pixels": (32, 64, 96, 128),
    "depth": (18, 34, 50, 101, 152),
    "images": (1_000, 10_000, 100_000, 1_000_000),
}
BATCH_SIZE, SIZE, STEPS = 16, 64, 5
ROWS_AT_ONCE = 10_000


def write_images(path: Path, count: int) -> np.ndarray:
    """Writes noise of (count, 28, 28, 1) and returns the file, mapped into memory."""
    shape = (count, 28, 28, 1)
    file = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    random = np.random.default_rng(0)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = file[start : start + ROWS_AT_ONCE]
        rows[:] = np.frombuffer(random.bytes(rows.size), np.uint8).reshape(rows.shape)
    file.flush()
    del file
    return np.load(path, mmap_mode="r")


class Peak(threading.Thread):
    """Watches how much memory this process has allocated."""

    def __init__(self, interval: float = 0.02):
        super().__init__(daemon=True)
        self.interval, self.ended = interval, threading.Event()
        self.most = common.mebibytes("RssAnon")

    def run(self) -> None:
        """Looks again and again."""
        while not self.ended.wait(self.interval):
            self.most = max(self.most, common.mebibytes("RssAnon"))

    def stop(self) -> float:
        """Returns the most that there was, in MiB."""
        self.ended.set()
        self.join()
        return self.most


def child(side: str, what: str, point: int, arguments) -> dict[str, float]:
    """Returns what one point takes."""
    values = {"batch": BATCH_SIZE, "pixels": SIZE, "depth": 18} | {what: point}
    changes = {"dataset": "digits", "optimizer": "adam", "augment": (), "quiet": True}
    changes |= {"device": arguments.device, "epochs": 1}
    if what != "images":
        batch_size, size = values["batch"], values["pixels"]
        name = f"resnet{values['depth']}"
        changes |= {"batch_size": batch_size, "image_size": size}
        images = common.random_images(batch_size * STEPS, size, 3)
        return time_steps(side, runs.options(name, **changes), images)
    changes |= {"batch_size": 128, "image_size": 28}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        images = write_images(Path(folder) / "images.npy", point)
        return time_steps(side, runs.options("lenet5", **changes), images)


def time_steps(side: str, options: runs.Options, images) -> dict[str, float]:
    """Returns seconds of a step, and memory, of an epoch after two steps."""
    dataset = common.made_up(images)
    order = runs.batch_order(options, len(images), 0)
    peak = Peak()
    peak.start()
    trainer = train.make_trainer(side, options, dataset)
    trainer.to_host(list(trainer.steps([order[0], order[-1]], 0)))
    ready, processor = time.perf_counter(), time.process_time()
    pending, middle = [], 0.0
    for number, losses in enumerate(trainer.steps(order, 0)):
        pending.append(losses)
        if number % 50 == 49:  # as the training does
            trainer.to_host(pending)
            pending = []
        if not middle:
            middle = common.mebibytes("RssAnon")
    if pending:
        trainer.to_host(pending)
    return {
        "seconds": (time.perf_counter() - ready) / len(order),
        "processor_seconds": (time.process_time() - processor) / len(order),
        "mib_after_one_step": middle,
        "mib_at_the_end": common.mebibytes("RssAnon"),
        "peak_mib": peak.stop(),
        "steps": len(order),
    }


def measure(what: str, arguments: argparse.Namespace) -> dict[str, dict]:
    """Returns each side's points."""
    found = {}
    for side in train.SIDES:
        points = {}
        for point in arguments.points or POINTS[what]:
            given = ["--what", what, "--points", point, "--device", arguments.device]
            if arguments.folder:
                given += ["--folder", arguments.folder]
            points[point] = common.run_child(__file__, side, *given)
        found[side] = points
    return found


def order_of(points: dict[int, dict[str, float]], key: str) -> float:
    """Returns the power of the size that a quantity grows by, over the last step."""
    *_, (small, before), (large, after) = points.items()
    return math.log(after[key] / before[key]) / math.log(large / small)


def show(what: str, found: dict[str, dict]) -> str:
    """Returns a table of both sides' points."""
    rows = []
    for side, points in found.items():
        first = next(iter(points.values()))
        for point, values in points.items():
            times = values["processor_seconds"]
            rows.append(
                (
                    side,
                    f"{point:,}",
                    f"{values['seconds'] * 1e3:.1f}",
                    f"{times * 1e3:.1f}",
                    f"{times / first['processor_seconds']:.2f}",
                    f"{values['mib_after_one_step']:.0f}",
                    f"{values['mib_at_the_end']:.0f}",
                    f"{values['peak_mib']:.0f}",
                )
            )
    header = ("side", what, "step, ms", "of the CPU, ms", "times the first")
    header += ("MiB, first steps", "MiB, end", "MiB, peak")
    lines = [common.show_table(header, rows)]
    if what in ("batch", "pixels"):
        for side, points in found.items():
            if len(points) > 1:
                power = order_of(points, "processor_seconds")
                lines.append(f"{side}: time grows at last as {what} to the {power:.2f}")
    return "\n".join(lines)


def draw(results: dict[str, dict], path: Path) -> None:
    """Draws time and memory of every row of points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(results), 6), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False)
    labels = {"keras": "Keras", "torch": "PyTorch"}
    for column, (what, found) in enumerate(results.items()):
        for side, points in found.items():
            steps = [values["processor_seconds"] * 1e3 for values in points.values()]
            memory = [values["peak_mib"] for values in points.values()]
            axes[0, column].plot(list(points), steps, "o-", label=labels[side])
            axes[1, column].plot(list(points), memory, "o-", label=labels[side])
        for row in (0, 1):
            if what == "images":
                axes[row, column].set_xscale("log")
            axes[row, column].set_ylim(bottom=0)
            axes[row, column].grid(alpha=0.3)
        axes[0, column].set_title(what)
        axes[1, column].set_xlabel(what)
    axes[0, 0].set_ylabel("ms of the CPU per step")
    axes[1, 0].set_ylabel("MiB allocated, peak")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Returns the arguments of the command line."""
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ",".join(POINTS)
    flags.add_argument(
        "--what",
        type=lambda text: text.split(","),
        default=list(POINTS),
        metavar="NAMES",
        help=f"some of {names} (default: all)",
    )
    flags.add_argument(
        "--points",
        type=lambda text: [cli.positive(number) for number in text.split(",")],
        metavar="NUMBERS",
        help="sizes, in place of those measured otherwise; with one --what",
    )
    flags.add_argument("--json", type=Path, metavar="FILE")
    flags.add_argument("--chart", type=Path, metavar="FILE.png")
    flags.add_argument("--device", default="cpu")
    flags.add_argument(
        "--folder", type=Path, help="for the image files; a million take 784 MB"
    )
    flags.add_argument("--threads", type=cli.positive, metavar="N")
    flags.add_argument("--child", choices=train.SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = flags.parse_args(given)
    for name in arguments.what:
        if name not in POINTS:
            flags.error(f"unknown {name!r}; choose from {names}")
    if arguments.points and len(arguments.what) != 1:
        flags.error("--points goes with one --what")
    return arguments


def main() -> None:
    """Prints the tables; writes JSON and a chart if asked to."""
    arguments = parse()
    common.use_processors(arguments.threads)
    if arguments.child:
        (what,), (point,) = arguments.what, arguments.points
        print(json.dumps(child(arguments.child, what, point, arguments)))
        return
    found = common.environment()
    print(common.show_environment(found))
    results = {}
    for what in arguments.what:
        results[what] = measure(what, arguments)
        print(f"\n{show(what, results[what])}", flush=True)
    if arguments.json:
        report = {"environment": found, "growth": results}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.chart:
        draw(results, arguments.chart)


if __name__ == "__main__":
    main()

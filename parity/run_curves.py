"""Whether runs are the same curve, and their picture; loads no framework.

Two runs, over the epochs that both have, are

"equal": every logged loss, accuracy and learning rate is the same number; NaN equals
NaN.

"rounding": they part only as float32 rounding explains. It begins at 1e-7 and grows
with every step, in networks with batch normalisation to a tenth of the loss within ten
of them, so that no bound on the epochs tells it from a slightly different training. Its
causes do:
  - both start from the same weights (initial.safetensors);
  - no argument that is part of what is computed is another, nor a learning rate;
  - the loss of the first step (first_loss), before anything can grow, is the same to
    FIRST_LOSS, or to START in a lower precision: the same images, and in the same
    network; where it is not known, the first epoch's mean training loss, to START;
  - the first epoch's test loss differs at most AMPLIFIED times as much as the training
    loss does: state that only tests see, such as moving averages, is the same;
  - NaN and infinity stand at the same places;
  - the last test accuracies do not contradict each other: Fisher's exact test,
    two-sided, on the numbers of test images told rightly, gives p of LEVEL or more.
An optimizer that goes slightly wrong is not seen so: `python -m parity train` is there
for it, in float64.

"different": otherwise.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from parity.spec import files, pictures, runs
from parity.spec.errors import UsageError

# The two sides' first losses differ by 1e-7 to 2e-6; another batch or another dropout
# mask, by more than a hundredth.
FIRST_LOSS = 1e-4
START = 1e-2
AMPLIFIED = 1000
LEVEL = 0.01
QUANTITIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
ROUNDED = 1e-6  # a relative difference that rounding of one float32 number explains

# What is no part of what is computed, but for its rounding. The initial weights stand
# for `weights`, the logged learning rates for what the number of epochs changes, and
# the first loss for the normalisation, whose last digits are the machine's.
INCIDENTAL = {
    "framework",
    "versions",
    "device",
    "placed_on",
    "processes",
    "output",
    "resume",
    "data_dir",
    "workers",
    "quiet",
    "epochs",
    "checkpoint_every",
    "tensorboard",
    "compile",
    "fast",
    "deterministic",
    "weights",
    "metrics",
    "label_names",
    "strict_data",
    "recipe",
    "mean",
    "std",
}


@dataclass(frozen=True)
class Record:
    """What a run folder says.

    Attributes:
        folder: the run folder.
        label: its name, or its path where another's name is the same.
        arguments: args.json.
        epochs: the lines of metrics.jsonl.
    """

    folder: Path
    label: str
    arguments: dict[str, object]
    epochs: list[dict[str, float]]

    def summary(self) -> dict[str, object]:
        """Returns how far and how good the run is; None for what it does not say."""
        accuracies, losses, seconds, speeds = (
            [epoch[name] for epoch in self.epochs if name in epoch]
            for name in ("test_accuracy", "train_loss", "seconds", "images_per_second")
        )
        best = max((x for x in accuracies if x == x), default=None)
        return {
            "epochs": len(self.epochs),
            "of_epochs": self.arguments.get("epochs"),
            "test_accuracy": accuracies[-1] if accuracies else None,
            "best_test_accuracy": best,
            "best_epoch": None if best is None else accuracies.index(best) + 1,
            "train_loss": losses[-1] if losses else None,
            "seconds": sum(seconds) if seconds else None,
            "images_per_second": median(speeds) if speeds else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Whether a run is the same curve as another.

    Attributes:
        first: label of the one.
        second: label of the other.
        verdict: "equal", "rounding" or "different".
        reasons: why it is not equal, or why not even rounding, a line each.
        epochs: that both have and that are compared.
        parting: the first epoch, quantity and relative difference beyond the rounding
            of one number, or else the first there is; None where all is equal.
        start: the relative difference of the first step's losses; None where one is
            not known.
        p_value: of the last test accuracies; None where the number of test images is
            not known.
    """

    first: str
    second: str
    verdict: str
    reasons: tuple[str, ...]
    epochs: int
    parting: tuple[int, str, float] | None
    start: float | None
    p_value: float | None

    def __str__(self) -> str:
        """Returns the verdict and a line per reason."""
        head = f"{self.second} against {self.first}: {self.verdict} over {self.epochs}"
        lines = [f"{head} epoch{'s' * (self.epochs > 1)}"]
        if self.parting:
            epoch, name, error = self.parting
            lines.append(f"part in epoch {epoch}, {name}, by {error:.1e} of it")
        return "\n  ".join([*lines, *self.reasons])


def read(folders: Sequence[Path]) -> list[Record]:
    """Returns the records of run folders, finished or not.

    Raises:
        UsageError: one holds no run, or a file of it is damaged.
    """
    names = [Path(folder).resolve().name for folder in folders]
    return [
        _read(Path(folder), name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _read(folder: Path, label: str) -> Record:
    arguments = runs.read_arguments(folder)
    path = folder / "metrics.jsonl"
    epochs = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            if not isinstance(epoch := json.loads(line), dict):
                raise ValueError("no object")
            epoch = {name: _number(x) for name, x in epoch.items()}
            if epoch.get("epoch") != number:
                raise ValueError(f"not epoch {number}")
            if missing := [name for name in QUANTITIES if name not in epoch]:
                raise ValueError(f"no {missing[0]}")
        except ValueError as error:
            raise UsageError(f"{path}, line {number}, is damaged: {error}") from None
        epochs.append(epoch)
    return Record(folder, label, arguments, epochs)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:  # the run has not come so far
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _number(value: object) -> float:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return value


def flatten(arguments: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Returns nested arguments as one level: `versions.python`."""
    flat = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differing(records: Sequence[Record]) -> dict[str, list[object]]:
    """Returns the arguments that are not the same in all runs: name to values.

    None stands for one that a run does not have. A run's own folder is left out.
    """
    flat = [flatten(record.arguments) for record in records]
    names = dict.fromkeys(name for arguments in flat for name in arguments)
    values = {name: [arguments.get(name) for arguments in flat] for name in names}
    return {
        name: row
        for name, row in values.items()
        if name not in ("output", "resume") and any(value != row[0] for value in row)
    }


def relative(first: float, second: float) -> float:
    """Returns how far apart two numbers are, as part of the larger; NaN equals NaN."""
    if first == second or (math.isnan(first) and math.isnan(second)):
        return 0.0
    if not (math.isfinite(first) and math.isfinite(second)):
        return math.inf
    return abs(first - second) / max(abs(first), abs(second))


def compare(first: Record, second: Record) -> Comparison:
    """Compares two runs over the epochs that both have; see the module.

    Raises:
        UsageError: there is no such epoch.
    """
    epochs = min(len(first.epochs), len(second.epochs))
    if not epochs:
        empty = second if first.epochs else first
        raise UsageError(f"{empty.folder} has no whole epoch yet: nothing to compare")
    errors = [
        {name: relative(x[name], y[name]) for name in x if name in y and _counts(name)}
        for x, y in zip(first.epochs[:epochs], second.epochs[:epochs], strict=True)
    ]
    firsts = [record.epochs[0].get("first_loss") for record in (first, second)]
    start = None if None in firsts else relative(*firsts)
    p_value = _p_value(first, second, epochs)
    parting = _parting(errors)
    verdict, reasons = "equal", []
    if parting:
        reasons = _differences(first, second, errors, start, p_value)
        verdict = "different" if reasons else "rounding"
    if verdict == "rounding":
        what, size = "first step's loss", start
        if start is None:
            what, size = "first epoch's train_loss", errors[0]["train_loss"]
        reasons.append(
            f"the same weights and arguments; the {what} differs by {size:.1e}; last "
            "test accuracies: "
            + ("the same" if p_value is None else f"p = {p_value:.2f}")
        )
    if len(first.epochs) != len(second.epochs):
        longer = max(first, second, key=lambda record: len(record.epochs))
        reasons.append(
            f"of {longer.label}'s {len(longer.epochs)} epochs the first {epochs} "
            f"{'are' if epochs > 1 else 'is'} compared"
        )
    return Comparison(
        first.label,
        second.label,
        verdict,
        tuple(reasons),
        epochs,
        parting,
        start,
        p_value,
    )


def _counts(name: str) -> bool:
    return name.startswith(("train_", "test_")) or name == "learning_rate"


def _parting(errors: list[dict[str, float]]) -> tuple[int, str, float] | None:
    """Returns the first epoch, quantity and error above ROUNDED, or above nothing."""
    for limit in (ROUNDED, 0.0):
        for epoch, quantities in enumerate(errors, 1):
            for name, error in quantities.items():
                if error > limit:
                    return epoch, name, error
    return None


def _differences(
    first: Record,
    second: Record,
    errors: list[dict[str, float]],
    start: float | None,
    p_value: float | None,
) -> list[str]:
    """Returns what float32 rounding does not explain."""
    found = []
    same = _same_weights(first, second)
    if same is False:
        found.append("another start: initial.safetensors are not the same weights")
    one, other = flatten(first.arguments), flatten(second.arguments)
    names = [
        name
        for name in one
        if name in other and one[name] != other[name]
        if name.split(".")[0] not in INCIDENTAL or (name == "weights" and same is None)
    ]
    if names:
        found.append(f"arguments that differ: {', '.join(names)}")
    followed = first.arguments.get("scheduler") == "plateau"  # of the losses
    if not followed and any(x.get("learning_rate", 0) > 1e-12 for x in errors):
        found.append("other learning rates")
    loss, test_loss = errors[0]["train_loss"], errors[0]["test_loss"]
    precisions = {x.arguments.get("precision", "float32") for x in (first, second)}
    exact = precisions <= {"float32", "float64"}
    if start is not None and start > (limit := FIRST_LOSS if exact else START):
        found.append(
            f"the first step's losses differ by {start:.1e}, more than {limit:g}: "
            "other images, another dropout mask or another network"
        )
    if start is None and loss > START:
        found.append(f"the first epoch's train_loss differs by more than {START:g}")
    if test_loss > AMPLIFIED * max(loss, ROUNDED):
        found.append(
            f"the first epoch's test_loss differs by {test_loss:.1e} and train_loss by "
            f"{loss:.1e} only: state that only tests see is another"
        )
    for epoch, quantities in enumerate(errors, 1):
        if odd := [name for name, error in quantities.items() if math.isinf(error)]:
            found.append(f"NaN or infinity in one only: epoch {epoch}, {odd[0]}")
            break
    if p_value is not None and p_value < LEVEL:
        found.append(
            f"the last test accuracies contradict each other, p = {p_value:.1e}"
        )
    if p_value is None and errors[-1]["test_accuracy"]:
        found.append(
            "the last test accuracies differ, and args.json does not say the same "
            "test_size of both"
        )
    return found


def _same_weights(first: Record, second: Record) -> bool | None:
    """Returns whether two runs start from the same weights; None if not known."""
    paths = [record.folder / "initial.safetensors" for record in (first, second)]
    if not all(path.exists() for path in paths):
        return None
    ours, theirs = (files.load_weights(path)[0] for path in paths)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def _p_value(first: Record, second: Record, epochs: int) -> float | None:
    """Returns that of as many images told rightly in both, at the last common epoch."""
    sizes = {record.arguments.get("test_size") for record in (first, second)}
    accuracies = [
        record.epochs[epochs - 1]["test_accuracy"] for record in (first, second)
    ]
    if len(sizes) > 1 or None in sizes or not all(map(math.isfinite, accuracies)):
        return None
    if accuracies[0] == accuracies[1]:
        return 1.0
    from scipy.stats import fisher_exact

    (size,) = sizes
    right = [round(accuracy * size) for accuracy in accuracies]
    return float(fisher_exact([[count, size - count] for count in right]).pvalue)


def report(
    records: Sequence[Record], comparisons: Sequence[Comparison]
) -> dict[str, object]:
    """Returns everything as a nested value for JSON."""
    return {
        "runs": [
            {"folder": str(record.folder), "label": record.label} | record.summary()
            for record in records
        ],
        "arguments": differing(records),
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def draw(records: Sequence[Record], path: Path) -> None:
    """Draws loss and accuracy of all runs over the epochs, train solid, test dashed.

    Args:
        records: of the runs; one that lies on another is seen as a thinner line.
        path: the PNG file to be.
    """
    from matplotlib.lines import Line2D

    rows = math.ceil((len(records) + 2) / 3)
    figure = pictures._new_figure(figsize=(11, 4.4 + 0.22 * rows))
    left, right = figure.subplots(1, 2)
    styles = {"train": "-", "test": "--"}
    lines = []
    for index, record in enumerate(records):
        look = {
            "color": f"C{index % 10}",
            "linewidth": 1 + 2.4 * (1 - index / len(records)),
        }
        lines.append(Line2D([], [], label=record.label, **look))
        for axes, quantity in ((left, "loss"), (right, "accuracy")):
            for part, style in styles.items():
                values = [epoch[f"{part}_{quantity}"] for epoch in record.epochs]
                marker = "o" if sum(map(math.isfinite, values)) < 3 else None
                numbers = range(1, len(values) + 1)
                axes.plot(numbers, values, linestyle=style, marker=marker, **look)
    for axes, quantity in ((left, "loss"), (right, "accuracy")):
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    for part, style in styles.items():
        lines.append(Line2D([], [], color="black", linestyle=style, label=part))
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120, format="png")

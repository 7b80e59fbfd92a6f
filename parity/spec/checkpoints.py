"""Checkpoints: everything that a training needs to go on as if nothing had happened.

A checkpoint is one safetensors file: the model's weights in the common form as
`model/NAME`, the optimizer's tensors as `optimizer/...`, the random generators' as
`random/...`, the losses of the epoch so far as `losses`; in its header the arguments of
the run and how far it is, and a SHA-256 of all of it. Nothing in it is code.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from parity.spec import files, layouts
from parity.spec.errors import UsageError

FORMAT = "cnn-parity checkpoint 1"

# What is finite in every epoch's line; the loss of the test images need not be.
LOGGED = ("train_loss", "train_accuracy", "test_accuracy", "learning_rate", "seconds")


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: that is under way, from 0.
        step: steps of it that are done.
        losses: of these steps, (step,).
        seconds: that these steps took.
        epochs: the lines of metrics.jsonl.
    """

    epoch: int = 0
    step: int = 0
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)


def save(
    path: Path,
    state: Mapping[str, np.ndarray],
    progress: Progress,
    arguments: Mapping[str, object],
    **others: Path | None,
) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: the file to be.
        state: tensors by name.
        progress: how far the training is.
        arguments: of the run, as in args.json.
        others: second names; see `files.write_atomically`.
    """
    facts = asdict(progress)
    tensors = dict(state) | {"losses": np.asarray(facts.pop("losses"))}
    metadata = {
        "format": FORMAT,
        "arguments": json.dumps(files.plain(arguments), default=str),
        "progress": json.dumps(files.plain(facts)),
    }
    metadata["sha256"] = _digest(tensors, metadata)
    files.save_weights(path, tensors, metadata, **others)


def load(path: Path) -> tuple[dict[str, np.ndarray], Progress, dict[str, object]]:
    """Returns a checkpoint's state, progress and arguments.

    Raises:
        UsageError: there is no such file, or it is not a whole checkpoint.
    """
    tensors, metadata = files.load_weights(path)
    if metadata.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a checkpoint of this program, whose header says {FORMAT!r}"
        )
    digest = metadata.pop("sha256", None)
    if digest != _digest(tensors, metadata):
        raise UsageError(f"{path} is damaged: its content is not what was written")
    try:
        progress = _progress(json.loads(metadata["progress"]), tensors.pop("losses"))
        arguments = json.loads(metadata["arguments"])
        if not isinstance(arguments, dict):
            raise TypeError("arguments that are no object")
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path} is not a training's checkpoint: {error}") from None
    return tensors, progress, arguments


def _progress(facts: dict[str, object], losses: np.ndarray) -> Progress:
    """Returns what a checkpoint says of the progress.

    Raises:
        KeyError, TypeError, ValueError: no training can be that far.
    """
    epoch, step, seconds = (facts[name] for name in ("epoch", "step", "seconds"))
    epochs = [
        {name: _number(value) for name, value in line.items()}
        for line in map(dict, facts["epochs"])
    ]
    if not all(type(count) is int and count >= 0 for count in (epoch, step)):
        raise ValueError(f"epoch {epoch} and step {step}")
    if not 0 <= _number(seconds) < math.inf or (step and not seconds):
        raise ValueError(f"{seconds} seconds for {step} steps")
    if losses.shape != (step,) or losses.dtype != float or not _finite(losses):
        raise ValueError(f"losses {losses.dtype} {losses.shape} of {step} steps")
    if len(epochs) != epoch:
        raise ValueError(f"{len(epochs)} lines of {epoch} epochs")
    for number, line in enumerate(epochs, 1):
        finite = all(math.isfinite(line[name]) for name in LOGGED)
        if line["epoch"] != number or not finite or "test_loss" not in line:
            raise ValueError(f"{line} of epoch {number}")
    return Progress(epoch, step, losses, seconds, epochs)


def _number(value: object) -> float:
    """Returns a number as it is in the file, where NaN and infinities are strings."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    return float(value) if isinstance(value, str) else value


def load_weights(path: Path) -> dict[str, np.ndarray]:
    """Returns the weights in the common form of a weights file or of a checkpoint.

    Raises:
        UsageError: there is no such file, or it is not whole.
    """
    tensors, metadata = files.load_weights(path)
    return part(load(path)[0], "model") if "format" in metadata else tensors


def check(state: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> None:
    """Checks that a checkpoint has every tensor of a trainer, in its shape and type.

    Of the optimizer it may have more: PyTorch makes its tensors at the first step. Of
    random generators it has a row for each process, which may have been other ones,
    and that of a GPU if it was made on one.

    Raises:
        UsageError: lists what is missing, left over or different.
    """

    def described(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple]:
        shapes = {}
        for name, tensor in tensors.items():
            first, _, _ = name.partition("/")
            if name == "random/gpu" or (first == "optimizer" and name not in own):
                continue
            shape = tensor.shape[1:] if first == "random" else tensor.shape
            shapes[name] = (*shape, tensor.dtype.name)
        return shapes

    layouts.check(described(own), described(state), "the checkpoint")


def not_finite(state: Mapping[str, np.ndarray]) -> str | None:
    """Returns the first of the model's weights that has a NaN or an infinity."""
    weights = part(state, "model").items()
    return next((name for name, weight in weights if not _finite(weight)), None)


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())


def part(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors under `prefix/`, named without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors as `prefix/NAME`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()

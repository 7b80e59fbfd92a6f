"""Checkpoints: everything that a training needs to go on as if nothing had happened.

A checkpoint is one safetensors file: the model's weights in the common form as
`model/NAME`, the optimizer's tensors as `optimizer/...`, the random generators' as
`random/...`, the losses of the epoch so far as `losses`; in its header the arguments of
the run and how far it is, and a SHA-256 of all of it. Nothing in it is code.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from parity.spec import files
from parity.spec.errors import UsageError

FORMAT = "cnn-parity checkpoint 1"


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
) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: the file to be.
        state: tensors by name.
        progress: how far the training is.
        arguments: of the run, as in args.json.
    """
    facts = asdict(progress)
    tensors = dict(state) | {"losses": np.asarray(facts.pop("losses"))}
    metadata = {
        "format": FORMAT,
        "arguments": json.dumps(files.plain(arguments), default=str),
        "progress": json.dumps(files.plain(facts)),
    }
    metadata["sha256"] = _digest(tensors, metadata)
    files.save_weights(path, tensors, metadata)


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
    losses = tensors.pop("losses")
    progress = Progress(losses=losses, **json.loads(metadata["progress"]))
    return tensors, progress, json.loads(metadata["arguments"])


def part(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors under `prefix/`, named without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}


def under(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors as `prefix/NAME`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def check_shape(
    name: str, tensor: np.ndarray, shape: Sequence[int], scalar: bool = False
) -> None:
    """Raises UsageError where a tensor has not the shape that it is to have.

    Args:
        name: the tensor's.
        tensor: of a checkpoint.
        shape: of the weight that it belongs to.
        scalar: whether it is a number instead.
    """
    wanted = () if scalar else tuple(shape)
    if tuple(tensor.shape) != wanted:
        raise UsageError(f"the checkpoint's {name} is {tensor.shape}, not {wanted}")


def keep(folder: Path, name: str, as_name: str) -> None:
    """Gives a checkpoint of a folder a second name, in the place of what had it."""
    source, target = folder / f"{name}.safetensors", folder / f"{as_name}.safetensors"

    def link(path: Path) -> None:
        try:
            os.link(source, path)
        except OSError:  # a file system without links
            path.write_bytes(source.read_bytes())

    if source.exists():
        files.write_atomically(target, link)


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {tensors[name].shape}\n".encode())
        digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()

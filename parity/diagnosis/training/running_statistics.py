"""Why the running statistics of a BatchNorm part on equal inputs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from parity.diagnosis.findings import Finding
from parity.diagnosis.training.losses import accepted
from parity.diagnosis.training.rules import Arrays
from parity.precision import keras_as, torch_as
from parity.spec.tolerances import relative_error

# Forward passes after which running statistics are compared.
PASSES = 3
# Relative L2 error of statistics that are the same, and of those that float32 constants
# inside a layer may leave.
STATISTICS_TOLERANCE = 1e-10
ROUNDED = 1e-6


class NormPair(NamedTuple):
    """A BatchNorm on both sides.

    Attributes:
        inputs: one array for each forward pass, channels last.
        layer: in Keras, built.
        module: in PyTorch.
        keras_name: attribute path of the layer.
        torch_name: likewise.
    """

    inputs: Sequence[np.ndarray]
    layer: keras.Layer
    module: torch.nn.Module
    keras_name: str
    torch_name: str


def explain_bn_statistics(
    inputs: np.ndarray | Sequence[np.ndarray],
    keras_layer: keras.Layer,
    torch_module: torch.nn.Module,
    keras_name: str | None = None,
    torch_name: str | None = None,
) -> list[Finding]:
    """Returns why the running statistics of a BatchNorm part in training mode.

    Both start from Keras's statistics and are given the same inputs. The momentum and
    whether the variance is unbiased are taken from what each side made of them.

    Args:
        inputs: (N, ..., C), one array for each forward pass, or one for all.
        keras_layer: as it was afterwards.
        torch_module: likewise.
        keras_name: attribute path of the layer.
        torch_name: likewise.
    """
    passes = inputs if isinstance(inputs, list | tuple) else [inputs] * PASSES
    passes = [np.asarray(array, np.float64) for array in passes]
    said = {"names": (keras_name, torch_name), "level": "training"}
    if getattr(torch_module, "running_mean", None) is None:
        words = "the moving average", "each batch, always"
        return [accepted("bn.training_mode", 1.0, 0.0, *words, **said)]
    start, ours = _keras_statistics(keras_layer, passes)
    theirs = _torch_statistics(torch_module, passes, start)
    before = _distance(theirs, ours)
    if before <= STATISTICS_TOLERANCE:
        return []
    kept_k, scales_k = _recovered(start, passes, ours)
    kept_t, scales_t = _recovered(start, passes, theirs)
    for frozen, other in ((kept_k, kept_t), (kept_t, kept_k)):
        if min(frozen) == 1 and max(other) < 1:
            words = ["frozen" if x is frozen else "trainable" for x in (kept_k, kept_t)]
            return [accepted("layer.frozen", before, 0.0, *words, **said)]
    exact = _averaged(start, passes, kept_k, scales_k)
    limit = max(STATISTICS_TOLERANCE, 4 * _distance(exact, ours))
    changes = {
        "bn.momentum": (kept_k, scales_t),
        "bn.unbiased_variance": (kept_t, scales_k),
    }
    values = {
        "bn.momentum": (_constant(kept_k), _constant([1 - x for x in kept_t])),
        "bn.unbiased_variance": (
            _variance_kind(scales_k, passes),
            _variance_kind(scales_t, passes),
        ),
    }
    after = {
        cause: _distance(_averaged(start, passes, *change), ours)
        for cause, change in changes.items()
    }
    for cause, error in after.items():
        if error <= limit:
            return [accepted(cause, before, error, *values[cause], **said)]
    last = _distance(exact, ours)
    is_read = _distance(_averaged(start, passes, kept_t, scales_t), theirs) <= limit
    if last > ROUNDED or not is_read:
        return [accepted("unexplained", before, None, **said)]
    # Each without the other: what is left once the other one is mended.
    return [
        accepted(cause, after[other], last, *values[cause], **said)
        for cause, other in zip(changes, reversed(changes), strict=True)
    ]


Statistics = list[tuple[np.ndarray, np.ndarray]]


def _keras_statistics(
    layer: keras.Layer, passes: Arrays
) -> tuple[tuple[np.ndarray, np.ndarray], Statistics]:
    """Returns the mean and variance before, and after each pass."""
    found = []
    with keras_as(layer, "float64", "cpu"):
        for number, array in enumerate([None, *passes]):
            if number:
                layer(tf.constant(array), training=True)
            moving = (layer.moving_mean, layer.moving_variance)
            found.append(tuple(np.array(x.value.numpy()) for x in moving))
    return found[0], found[1:]


def _torch_statistics(
    module: torch.nn.Module, passes: Arrays, start: tuple[np.ndarray, np.ndarray]
) -> Statistics:
    """Returns the mean and variance after each pass."""
    found = []
    with torch_as(module, "float64", "cpu"), torch.no_grad():
        module.train()
        for array, tensor in zip(
            start, (module.running_mean, module.running_var), strict=True
        ):
            tensor.copy_(torch.tensor(array))
        for array in passes:
            module(torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, 1))))
            moving = (module.running_mean, module.running_var)
            found.append(tuple(x.double().numpy().copy() for x in moving))
    return found


def _moments(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = array.reshape(-1, array.shape[-1])
    return rows.mean(0), rows.var(0)


def _recovered(
    start: tuple[np.ndarray, np.ndarray], passes: Arrays, made: Statistics
) -> tuple[list[float], list[float]]:
    """Returns what part of the statistics each pass kept, and a factor of variances."""
    kept, scales = [], []
    for before, array, after in zip([start, *made[:-1]], passes, made, strict=True):
        mean, variance = _moments(array)
        way = mean - before[0]
        size = float(way @ way)
        taken = float((after[0] - before[0]) @ way) / size if size else 0.0
        taken = 0.0 if abs(taken) < 1e-12 else taken
        kept.append(1 - taken)
        given = taken * variance
        rest = after[1] - (1 - taken) * before[1]
        scales.append(float(rest @ given) / float(given @ given) if taken else 1.0)
    return kept, scales


def _averaged(
    start: tuple[np.ndarray, np.ndarray],
    passes: Arrays,
    kept: Sequence[float],
    scales: Sequence[float],
) -> Statistics:
    """Returns the statistics after each pass, of given constants."""
    found = []
    mean, variance = start
    for array, part, scale in zip(passes, kept, scales, strict=True):
        batch_mean, batch_variance = _moments(array)
        mean = part * mean + (1 - part) * batch_mean
        variance = part * variance + (1 - part) * scale * batch_variance
        found.append((mean, variance))
    return found


def _distance(ours: Statistics, theirs: Statistics) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(relative_error(np.concatenate(a), np.concatenate(b)) for a, b in pairs)


def _constant(values: Sequence[float]) -> object:
    short = [float(f"{value:.6g}") for value in values]
    return short[0] if len(set(short)) == 1 else tuple(short)


def _variance_kind(scales: Sequence[float], passes: Arrays) -> str:
    counts = [array.size // array.shape[-1] for array in passes]
    unbiased = [count / max(count - 1, 1) for count in counts]
    if np.allclose(scales, 1, rtol=0, atol=1e-9):
        return "biased"
    if np.allclose(scales, unbiased, rtol=0, atol=1e-9):
        return "unbiased"
    return f"{scales[0]:.6g} times the biased"

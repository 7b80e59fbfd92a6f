"""Where, and by how much, a Keras and a PyTorch model differ on the same images."""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, torch
from keras_impl.tracing import input_shape
from parity import probe, rounding, traces
from parity.report import LayerReport, Report
from parity.spec.errors import UsageError, unknown
from parity.spec.tolerances import TOLERANCES, relative_error
from parity.traces import Arrays, Row, Trace

DTYPES = ("float64", "float32")
DEVICES = ("cpu", "gpu")


def compare(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
) -> Report:
    """Compares every layer's output in inference mode; changes neither model.

    Layers are partners when their attribute paths are the same. A layer's error is
    that of its output or of what the next layer receives, whichever is larger.

    Args:
        keras_model: a built model on the TensorFlow backend.
        torch_model: any module.
        images: NHWC; None draws probe images for the Keras model's input shape.
        dtype: "float64" decides whether the two are the same function; "float32"
            whether each side computes it as well as rounding allows.
        device: "cpu" or "gpu".

    Returns:
        A report whose layers stand in execution order.

    Raises:
        UsageError: an unknown dtype or device, or images that do not fit the Keras
            model.
    """
    images = _check(keras_model, images, dtype, device)

    sides = _Sides(
        lambda dtype: traces.keras_outputs(keras_model, images, dtype, device),
        lambda dtype: traces.torch_outputs(torch_model, images, dtype, device),
    )
    return _judge("outputs", dtype, device, sides, torch_model)


def compare_gradients(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
) -> Report:
    """Compares the gradient of the cross-entropy by every parameter and by the input.

    Args:
        keras_model: as in `compare`.
        torch_model: as in `compare`.
        images: as in `compare`.
        labels: int (N,); None draws them.
        dtype: as in `compare`.
        device: as in `compare`.

    Returns:
        A report whose rows stand in the order of the backward pass: "loss", the last
        layer's parameters, ..., the first's, and the gradient by the input, "images".
    """
    images = _check(keras_model, images, dtype, device)
    if labels is None:
        outputs = keras_model(images, training=False).shape[-1]
        labels = probe.labels(len(images), max(2, outputs))  # one logit has two

    sides = _Sides(
        lambda dtype: traces.keras_gradients(
            keras_model, images, labels, dtype, device
        ),
        lambda dtype: traces.torch_gradients(
            torch_model, images, labels, dtype, device
        ),
    )
    return _judge("gradients", dtype, device, sides, torch_model)


def assert_parity(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
) -> Report:
    """Raises AssertionError with the whole table unless the outputs agree.

    The arguments are those of `compare`, whose report is returned.
    """
    report = compare(keras_model, torch_model, images, dtype=dtype, device=device)
    if report.verdict == "different":
        raise AssertionError(str(report))
    return report


class _Sides(NamedTuple):
    """Makes each side's trace in a dtype."""

    keras: Callable[[str], Trace]
    torch: Callable[[str], Trace]


class _Pair(NamedTuple):
    """The errors of one row: of what comes in, goes out, and is handed on."""

    keras_name: str | None
    torch_name: str | None
    before: float
    output: float
    after: float

    @property
    def error(self) -> float:
        return max(self.before, self.output, self.after)

    def where(self, bound: float) -> str:
        places = ("before", "output", "after")
        return next((x for x in places if getattr(self, x) > bound), "output")


def check_settings(dtype: str, device: str) -> None:
    """Raises UsageError for a dtype or a device that is not one of those known."""
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)


def _check(
    model: keras.Model, images: np.ndarray | None, dtype: str, device: str
) -> np.ndarray:
    check_settings(dtype, device)
    shape = input_shape(model)
    images = probe.images(shape) if images is None else np.asarray(images)
    fits = len(images.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(images.shape, shape, strict=True)
    )
    if not fits and images.shape[-1:] == shape[-1:]:
        # A network without dense layers takes other sizes than it was built for.
        with contextlib.suppress(Exception):
            model(images.astype(np.float32), training=False)
            fits = True
    if not fits:
        raise UsageError(
            f"images of shape {images.shape} do not fit model {model.name!r}, which "
            f"takes {shape}; images are NHWC"
        )
    # In float32 the float64 answer is that for the images that float32 sees.
    return images.astype(np.float32) if dtype == "float32" else images


def _judge(
    quantity: str, dtype: str, device: str, sides: _Sides, torch_model: torch.nn.Module
) -> Report:
    tolerance = TOLERANCES[quantity]
    ours, theirs = sides.keras("float64"), sides.torch("float64")
    layers = []
    for pair in _pair(ours, theirs):
        verdict = "equal" if pair.error <= tolerance else "different"
        where = pair.where(tolerance)
        error = getattr(pair, where) if verdict == "different" else pair.error
        names = (pair.keras_name, pair.torch_name)
        layers.append(LayerReport(*names, error, verdict, where))
    if dtype == "float32" and all(layer.verdict == "equal" for layer in layers):
        bounds = _rounding(quantity, sides, theirs, torch_model)
        reference = theirs
        ours, theirs = sides.keras("float32"), sides.torch("float32")
        layers = _judge_float32(ours, theirs, reference, tolerance, bounds)
    verdicts = {layer.verdict for layer in layers}
    verdict = next(v for v in ("different", "rounding", "equal") if v in verdicts)
    if quantity == "outputs":
        error = _error(ours.outputs, theirs.outputs)
    else:
        error = max(layer.error for layer in layers)
    return Report(quantity, dtype, device, error, verdict, layers)


def _rounding(
    quantity: str, sides: _Sides, reference: Trace, model: torch.nn.Module
) -> list[float]:
    """Returns, for each row, the error that float32 rounding explains."""
    scale = rounding.BACKWARD if quantity == "gradients" else 1.0
    effects = []
    for seed in range(rounding.SIMULATIONS):
        with rounding.simulated_rounding(model, seed, scale):
            disturbed = sides.torch("float64")
        effects.append([pair.error for pair in _pair(disturbed, reference)])
    largest = np.max(effects, axis=0)
    return list(rounding.LEAST + rounding.MARGIN * largest)


def _judge_float32(
    ours: Trace, theirs: Trace, reference: Trace, tolerance: float, bounds: list[float]
) -> list[LayerReport]:
    layers = []
    for pair, by_keras, by_torch, bound in zip(
        _pair(ours, theirs),
        _pair(ours, reference),
        _pair(theirs, reference),
        bounds,
        strict=True,
    ):
        worse = max(by_keras, by_torch, key=lambda side: side.error)
        if worse.error > bound:
            verdict = "different"
        else:
            verdict = "equal" if pair.error <= tolerance else "rounding"
        layers.append(
            LayerReport(
                pair.keras_name,
                pair.torch_name,
                pair.error,
                verdict,
                worse.where(bound),
                by_keras.error,
                by_torch.error,
                bound,
            )
        )
    return layers


def _pair(keras_trace: Trace, torch_trace: Trace) -> list[_Pair]:
    """Returns the errors of each row, in order; infinite without a partner."""
    order = list(keras_trace.rows)
    torch_order = list(torch_trace.rows)
    for index, key in enumerate(torch_order):
        if key not in order:
            after = torch_order[index - 1] if index else None
            order.insert(order.index(after) + 1 if after else 0, key)
    handed_on = [
        _input_error(keras_trace.rows.get(key), torch_trace.rows.get(key))
        for key in order
    ]
    handed_on.append(_error(keras_trace.outputs, torch_trace.outputs))
    pairs = []
    for index, key in enumerate(order):
        ours, theirs = keras_trace.rows.get(key), torch_trace.rows.get(key)
        names = (ours and ours.name, theirs and theirs.name)
        if ours is None or theirs is None:
            pairs.append(_Pair(*names, 0.0, math.inf, 0.0))
            continue
        before = handed_on[0] if index == 0 else 0.0
        output = _error(ours.outputs, theirs.outputs)
        pairs.append(_Pair(*names, before, output, handed_on[index + 1]))
    return pairs or [_Pair("model", "model", 0.0, handed_on[-1], 0.0)]


def _input_error(ours: Row | None, theirs: Row | None) -> float:
    return _error(ours and ours.inputs, theirs and theirs.inputs)


def _error(ours: Arrays | None, theirs: Arrays | None) -> float:
    if ours is None or theirs is None:
        return 0.0
    if len(ours) != len(theirs):
        return math.inf
    return max(map(relative_error, ours, theirs), default=0.0)

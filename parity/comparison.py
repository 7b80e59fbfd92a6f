"""Where, and by how much, a Keras and a PyTorch model differ on the same images."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import tracing as keras_tracing
from keras_impl import weights as keras_weights
from keras_impl.train import cross_entropy as keras_cross_entropy
from parity import probe
from parity.precision import keras_as, torch_as
from parity.report import LayerReport, Report
from parity.spec.errors import UsageError, unknown
from torch_impl import tracing as torch_tracing
from torch_impl.train import cross_entropy as torch_cross_entropy

# Relative L2 errors below which two float64 results are equal. Rounding in float64
# leaves 1e-16 to 1e-14 in the networks here, and the smallest bug that has been seen
# (an epsilon of 1e-7 for 1e-8) leaves more than 1e-9: any bound between tells them
# apart. Gradients and weights after many steps have been rounded more often.
TOLERANCES = {
    "outputs": 1e-10,
    "loss": 1e-10,
    "gradients": 1e-9,
    "weights": 1e-9,
}

# float32 is judged by its distance from the float64 answer. A sum of n products is off
# by about sqrt(n) units of rounding (Higham & Mary 2019, "A new approach to
# probabilistic rounding error analysis"); a network by the sum over its layers, times
# this factor for sums whose terms cancel. TF32 and bfloat16 are 2^13 and 2^16 units
# and fail by far.
FLOAT32_UNIT = 2.0**-24
CANCELLATION = 2.0


def relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    """Returns |value - reference| / |reference| in the L2 norm.

    Infinite when the shapes differ or when NaN or an infinity stands at a place in
    one array and not in the other.
    """
    value, reference = np.asarray(value, float), np.asarray(reference, float)
    if value.shape != reference.shape:
        return math.inf
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(value)):
        return math.inf
    if not np.array_equal(value[~finite], reference[~finite], equal_nan=True):
        return math.inf
    distance = np.linalg.norm(value[finite] - reference[finite])
    size = np.linalg.norm(reference[finite])
    return float(distance / size) if size > 0 else float(distance)


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
        UsageError: an unknown dtype or images that do not fit the Keras model.
    """
    images = _check(keras_model, images, dtype)

    def trace(dtype: str) -> tuple["_Trace", "_Trace"]:
        return (
            _trace_keras(keras_model, images, dtype, device),
            _trace_torch(torch_model, images, dtype, device),
        )

    return _judge("outputs", dtype, device, trace, rounding_bounds(torch_model))


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
    images = _check(keras_model, images, dtype)
    if labels is None:
        num_classes = keras_model(images, training=False).shape[-1]
        labels = probe.labels(len(images), num_classes)

    def trace(dtype: str) -> tuple["_Trace", "_Trace"]:
        return (
            _keras_gradients(keras_model, images, labels, dtype, device),
            _torch_gradients(torch_model, images, labels, dtype, device),
        )

    # The backward pass rounds as often as the forward pass, on top of it, twice.
    total = 3 * max(rounding_bounds(torch_model).values(), default=0.0)
    bounds = {
        name: total for name in ["loss", *_parameter_names(torch_model), "images"]
    }
    return _judge("gradients", dtype, device, trace, bounds)


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


class _Row(NamedTuple):
    """A layer's tensors, in PyTorch's layout and in float64."""

    name: str
    inputs: np.ndarray | None
    output: np.ndarray


class _Trace(NamedTuple):
    """All rows by name and count of calls, and what comes out of the last."""

    rows: dict[tuple[str, int], _Row]
    output: np.ndarray | None = None


def _check(model: keras.Model, images: np.ndarray | None, dtype: str) -> np.ndarray:
    if dtype not in ("float64", "float32"):
        raise unknown("dtype", dtype, ["float64", "float32"])
    shape = keras_tracing.input_shape(model)
    images = probe.images(shape) if images is None else np.asarray(images)
    fits = len(images.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(images.shape, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"images of shape {images.shape} do not fit model {model.name!r}, which "
            f"takes {shape}; images are NHWC"
        )
    return images


def _keyed(rows: list[_Row]) -> dict[tuple[str, int], _Row]:
    keyed = {}
    for row in rows:
        count = sum(name == row.name for name, _ in keyed)
        keyed[row.name, count] = row
    return keyed


def _trace_keras(
    model: keras.Model, images: np.ndarray, dtype: str, device: str
) -> _Trace:
    with (
        keras_as(model, dtype, device) as cast_model,
        keras_tracing.record_calls(cast_model) as calls,
    ):
        output = cast_model(tf.constant(images, dtype), training=False)
    maps = keras_tracing.flattened_maps(calls)
    rows = [
        _Row(
            call.name, _channels_first(call.inputs, x), _channels_first(call.output, y)
        )
        for call, (x, y) in zip(calls, maps, strict=True)
    ]
    return _Trace(_keyed(rows), _channels_first(output, None))


def _channels_first(tensor: tf.Tensor, flattened: tuple | None) -> np.ndarray:
    array = np.asarray(tensor, float)
    if flattened:
        maps = array.reshape(-1, *flattened)
        return np.moveaxis(maps, 3, 1).reshape(array.shape)
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def _trace_torch(
    model: torch.nn.Module, images: np.ndarray, dtype: str, device: str
) -> _Trace:
    with (
        torch_as(model, dtype, device) as cast_model,
        torch_tracing.record_calls(cast_model) as calls,
        torch.no_grad(),
    ):
        output = cast_model.eval()(_torch_images(images, cast_model, dtype))
    rows = [_Row(c.name, _to_numpy(c.inputs), _to_numpy(c.output)) for c in calls]
    return _Trace(_keyed(rows), _to_numpy(output))


def _torch_images(
    images: np.ndarray, model: torch.nn.Module, dtype: str
) -> torch.Tensor:
    parameter = next(model.parameters(), torch.empty(0))
    tensor = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    return tensor.to(parameter.device, getattr(torch, dtype))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _keras_gradients(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    device: str,
) -> _Trace:
    weights = keras_weights.named_weights(model)
    weights = [weight for weight in weights if weight.variable.trainable]
    with keras_as(model, dtype, device) as cast_model:
        tensor = tf.constant(images, dtype)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            loss = keras_cross_entropy(cast_model(tensor, training=False), labels)
        variables = [weight.variable for weight in weights]
        *gradients, by_images = tape.gradient(loss, [*variables, tensor])
    rows = [
        _Row(
            weight.layout.name,
            None,
            weight.layout.to_torch(_or_nan(gradient, weight.variable.shape)),
        )
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    by_images = np.moveaxis(_or_nan(by_images, images.shape), -1, 1)
    loss = _Row("loss", None, np.asarray(loss, float))
    return _Trace(_keyed([loss, *reversed(rows), _Row("images", None, by_images)]))


def _torch_gradients(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    device: str,
) -> _Trace:
    with torch_as(model, dtype, device) as cast_model:
        tensor = _torch_images(images, cast_model, dtype).requires_grad_()
        target = torch.from_numpy(labels).to(tensor.device)
        loss = torch_cross_entropy(cast_model.eval()(tensor), target)
        names, parameters = zip(*cast_model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, [*parameters, tensor], allow_unused=True)
    shapes = [*(p.shape for p in parameters), tensor.shape]
    rows = [
        _Row(name, None, _or_nan(None if g is None else _to_numpy(g), shape))
        for name, g, shape in zip([*names, "images"], gradients, shapes, strict=True)
    ]
    loss = _Row("loss", None, _to_numpy(loss))
    return _Trace(_keyed([loss, *reversed(rows[:-1]), rows[-1]]))


def _or_nan(gradient: object, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a gradient, or NaN where the loss does not depend on the tensor."""
    if gradient is None:
        return np.full(tuple(shape), np.nan)
    return np.asarray(gradient, float)


def _parameter_names(model: torch.nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def rounding_bounds(model: torch.nn.Module) -> dict[str, float]:
    """Returns what float32 rounding explains at each layer's output, by layer name."""
    bounds = {}
    total = 0.0
    for name, module in torch_tracing.leaf_layers(model).items():
        weight = getattr(module, "weight", None)
        terms = math.prod(weight.shape[1:]) if isinstance(weight, torch.Tensor) else 1
        total += math.sqrt(terms)
        bounds[name] = CANCELLATION * FLOAT32_UNIT * total
    return bounds


def _judge(
    quantity: str,
    dtype: str,
    device: str,
    trace: Callable[[str], tuple[_Trace, _Trace]],
    bounds: dict[str, float],
) -> Report:
    tolerance = TOLERANCES[quantity]
    exact = _pair(*trace("float64"), tolerance)
    layers = []
    for keras_name, torch_name, error, where in exact:
        verdict = "equal" if error <= tolerance else "different"
        layers.append(LayerReport(keras_name, torch_name, error, verdict, where))
    if dtype == "float32" and all(x.verdict == "equal" for x in layers):
        layers = _judge_float32(tolerance, trace, bounds)
    verdicts = {layer.verdict for layer in layers}
    verdict = next(v for v in ("different", "rounding", "equal") if v in verdicts)
    errors = [layer.error for layer in layers]
    error = errors[-1] if quantity == "outputs" else max(errors)
    return Report(quantity, dtype, device, error, verdict, layers)


def _judge_float32(
    tolerance: float,
    trace: Callable[[str], tuple[_Trace, _Trace]],
    bounds: dict[str, float],
) -> list[LayerReport]:
    _, reference = trace("float64")
    keras_trace, torch_trace = trace("float32")
    layers = []
    for sides in zip(
        _pair(keras_trace, torch_trace, tolerance),
        _pair(keras_trace, reference, tolerance),
        _pair(torch_trace, reference, tolerance),
        strict=True,
    ):
        (keras_name, torch_name, error, where), (*_, by_keras, _), (*_, by_torch, _) = (
            sides
        )
        bound = bounds[torch_name]
        if error <= tolerance:
            verdict = "equal"
        else:
            verdict = "rounding" if max(by_keras, by_torch) <= bound else "different"
        layers.append(
            LayerReport(
                keras_name, torch_name, error, verdict, where, by_keras, by_torch, bound
            )
        )
    return layers


def _pair(
    keras_trace: _Trace, torch_trace: _Trace, tolerance: float
) -> list[tuple[str | None, str | None, float, str]]:
    """Returns (Keras name, PyTorch name, error, where) of each row, in order."""
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
    handed_on.append(_error(keras_trace.output, torch_trace.output))
    pairs = []
    for index, key in enumerate(order):
        ours, theirs = keras_trace.rows.get(key), torch_trace.rows.get(key)
        if ours is None or theirs is None:
            names = (ours and ours.name, theirs and theirs.name)
            pairs.append((*names, math.inf, "output"))
            continue
        before = handed_on[0] if index == 0 else 0.0
        output = relative_error(ours.output, theirs.output)
        after = handed_on[index + 1]
        if before > tolerance:
            pairs.append((ours.name, theirs.name, before, "before"))
        elif after > tolerance >= output:
            pairs.append((ours.name, theirs.name, after, "after"))
        else:
            pairs.append((ours.name, theirs.name, output, "output"))
    return pairs


def _input_error(ours: _Row | None, theirs: _Row | None) -> float:
    return _error(ours and ours.inputs, theirs and theirs.inputs)


def _error(ours: np.ndarray | None, theirs: np.ndarray | None) -> float:
    return 0.0 if ours is None or theirs is None else relative_error(ours, theirs)

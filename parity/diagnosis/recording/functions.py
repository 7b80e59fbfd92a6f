"""Puts one step for several that compute a known function of each number.

Which function it is, is told from its values.
"""

import math

import numpy as np

from parity.frameworks import torch
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Graph, Step, Tensor
from parity.spec.tolerances import ROUNDED, TOLERANCES, relative_error

# Operations on each number apart, by either framework's name.
ELEMENTWISE = {
    "Erf", "Erfc", "Neg", "Pow", "Sqrt", "Rsqrt", "Log", "Log1p", "Expm1", "Reciprocal",
    "Maximum", "Minimum", "RealDiv", "SelectV2", "Select", "Greater", "GreaterEqual",
    "Less", "Sub", "Mul", "AddV2", "ClipByValue", "Sign", "Inv", "LogicalAnd",
    "erf", "erfc", "neg", "__neg__", "pow", "__pow__", "sqrt", "rsqrt", "log", "log1p",
    "expm1", "reciprocal", "clamp", "clamp_", "clamp_min", "clamp_max", "where", "gt",
    "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__", "maximum", "minimum",
    "div", "__truediv__", "__rtruediv__", "__rpow__", "negative", "sign", "logsigmoid",
    "celu", "threshold", "hardtanh", "softplus", "hardshrink", "softshrink", "sub",
    "mul", "add", "max", "min", "float", "activation", "__rsub__",
    "__mul__", "__rmul__", "__add__",
}  # fmt: skip


def difference(value: Tensor, reference: Tensor) -> float:
    """Returns the relative L2 error between two values of one size."""
    size = float(reference.norm())
    error = float((value - reference).norm()) / size if size else math.nan
    if math.isfinite(error):
        return error
    # Numbers whose squares are none are made smaller, NaN and infinities compared.
    finite = reference[torch.isfinite(reference)].abs()
    scale = max(1.0, float(finite.max()) if len(finite) else 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        error = relative_error((value / scale).numpy(), (reference / scale).numpy())
    return math.inf if math.isnan(error) else error


def name_functions(graph: Graph) -> None:
    """Puts one step for several that compute a known function of each number."""
    roots: dict[int, int] = {}
    for step in graph.steps:
        if not _is_elementwise(graph, step):
            continue
        sources = {roots.get(number, number) for number in step.inputs}
        if len(sources) == 1:
            roots[step.output] = sources.pop()
    done: set[int] = set()
    for step in reversed(list(graph.steps)):
        if step.output in done or step.output not in roots or step not in graph.steps:
            continue
        for root, region in _regions(graph, step, roots):
            read = _read_region(graph, step, root, region)
            if read is not None:
                done.update(s.output for s in region)
                _replace(graph, step, root, region, *read)
                break


def _regions(graph: Graph, last: Step, roots: dict[int, int]):
    """Yields the values that a step depends on alone, and the steps between."""
    whole = _region(graph, last, roots[last.output])
    starts = [roots[last.output], *(s.output for s in whole[:-1])]
    for root in reversed(starts):  # the nearest first
        region = _region(graph, last, root, whole)
        if region:
            yield root, region


def _read_region(graph: Graph, step: Step, root: int, region: list[Step]):
    known = all(s.kind in ("activation", "scale") for s in region)
    if known and (len(region) == 1 or any(s.is_layer for s in region)):
        return None
    if graph.used_outside(region, step):
        return None
    made = graph.values[step.output]
    return classify(graph.values[root].reshape(made.shape), made)


def _replace(graph, step, root, region, kind, parameters) -> None:
    named = next((s for s in reversed(region) if s.is_layer), region[0])
    new = Step(
        kind,
        named.name,
        parameters.get("function", kind),
        [root],
        step.output,
        parameters,
        is_layer=named.is_layer,
        shapes=[graph.shapes[step.output]],
    )
    graph.steps[graph.steps.index(step)] = new
    for other in region:
        if other is not step:
            graph.steps.remove(other)
    if kind == "identity":
        remove(graph, new)


def _is_elementwise(graph: Graph, step: Step) -> bool:
    shape = graph.shapes[step.output]
    if any(given != shape for given in step.shapes):
        return False
    if step.kind in ("activation", "scale"):
        return True
    if step.kind == "merge":
        return step.parameters["mode"] != "concatenate"
    return step.kind == "opaque" and step.operation in ELEMENTWISE


def _region(graph: Graph, last: Step, root: int, inside=None) -> list[Step]:
    """Returns the steps from a value to a step, none if others lead there too."""
    producers = graph.producers()
    found, waiting = [], [last]
    while waiting:
        step = waiting.pop()
        if step in found:
            continue
        if step is None or (inside is not None and step not in inside):
            return []
        found.append(step)
        waiting += [producers.get(n) for n in step.inputs if n != root]
    return [step for step in graph.steps if step in found]


def classify(x: Tensor, y: Tensor) -> tuple[str, dict[str, object]] | None:
    """Returns the elementwise function that takes x to y, by its values; or None.

    Args:
        x: a value.
        y: another of the same shape.

    Returns:
        The kind and parameters of `operations.py`.
    """
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        return None
    tolerance = TOLERANCES["outputs"]
    if difference(y, x) <= tolerance:
        return "identity", {}
    for name, function in operations.FUNCTIONS.items():
        if difference(function(x), y) <= ROUNDED["constants"]:
            return "activation", {"function": name}
    for axis in range(1, x.dim()):
        for log in (False, True):
            made = operations.run("softmax", {"axis": axis, "log": log}, [x])
            if x.shape[axis] > 1 and difference(made, y) <= ROUNDED["constants"]:
                return "softmax", {"axis": axis, "log": log}
    negative = x < -1e-3 * x.abs().max()
    if bool(negative.any()):
        slope = float((y[negative] / x[negative]).median())
        alpha = float((y[negative] / torch.expm1(x[negative])).median())
        for name, value in (("leaky_relu", slope), ("elu", alpha)):
            made = operations.FUNCTIONS_OF_ONE[name](x, value)
            if difference(made, y) <= tolerance and value != 1:
                return "activation", {"function": name, "slope": _rounded(value)}
    return _affine(x, y, tolerance)


def _affine(x: Tensor, y: Tensor, tolerance: float):
    """Returns the product and sum that take x to y, for all or for each channel."""
    whole = fit_line(x.flatten()[None], y.flatten()[None])
    if whole is not None:
        scale, shift = (vector.reshape(()) for vector in whole)
        if difference(x * scale + shift, y) <= tolerance:
            return "scale", {"scale": scale, "shift": shift}
    if x.dim() < 2:
        return None
    by_channel = fit_line(x.movedim(1, 0).flatten(1), y.movedim(1, 0).flatten(1))
    if by_channel is None:
        return None
    parameters = dict(zip(("scale", "shift"), by_channel, strict=True))
    made = operations.run("scale", parameters, [x])
    return ("scale", parameters) if difference(made, y) <= tolerance else None


def fit_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the slope and the intercept of each row's least-squares line."""
    centre, centre_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    spread = (x - centre).square().sum(1)
    if x.shape[1] < 3 or not bool((spread > 0).all()):
        return None
    slope = ((x - centre) * (y - centre_y)).sum(1) / spread
    return slope, centre_y[:, 0] - slope * centre[:, 0]


def _rounded(value: float) -> float:
    """Returns a recovered number without the digits that rounding put there."""
    return float(f"{value:.9g}")


def remove(graph: Graph, step: Step) -> None:
    """Takes out a step that hands on what it is given."""
    graph.steps.remove(step)
    old, new = step.output, step.inputs[0]
    for other in graph.steps:
        other.inputs = [new if number == old else number for number in other.inputs]
    graph.outputs = [new if number == old else number for number in graph.outputs]

"""Where each number of a step's weight stands in the model's own.

A reader turns, cuts and flattens a weight on its way from the model to a step. Rather
than to undo that, each model is recorded once more with numbers that are all different,
in copies: what a step then holds says where it came from.
"""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from parity.frameworks import keras, torch
from parity.diagnosis.recording import keras_graph, torch_graph
from parity.diagnosis.recording.attention import split_name
from parity.diagnosis.recording.graph import Graph, Step, Tensor
from parity.diagnosis.recording.simplify import simplify
from parity.precision import keras_as, torch_as, untouched_state

# By a weight's name, which of its numbers each use of it holds, in execution order;
# None where a use holds what was computed of them.
Places = dict[str, list[np.ndarray | None]]


def keras_places(model: keras.Model, images: np.ndarray) -> Places:
    """Returns, by a weight's name, which numbers of the variable each use holds.

    Args:
        model: built.
        images: NHWC.
    """
    with keras_as(model, "float64", "cpu") as cast:
        variables = {
            name: variable
            for name, variable in keras_graph.variables_of(cast).items()
            if keras.backend.is_float_dtype(variable.dtype)
        }
        numbers = _numbers({n: tuple(v.shape) for n, v in variables.items()}, -1)
        for name, variable in variables.items():
            variable.assign(numbers[name])
        graph = keras_graph.record(cast, images)
    return _places(graph, numbers)


def torch_places(model: torch.nn.Module, images: np.ndarray) -> Places:
    """Returns, by a weight's name, which numbers of the parameter each use holds.

    Args:
        model: any module.
        images: NCHW.
    """
    with torch_as(model, "float64", "cpu") as cast, untouched_state():
        cast.eval()
        tensors = dict([*cast.named_parameters(), *cast.named_buffers()])
        tensors = {n: t for n, t in tensors.items() if t.is_floating_point()}
        numbers = _numbers({n: tuple(t.shape) for n, t in tensors.items()}, 0)
        for name, tensor in tensors.items():
            tensor.data.copy_(torch.from_numpy(numbers[name]))
        graph = torch_graph.record(cast, torch.from_numpy(images))
    return _places(graph, numbers)


def _numbers(shapes: dict[str, tuple[int, ...]], outputs: int) -> dict:
    """Returns weights whose numbers are all different, and make no output large.

    Args:
        shapes: of the weights.
        outputs: the axis of a weight's outputs.
    """
    total = sum(map(math.prod, shapes.values()))
    found, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        inputs = size // max(shape[outputs], 1) if len(shape) > 1 else 1
        values = 0.5 + np.arange(start, start + size).reshape(shape) / total
        found[name] = values / max(inputs, 1)
        start += size
    return found


def _places(graph: Graph, numbers: dict[str, np.ndarray]) -> Places:
    simplify(graph)
    found: Places = {}
    for step, key, name in uses(graph):
        base, _ = split_name(name)
        places = None
        if base in numbers:
            weight = step.parameters[key].numpy().ravel()
            places = _indices(weight, numbers[base].ravel())
        found.setdefault(name, []).append(places)
    return found


def uses(graph: Graph) -> Iterator[tuple[Step, str, str]]:
    """Yields (step, parameter, weight's name) of each use of a weight."""
    for step in graph.steps:
        for key, name in step.weights.items():
            if isinstance(step.parameters.get(key), Tensor):
                yield step, key, name


def at(graph: Graph, places: Places) -> dict[tuple[int, str], np.ndarray]:
    """Returns the places by (id of a step, parameter), of another run of a model."""
    found, counts = {}, Counter()
    total = Counter(name for _, _, name in uses(graph))
    for step, key, name in uses(graph):
        known = places.get(name, [])
        if len(known) == total[name] and known[counts[name]] is not None:
            found[id(step), key] = known[counts[name]]
        counts[name] += 1
    return found


def _indices(values: np.ndarray, numbers: np.ndarray) -> np.ndarray | None:
    """Returns where values stand among even steps, None where one does not."""
    last = len(numbers) - 1
    step = (numbers[-1] - numbers[0]) / max(last, 1) or 1.0
    with np.errstate(invalid="ignore"):
        places = np.rint((values - numbers[0]) / step).clip(0, last)
    places = np.nan_to_num(places).astype(np.int64)
    return places if np.array_equal(numbers[places], values) else None

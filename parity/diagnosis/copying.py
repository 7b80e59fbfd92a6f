"""Copies weights between any two models, along the alignment of their steps."""

import math
from collections import Counter
from functools import partial

import numpy as np

from parity.frameworks import keras, torch
from keras_impl.tracing import input_shape
from parity import probe
from parity.diagnosis.case import Case, record
from parity.diagnosis.recording import keras_graph, operations
from parity.diagnosis.recording.attention import split_name
from parity.diagnosis.recording.graph import Step, Tensor
from parity.diagnosis.training.trainings import Pair
from parity.spec.errors import WeightMismatch
from parity.spec.layouts import listed
from torch_impl.weights import COUNTER

Model = keras.Model | torch.nn.Module


def copy_aligned(
    source: Model, target: Model, images: np.ndarray | None = None
) -> list[tuple[str, str]]:
    """Copies every weight of one model into one of the other framework.

    Unlike `parity.copy_weights` it asks for no names: the layers are aligned by what
    the two models do with images.

    Args:
        source: a built Keras model or a PyTorch module.
        target: the other.
        images: NHWC, to align by; None draws some for the Keras model.

    Returns:
        (Keras's name, PyTorch's name) of each tensor.

    Raises:
        WeightMismatch: a tensor of either side found no partner, or one of another
            size; lists them, and the target is as it was.
        TypeError: the two are not one Keras model and one PyTorch module.
        UsageError: a model that cannot be called on the images.
    """
    to_torch = isinstance(source, keras.Model) and isinstance(target, torch.nn.Module)
    to_keras = isinstance(source, torch.nn.Module) and isinstance(target, keras.Model)
    if not (to_torch or to_keras):
        raise TypeError(
            "one model must be a keras.Model and the other a torch.nn.Module, not "
            f"{type(source).__name__} and {type(target).__name__}"
        )
    keras_model, torch_model = (source, target) if to_torch else (target, source)
    if images is None:
        images = probe.images(input_shape(keras_model))
    images = np.asarray(images, np.float64)
    case = record(keras_model, torch_model, images, None, "as_is")
    found = _named_pairs(case, keras_model, torch_model, True)
    _check(found, keras_model, torch_model)
    arrays = {} if to_torch else _for_keras(found)
    with torch.no_grad():
        for name, _, pair in found:
            if to_torch:
                array = pair.to_torch(pair.variable.numpy())
                pair.parameter.copy_(torch.from_numpy(np.array(array)))
            else:
                pair.variable.assign(arrays[name])
    return [(ours, theirs) for ours, theirs, _ in found]


def _for_keras(found: list) -> dict[str, np.ndarray]:
    """Returns what each of Keras's variables is given, if that is one tensor."""
    arrays: dict[str, np.ndarray] = {}
    for name, other, pair in found:
        array = _to_keras(pair)
        if not np.array_equal(arrays.setdefault(name, array), array):
            raise WeightMismatch(
                f"{name} is one weight in Keras and several in PyTorch, which differ: "
                f"{other} is one of them"
            )
    return arrays


def _to_keras(pair: Pair) -> np.ndarray:
    """Returns PyTorch's tensor in Keras's layout: the way there, taken backwards."""
    shape = tuple(pair.variable.shape)
    places = np.arange(math.prod(shape)).reshape(shape)
    array = np.empty(math.prod(shape))
    array[pair.to_torch(places).ravel()] = pair.parameter.detach().cpu().numpy().ravel()
    return array.reshape(shape)


def _check(found: list, keras_model: keras.Model, torch_model) -> None:
    ours = {
        name: tuple(variable.shape)
        for name, variable in keras_graph.variables_of(keras_model).items()
        if keras.backend.is_float_dtype(variable.dtype)
    }
    theirs = {
        name: tuple(tensor.shape)
        for name, tensor in torch_model.state_dict().items()
        if name.rpartition(".")[2] != COUNTER
    }
    problems = []
    placed = (
        _whole([name for name, _, _ in found], ours, -1),
        _whole([name for _, name, _ in found], theirs, 0),
    )
    for side, weights, names in (
        ("Keras", ours, placed[0]),
        ("PyTorch", theirs, placed[1]),
    ):
        problems += [
            f"{name} {shape} of {side} has no partner"
            for name, shape in weights.items()
            if name not in names
        ]
    problems += [
        f"{name} {tuple(pair.variable.shape)} does not fit {other} "
        f"{tuple(pair.parameter.shape)}"
        for name, other, pair in found
        if math.prod(pair.variable.shape) != pair.parameter.numel()
    ]
    if problems:
        raise WeightMismatch(listed(problems))


def _whole(names: list[str], shapes: dict[str, tuple], axis: int) -> set[str]:
    """Returns the weights that were placed, those in parts if all of these were."""
    sizes = Counter()
    for name in names:
        base, part = split_name(name)
        sizes[base] += shapes[base][axis] if part is None else part.stop - part.start
    return {base for base, size in sizes.items() if size >= shapes[base][axis]}


class _Part:
    """The part of a Keras variable that makes some of a layer's outputs."""

    def __init__(self, variable: keras.Variable, outputs: slice):
        self.variable, self.outputs = variable, outputs
        self.trainable = variable.trainable
        self.shape = self.numpy().shape

    def numpy(self) -> np.ndarray:
        """Returns the part."""
        return self.variable.numpy()[..., self.outputs]

    def assign(self, array: np.ndarray) -> None:
        """Exchanges the part for an array of its shape."""
        whole = np.array(self.variable.numpy())
        whole[..., self.outputs] = array
        self.variable.assign(whole)


def parameter_pairs(case: Case, keras_model, torch_model) -> list[Pair]:
    """Returns the parameters of partners, with the way from one layout to the other."""
    found = _named_pairs(case, keras_model, torch_model, False)
    return [pair for *names, pair in found if not _in_parts(names)]


def part_pairs(case: Case, keras_model, torch_model) -> list[Pair]:
    """Returns the partners that are parts of a parameter: no optimizer knows those."""
    found = _named_pairs(case, keras_model, torch_model, False)
    return [pair for *names, pair in found if _in_parts(names)]


def _in_parts(names: list[str]) -> bool:
    return any(split_name(name)[1] is not None for name in names)


def _named_pairs(case: Case, keras_model, torch_model, buffers: bool) -> list:
    """Returns (Keras's name, PyTorch's name, pair) of each weight of partners."""
    ours = keras_graph.variables_of(keras_model)
    theirs = dict(torch_model.named_parameters())
    if buffers:
        theirs |= dict(torch_model.named_buffers())
    pairs, seen = [], set()
    for k, t in case.pairs:
        if k.kind != t.kind:
            continue
        for name in operations.TENSORS.get(k.kind, ()):
            own, other = k.weights.get(name), t.weights.get(name)
            if own is None or other is None or other in seen:
                continue
            (base, outputs), (torch_base, rows) = split_name(own), split_name(other)
            variable, parameter = ours.get(base), theirs.get(torch_base)
            if variable is None or parameter is None:
                continue
            variable = _Part(variable, outputs) if outputs else variable
            parameter = parameter[rows] if rows else parameter
            seen.add(other)
            to_torch = partial(_to_torch, k, t, name, tuple(parameter.shape))
            pair = Pair(variable, parameter, to_torch, k.name, t.name)
            pairs.append((own, other, pair))
    return pairs


def _to_torch(
    k: Step, t: Step, name: str, shape: tuple[int, ...], array: np.ndarray
) -> np.ndarray:
    """Returns a Keras array as the partner's parameter."""
    tensor = torch.from_numpy(np.array(array))
    if name == "bias":
        return tensor.reshape(shape).numpy()
    if k.kind in ("join", "scale") and 2 < tensor.dim() == len(k.view.axes):
        tensor = t.view.array(k.view.value(tensor))
    elif k.kind == "dense" and tensor.dim() == 3:  # heads
        into = math.prod(tensor.shape[1:]) == len(t.parameters["weight"])
        tensor = tensor.flatten(1) if into else tensor.flatten(0, 1)
        tensor = tensor.T
    elif tensor.dim() == 4:
        depthwise = "Depthwise" in k.operation
        tensor = tensor.permute(*((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
    elif tensor.dim() == 2 and k.kind in ("dense", "conv"):
        tensor = tensor.T
        tensor = k.view.value(tensor) if _reorders(k, tensor) else tensor
    if k.kind == "dense":
        tensor = tensor.reshape(len(tensor), -1)
        tensor = t.view.array(tensor) if _reorders(t, tensor) else tensor
    return tensor.reshape(shape).contiguous().numpy()


def _reorders(step: Step, weight: Tensor) -> bool:
    """Returns whether a dense step's framework orders a flattened map otherwise."""
    view = step.view
    return bool(view.flattened_order) and math.prod(view.pixels) == weight.shape[1]

"""Copies weights between any two models, along the alignment of their steps."""

import math
from functools import partial

import numpy as np

from parity.frameworks import keras, torch
from keras_impl.tracing import input_shape
from parity import probe
from parity.diagnosis.case import Case, record
from parity.diagnosis.recording import keras_graph, operations
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
        for _, _, pair in found:
            if to_torch:
                array = pair.to_torch(pair.variable.numpy())
                pair.parameter.copy_(torch.from_numpy(np.array(array)))
            else:
                pair.variable.assign(arrays[id(pair.variable)])
    return [(ours, theirs) for ours, theirs, _ in found]


def _for_keras(found: list) -> dict[int, np.ndarray]:
    """Returns what each of Keras's variables is given, if that is one tensor."""
    arrays: dict[int, np.ndarray] = {}
    for name, other, pair in found:
        array = _to_keras(pair)
        if not np.array_equal(arrays.setdefault(id(pair.variable), array), array):
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
    placed = {name for name, _, _ in found}, {name for _, name, _ in found}
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
        f"{name} {ours[name]} does not fit {other} {theirs[other]}"
        for name, other, _ in found
        if math.prod(ours[name]) != math.prod(theirs[other])
    ]
    if problems:
        raise WeightMismatch(listed(problems))


def parameter_pairs(case: Case, keras_model, torch_model) -> list[Pair]:
    """Returns the parameters of partners, with the way from one layout to the other."""
    return [pair for _, _, pair in _named_pairs(case, keras_model, torch_model, False)]


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
            variable = ours.get(k.weights.get(name))
            parameter = theirs.get(t.weights.get(name))
            if variable is None or parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            to_torch = partial(_to_torch, k, t, tuple(parameter.shape))
            pair = Pair(variable, parameter, to_torch, k.name, t.name)
            pairs.append((k.weights[name], t.weights[name], pair))
    return pairs


def _to_torch(k: Step, t: Step, shape: tuple[int, ...], array: np.ndarray):
    """Returns a Keras array as the partner's parameter."""
    tensor = torch.from_numpy(np.array(array))
    if tensor.dim() == 4:
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

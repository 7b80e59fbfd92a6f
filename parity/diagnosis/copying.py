"""Copies weights between any two models, along the alignment of their steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.frameworks import keras, torch
from keras_impl.tracing import input_shape
from parity import probe
from parity.diagnosis.case import Case, record
from parity.diagnosis.places import at, keras_places, torch_places
from parity.diagnosis.recording import keras_graph, operations
from parity.diagnosis.recording.attention import split_name
from parity.diagnosis.recording.graph import Step
from parity.diagnosis.training.trainings import Pair
from parity.spec.errors import WeightMismatch
from parity.spec.layouts import listed
from torch_impl.weights import COUNTER

Model = keras.Model | torch.nn.Module


@dataclass(frozen=True)
class Partners:
    """A weight, or a part of one, on both sides.

    Attributes:
        keras_weight: its name; that of a part ends in the outputs, "[16:32]".
        torch_weight: likewise.
        variable: the whole weight in Keras.
        parameter: the whole parameter or buffer in PyTorch.
        ours: which numbers of the variable these are.
        theirs: which of the parameter, in the same order.
        keras_name: attribute path of the layer.
        torch_name: likewise.
        fits: whether the steps take them in one shape, but for axes of size 1.
    """

    keras_weight: str
    torch_weight: str
    variable: keras.Variable
    parameter: torch.Tensor
    ours: np.ndarray
    theirs: np.ndarray
    keras_name: str
    torch_name: str
    fits: bool

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of the variable's shape as one of the parameter's."""
        made = np.empty(tuple(self.parameter.shape), np.asarray(array).dtype)
        made.reshape(-1)[self.theirs] = np.ravel(array)[self.ours]
        return made

    @property
    def is_whole(self) -> bool:
        """Whether these are all numbers of either weight."""
        sizes = np.prod(self.variable.shape, dtype=int), self.parameter.numel()
        return (len(self.ours), len(self.theirs)) == sizes


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
    case = record(keras_model, torch_model, images, None, "copy")  # as it is to be
    found = list(_partners(case, keras_model, torch_model, images))
    ours, theirs = _weights(keras_model, torch_model)
    saved = torch_model.state_dict()
    _check(found, ours, {n: tensor for n, tensor in theirs.items() if n in saved})
    arrays = _arrays(found, to_torch)
    with torch.no_grad():
        for name, array in arrays.items():
            if to_torch:
                theirs[name].copy_(torch.from_numpy(array))
            else:
                ours[name].assign(array)
    names = [(partners.keras_weight, partners.torch_weight) for partners in found]
    return list(dict.fromkeys(names))


def _weights(keras_model: keras.Model, torch_model: torch.nn.Module) -> tuple:
    """Returns both sides' weights by name."""
    ours = {
        name: variable
        for name, variable in keras_graph.variables_of(keras_model).items()
        if keras.backend.is_float_dtype(variable.dtype)
    }
    theirs = dict([*torch_model.named_parameters(), *torch_model.named_buffers()])
    return ours, {n: t for n, t in theirs.items() if n.rpartition(".")[2] != COUNTER}


def _arrays(found: list[Partners], to_torch: bool) -> dict[str, np.ndarray]:
    """Returns what each weight of the target is given, in its shape.

    Raises:
        WeightMismatch: one weight is given two values.
    """
    arrays: dict[str, np.ndarray] = {}
    for partners in found:
        own = partners.variable.numpy(), partners.parameter.detach().cpu().numpy()
        places, names = (
            (partners.ours, partners.theirs),
            (partners.keras_weight, partners.torch_weight),
        )
        source, target = (0, 1) if to_torch else (1, 0)
        name, _ = split_name(names[target])
        values = own[source].ravel()[places[source]]
        array = arrays.setdefault(name, np.full(own[target].shape, np.nan)).reshape(-1)
        before = array[places[target]]
        if not np.array_equal(np.where(np.isnan(before), values, before), values):
            sides = ("PyTorch", "Keras") if to_torch else ("Keras", "PyTorch")
            raise WeightMismatch(
                f"{names[target]} is one weight in {sides[0]} and several in "
                f"{sides[1]}, which differ: {names[source]} is one of them"
            )
        array[places[target]] = values
    return arrays


def _check(found: list[Partners], ours: dict, theirs: dict) -> None:
    """Raises an error that lists each weight that is not placed whole."""
    placed = {
        (side, name): np.zeros(np.prod(weight.shape, dtype=int), bool)
        for side, weights in (("Keras", ours), ("PyTorch", theirs))
        for name, weight in weights.items()
    }
    problems = []
    for partners in found:
        if not partners.fits:
            problems.append(
                f"{partners.keras_weight} {tuple(partners.variable.shape)} does not "
                f"fit {partners.torch_weight} {tuple(partners.parameter.shape)}"
            )
        for side, name, places in (
            ("Keras", partners.keras_weight, partners.ours),
            ("PyTorch", partners.torch_weight, partners.theirs),
        ):
            if (side, split_name(name)[0]) in placed:
                placed[side, split_name(name)[0]][places] = True
    missing = [
        f"{name} {tuple(weight.shape)} of {side} has no partner"
        for side, weights in (("Keras", ours), ("PyTorch", theirs))
        for name, weight in weights.items()
        if not placed[side, name].all()
    ]
    if missing or problems:
        raise WeightMismatch(listed([*missing, *problems]))


def parameter_pairs(
    case: Case, keras_model: keras.Model, torch_model: torch.nn.Module, images
) -> tuple[list[Pair], list[Pair]]:
    """Returns the parameters that are partners, and those of which only parts are.

    Args:
        case: both sides' steps.
        keras_model: that of the one.
        torch_model: that of the other.
        images: NHWC.
    """
    whole, parts = [], []
    waiting = {name for name, _ in torch_model.named_parameters()}
    for partners in _partners(case, keras_model, torch_model, images):
        base, _ = split_name(partners.torch_weight)
        if base not in waiting or not partners.fits:
            continue
        if partners.is_whole:
            waiting.remove(partners.torch_weight)
        pair = Pair(
            partners.variable,
            partners.parameter,
            partners.to_torch,
            partners.keras_name,
            partners.torch_name,
        )
        (whole if partners.is_whole else parts).append(pair)
    return whole, parts


def _partners(case: Case, keras_model, torch_model, images) -> Iterator[Partners]:
    """Yields the weights of steps that are partners, for each use of them."""
    ours, theirs = _weights(keras_model, torch_model)
    keras_at = at(case.keras, keras_places(keras_model, images))
    natural = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
    given = np.ascontiguousarray(natural, np.float64)
    torch_at = at(case.torch, torch_places(torch_model, given))
    for k, t in case.pairs:
        if k.kind != t.kind:
            continue
        for name in operations.TENSORS.get(k.kind, ()):
            own, other = k.weights.get(name), t.weights.get(name)
            if (id(k), name) not in keras_at or (id(t), name) not in torch_at:
                continue
            yield Partners(
                own,
                other,
                ours[split_name(own)[0]],
                theirs[split_name(other)[0]],
                keras_at[id(k), name],
                torch_at[id(t), name],
                k.name,
                t.name,
                _fits(k, t, name),
            )


def _fits(k: Step, t: Step, name: str) -> bool:
    """Returns whether two steps take a weight in one shape, but for axes of size 1."""
    ours, theirs = (tuple(step.parameters[name].shape) for step in (k, t))
    if len(ours) == len(theirs) == 4 and k.kind in ("conv", "conv_transpose"):
        return ours == theirs
    return [x for x in ours if x > 1] == [x for x in theirs if x > 1]

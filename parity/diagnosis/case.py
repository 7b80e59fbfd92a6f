"""Both models' steps, aligned, with the weights copied that are to be."""

import functools
from dataclasses import dataclass, field

import numpy as np

from parity.frameworks import keras, torch
from parity.diagnosis.alignment import align, shared_names, ties
from parity.diagnosis.locate import Located, Locator
from parity.diagnosis.recording import keras_graph, operations, torch_graph
from parity.diagnosis.recording.constants import EXACT, split_computed
from parity.diagnosis.recording.graph import Graph, Step, Tensor
from parity.diagnosis.recording.simplify import simplify
from parity.diagnosis.replay import FreeRun, run_freely
from parity.precision import keras_as, torch_as, untouched_state
from parity.spec.errors import UsageError

# Pairs of equal branches of which both ways are tried.
PROBES = 8


@dataclass
class Case:
    """Both sides' steps and how they belong together.

    Attributes:
        keras: the steps of the one.
        torch: the steps of the other.
        pairs: the partners, in an order in which both can be run.
        torch_images: those of PyTorch's own pipeline, if it has one.
        copied: the names of the weights that each of PyTorch's steps was given.
        notes: what could not be placed, a sentence each.
        unplaced: the steps that compute with weights which could not be copied.
        shared: weights that are one in PyTorch and several in Keras.
    """

    keras: Graph
    torch: Graph
    pairs: list[tuple[Step, Step]]
    torch_images: Tensor | None = None
    copied: dict[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unplaced: set[int] = field(default_factory=set)
    shared: list[tuple[Step, Step, str, str, str]] = field(default_factory=list)

    @functools.cached_property
    def located(self) -> Located:
        """What the pass with the same inputs found."""
        return Locator(self.keras, self.torch, self.pairs).locate(self.torch_images)

    @functools.cached_property
    def free(self) -> FreeRun:
        """What PyTorch's side computes on its own images."""
        images = self.torch_images
        if images is None:
            images = self.keras.values[self.keras.inputs[0]]
        return run_freely(self.keras, self.torch, self.pairs, images)


@untouched_state()
def record(
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray,
    torch_images: np.ndarray | None,
    weights: str,
) -> Case:
    """Returns both models' steps on images.

    Args:
        keras_model: as in `diagnose`.
        torch_model: as in `diagnose`.
        images: NHWC.
        torch_images: NCHW, where PyTorch has its own.
        weights: "copy" or "as_is".
    """
    natural = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
    own = natural if torch_images is None else torch_images
    tensor = torch.from_numpy(np.ascontiguousarray(own, np.float64))
    # PyTorch's first: of its values nothing is kept, so that no two sides are held.
    theirs = _record_torch(torch_model, tensor, {})
    with keras_as(keras_model, "float64", "cpu") as model:
        ours = keras_graph.record(model, images)
    simplify(ours)
    if len(ours.outputs) != len(theirs.outputs):
        raise UsageError(
            f"the Keras model returns {len(ours.outputs)} tensors and the PyTorch "
            f"model {len(theirs.outputs)}"
        )
    own_images = None if torch_images is None else tensor
    case = Case(ours, theirs, align(ours, theirs), own_images)
    named = {}
    if weights == "copy":
        named = _by_name(case, torch_model)
        if named:
            theirs = _record_torch(torch_model, tensor, named)
            case = Case(ours, theirs, align(ours, theirs), own_images)
    return _probed(case, named, weights)


def _probed(case: Case, named: dict[str, Tensor], weights: str) -> Case:
    """Returns the case, with branches paired as fewer steps differ.

    Where nothing tells two branches apart, both ways are tried; and where they are told
    apart by their shapes, as they are given, since a shape may be what is wrong.
    """
    steps = case.torch.steps
    names = shared_names(case.keras, case.torch)
    ways = [frozenset([place]) for place in ties(case.torch, names)[:PROBES]]
    if any(len(step.inputs) > 1 for step in steps):
        ways.append(None)
    own = {id(step): dict(step.parameters) for step in steps if ways}

    def aligned(turned: frozenset[int] | None) -> Case:
        for step in steps if ways else ():
            step.parameters = dict(own[id(step)])
        pairs = align(case.keras, case.torch, turned)
        other = Case(case.keras, case.torch, pairs, case.torch_images)
        if weights == "copy":
            _copy(other, named)
        return other

    turned: frozenset[int] | None = frozenset()
    best = last = aligned(turned)
    for way in ways if best.located.culprits else ():
        tried = None if way is None else turned | way
        last = aligned(tried)
        if len(last.located.culprits) < len(best.located.culprits):
            best, turned = last, tried
    # The steps are shared, and hold what the last one copied.
    return best if best is last else aligned(turned)


def _record_torch(
    model: torch.nn.Module, images: Tensor, weights: dict[str, Tensor]
) -> Graph:
    """Returns PyTorch's steps without values, some weights exchanged for others."""
    with torch_as(model, "float64", "cpu") as cast, untouched_state():
        own = {**dict(cast.named_parameters()), **dict(cast.named_buffers())}
        for name, value in weights.items():
            own[name].data.copy_(value)
        graph = torch_graph.record(cast, images)
    simplify(graph)
    graph.values.clear()
    return graph


# How a normalisation that someone has written by hand calls its weights.
NAMES = {
    "mean": ("mean",),
    "variance": ("var",),
    "gamma": ("weight", "gamma", "scale"),
    "beta": ("bias", "beta", "shift"),
}


def _by_name(case: Case, model: torch.nn.Module) -> dict[str, Tensor]:
    """Returns Keras's weights for normalisations that PyTorch's side spells out.

    Those are modules of vectors alone, none of which a partner takes. They stand in
    the order of the layers of Keras that have no partner of their kind.
    """
    alike = {id(k): t for k, t in case.pairs if k.kind == t.kind}
    alone = [
        k
        for k in case.keras.steps
        if k.kind in ("batch_norm", "layer_norm", "group_norm") and id(k) not in alike
    ]
    placed = {name for t in alike.values() for name in _weights_of(t)}
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        own = {
            name: tensor
            for name, tensor in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            )
            if tensor.dim() == 1
        }
        prefix = f"{path}." if path else ""
        if not own or any(prefix + name in placed for name in own):
            continue
        for k in alone:
            vectors = {
                key: k.parameters[key].flatten()
                for key in NAMES
                if isinstance(k.parameters.get(key), Tensor)
            }
            chosen = {
                key: next(
                    (n for n in own if any(word in n for word in NAMES[key])), None
                )
                for key in vectors
            }
            fits = None not in chosen.values() and all(
                own[name].shape == vectors[key].shape for key, name in chosen.items()
            )
            if fits and len(set(chosen.values())) == len(chosen):
                found |= {prefix + name: vectors[key] for key, name in chosen.items()}
                alone.remove(k)
                break
    return found


def _copy(case: Case, named: dict[str, Tensor]) -> None:
    """Gives PyTorch's steps the weights of their partners in Keras."""
    given: dict[str, tuple[str, Tensor]] = {}
    for k, t in case.pairs:
        if k.kind != t.kind or k.kind == "opaque":
            names = [*_weights_of(k), *_weights_of(t)]
            if names and not set(names) & set(named):
                case.notes.append(f"{', '.join(names)} could not be placed")
                case.unplaced.add(id(t))
            continue
        placed = []
        for name in operations.TENSORS.get(k.kind, ()):
            ours, theirs = k.parameters.get(name), t.parameters.get(name)
            if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
                continue
            if k.kind in ("scale", "activation") and not (k.weights and t.weights):
                continue
            own, other = k.weights.get(name, name), t.weights.get(name, name)
            bare = [[size for size in x.shape if size > 1] for x in (ours, theirs)]
            if bare[0] == bare[1]:
                ours = ours.reshape(theirs.shape)
            if ours.shape != theirs.shape:
                case.notes.append(
                    f"{own} {tuple(ours.shape)} does not fit {other} "
                    f"{tuple(theirs.shape)} and was not copied"
                )
                continue
            ours = _as_computed(ours, own, other)
            if ours is None:
                case.notes.append(f"{own} and {other} are computed in different ways")
                case.unplaced.add(id(t))
                continue
            before = given.setdefault(other, (own, ours))[1]
            ordered = [tensor.flatten().sort().values for tensor in (before, ours)]
            same = np.array_equal(*ordered, equal_nan=True)
            if before.shape == ours.shape and not same:
                case.shared.append((k, t, own, given[other][0], other))
            t.parameters[name] = ours
            placed.append((own, other))
        case.copied[id(t)] = tuple(placed)
    partners = {id(step) for pair in case.pairs for step in pair}
    for graph in (case.keras, case.torch):
        for step in graph.steps:
            if set(_weights_of(step)) & set(named):
                continue
            if id(step) not in partners and step.weights:
                names = ", ".join(_weights_of(step))
                case.notes.append(
                    f"{names} of {graph.side}'s {step.name} has no partner"
                )


def _weights_of(step: Step) -> list[str]:
    """Returns the names of the weights that a step uses, or computes with."""
    return [split_computed(name)[1] for name in step.weights.values()]


def _as_computed(ours: Tensor, own: str, other: str) -> Tensor | None:
    """Returns what PyTorch's side computes of Keras's weight, None if not known.

    Args:
        ours: what Keras's side computes of it.
        own: its name, with what is computed of it.
        other: that of PyTorch's weight, likewise.
    """
    mine, theirs = (split_computed(name)[0] for name in (own, other))
    if mine == theirs:
        return ours
    if mine in EXACT and theirs in EXACT:
        return EXACT[theirs](EXACT[mine](ours))
    return None

"""Faults drawn by chance: at any node, of any size, with both sides in any style.

The lists of the other files were made by hand, and the diagnosis with them in view.
What is drawn here with a number that nobody has used before was seen by neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from parity.frameworks import torch
from parity.faults.equal import KERAS_STYLES, OTHER_NAMES, TORCH_STYLES
from parity.faults.networks import NETWORKS
from parity.faults.pairs import (
    Case,
    Pair,
    Sides,
    build_sides,
    make_pair,
    place,
    read_weights,
)
from parity.faults.planting import Edit, adding, beside, dropping, expected_at, setting
from parity.faults.spec import Network, Node, find, leaves, sources
from parity.faults.weights import changed, initialised, noisy
from parity.precision import keras_as, torch_as
from parity.spec.tolerances import TOLERANCES, relative_error

Random = np.random.Generator
ACTIVATIONS = (
    "relu", "relu6", "tanh", "sigmoid", "silu", "hard_swish", "gelu", "gelu_tanh",
    "softplus",
)  # fmt: skip
ALIKE = {
    "activation.kind": ("gelu.approximation", "activation.parameter", "leaky.slope"),
    "conv.padding": ("pad.amount", "pad.missing", "pad.value"),
    "pool.padding": ("pad.amount", "pad.missing", "pool.ceil_mode"),
    "pool.ceil_mode": ("pool.padding",),
    "bias.different": ("bias.missing",),
    "activation.missing": ("softmax.missing", "activation.twice"),
    "resize.grid": ("resize.method",),
}
# One in so many pairs is the same function, in two styles.
EQUAL = 5
LEAST = 1e-6  # of what a fault makes of the outputs


@dataclass(frozen=True)
class Fault:
    """One way to spoil a node.

    Attributes:
        cause: its identifier.
        edit: of the nodes of the wrong side.
        plant: of the weights, which are then judged as they are.
        side: "torch" where Keras cannot be wrong in this way; "" for either.
        added: the name of a node that is put behind, where the fault is found.
    """

    cause: str
    edit: Edit = lambda nodes, path: nodes
    plant: Callable | None = None
    side: str = ""
    added: str = ""


def _settings(cause: str, function: Callable[[Random, Node], dict], **rest):
    """Returns what draws a fault of a node's settings."""
    return lambda random, item: Fault(cause, setting(**function(random, item)), **rest)


def _weights(cause: str, function: Callable[[Random, dict], dict]):
    """Returns what draws a fault of a layer's weights."""

    def draw(random: Random, item: Node) -> Fault:
        seed = int(random.integers(1 << 30))
        again = lambda weights: function(np.random.default_rng(seed), weights)  # noqa: E731
        return Fault(cause, plant=changed(again))

    return draw


def _other(random: Random, known: object, values) -> object:
    return random.choice([value for value in values if value != known])


def _without(cause: str):
    return lambda random, item: Fault(cause, dropping())


def _with_more(cause: str, kind: str, **settings):
    edit = adding(kind, "more", **settings)
    return lambda random, item: Fault(cause, edit, added="more")


def _pixels(random: Random, largest: int = 2) -> tuple[int, ...]:
    return tuple(map(int, random.integers(0, largest + 1, 4)))


def _flipped(random: Random, weights: dict) -> dict:
    return {"kernel": weights["kernel"][:, :, ::-1, ::-1].copy()}


def _turned(random: Random, weights: dict) -> dict:
    return {"kernel": weights["kernel"].swapaxes(2, 3).copy()}


def _scaled(random: Random, weights: dict) -> dict:
    return {"kernel": weights["kernel"] * np.float32(random.uniform(0.2, 3))}


def _noisy(random: Random, weights: dict) -> dict:
    return {"kernel": noisy(weights["kernel"])}


def _noisy_bias(random: Random, weights: dict) -> dict:
    return {"bias": noisy(weights["bias"])}


def _fresh(random: Random, weights: dict) -> dict:
    return {
        "mean": np.zeros_like(weights["mean"]),
        "variance": np.ones_like(weights["mean"]),
    }


def _exchanged(random: Random, weights: dict) -> dict:
    return {"gamma": weights["beta"], "beta": weights["gamma"]}


def _not_copied(random: Random, item: Node) -> Fault:
    return Fault("weights.not_copied", plant=initialised)


def _order(random: Random, item: Node) -> Fault:
    inputs = tuple(random.permutation(item.inputs))
    return Fault("merge.order", setting(inputs=inputs))


WEIGHTS = (
    _weights("weights.scaled", _scaled),
    _weights("weights.different", _noisy),
    _weights("bias.different", _noisy_bias),
    _settings("bias.missing", lambda r, n: {"bias": not n.get("bias", True)}),
    _not_copied,
)
RULES: dict[str, tuple[Callable[[Random, Node], Fault], ...]] = {
    "conv": (
        _settings("conv.stride", lambda r, n: {"stride": 3 - n.get("stride", 1)}),
        _settings("conv.padding", lambda r, n: {"padding": _pixels(r)}),
        _settings("conv.dilation", lambda r, n: {"dilation": int(r.integers(2, 4))}),
        _settings("conv.groups", lambda r, n: {"groups": int(r.choice([2, 4]))}),
        _settings("conv.kernel_size", lambda r, n: {"kernel": n["kernel"] + 2}),
        _weights("weights.flipped", _flipped),
        _weights("weights.transposed", _turned),
        *WEIGHTS,
    ),
    "dense": WEIGHTS,
    "bn": (
        _settings("bn.epsilon", lambda r, n: {"epsilon": 10.0 ** r.uniform(-4, -1)}),
        _settings("bn.affine", lambda r, n: {"affine": False}),
        _settings("bn.training_mode", lambda r, n: {"training": True}, side="torch"),
        _weights("bn.statistics_not_copied", _fresh),
        _weights("bn.statistics_swapped", _exchanged),
        _without("bn.missing"),
    ),
    "act": (
        _settings(
            "activation.kind",
            lambda r, n: {"function": _other(r, n["function"], ACTIVATIONS)},
        ),
        _without("activation.missing"),
        _with_more("activation.missing", "act", function="tanh"),
    ),
    "pool": (
        _settings("pool.kind", lambda r, n: {"function": _turn(n, "max")}),
        _settings(
            "pool.size",
            lambda r, n: {"size": n["size"] + 1, "stride": n.get("stride", n["size"])},
        ),
        _settings("pool.stride", lambda r, n: {"stride": int(r.integers(1, 4))}),
        _settings("pool.ceil_mode", lambda r, n: {"ceil": True}),
    ),
    "global": (_settings("pool.kind", lambda r, n: {"function": _turn(n, "mean")}),),
    "lrn": (
        _settings("lrn.alpha", lambda r, n: {"alpha": n["alpha"] * r.uniform(0.2, 4)}),
        _settings("lrn.beta", lambda r, n: {"beta": round(r.uniform(0.3, 1.2), 2)}),
        _settings("lrn.k", lambda r, n: {"k": round(n["k"] + r.uniform(0.2, 2), 2)}),
        _settings("lrn.size", lambda r, n: {"size": _other(r, n["size"], (3, 5, 7))}),
    ),
    "ln": (
        _settings("ln.epsilon", lambda r, n: {"epsilon": 10.0 ** r.uniform(-4, -1)}),
    ),
    "gn": (
        _settings("ln.epsilon", lambda r, n: {"epsilon": 10.0 ** r.uniform(-4, -1)}),
        _settings("ln.axes", lambda r, n: {"groups": _other(r, n["groups"], (2, 8))}),
    ),
    "merge": (
        _settings(
            "merge.kind",
            lambda r, n: {
                "function": _other(r, n["function"], ("add", "multiply", "maximum"))
            },
        ),
        _order,
    ),
    "dropout": (_settings("dropout.active", lambda r, n: {"active": True}),),
    "pad": (
        _settings("pad.amount", lambda r, n: {"pixels": _pixels(r)}),
        _settings("pad.value", lambda r, n: {"value": round(r.uniform(0.5, 2), 2)}),
        _without("pad.missing"),
    ),
    "scale": (_without("scale.missing"),),
    "upsample": (_settings("resize.method", lambda r, n: {"method": "bilinear"}),),
    "resize": (_settings("resize.grid", lambda r, n: {"align": True}, side="torch"),),
    "shuffle": (_settings("reshape.order", lambda r, n: {"order": "channels"}),),
}


def _turn(item: Node, default: str) -> str:
    return "mean" if item.get("function", default) == "max" else "max"


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yields pairs that are built, and really differ or are really equal.

    Args:
        seed: of what is drawn.
        count: of pairs; one in five is equal.
    """
    random = np.random.default_rng(seed)
    found = 0
    while found < count:
        name = f"drawn-{seed}-{found}"
        case = _equal(random, name) if found % EQUAL == 0 else _faulty(random, name)
        if _holds(case):
            found += 1
            yield case


def _network(random: Random) -> Network:
    """Returns a network in two drawn styles, of other images."""
    network = NETWORKS[random.choice(list(NETWORKS))]
    styles = [
        replace(
            styles[random.integers(len(styles))],
            nested=bool(random.integers(2)),
            names=(None, OTHER_NAMES)[random.integers(2)],
        )
        for styles in (KERAS_STYLES, TORCH_STYLES)
    ]
    return replace(network, keras=styles[0], torch=styles[1])


def _equal(random: Random, name: str) -> Case:
    network, scale = _network(random), float(10 ** random.uniform(-2, 2))
    weights = ("copy", "as_is")[random.integers(2)]

    def make() -> Pair:
        return make_pair(build_sides(network), (), scale, weights=weights)

    return Case(f"equal-{name}", network.name, "equal", "whole", scale, make)


def _faulty(random: Random, name: str) -> Case:
    network, scale = _network(random), float(10 ** random.uniform(-2, 2))
    paths = [x for x in leaves(network.nodes) if find(network.nodes, x).kind in RULES]
    path = str(random.choice(paths))
    item = find(network.nodes, path)
    rules = RULES[item.kind]
    fault = rules[random.integers(len(rules))](random, item)
    side = fault.side or ("keras", "torch")[random.integers(2)]
    at = (beside(path, fault.added) if fault.added else path,)
    if item.kind == "pad":  # a border may be told by the layer that sees it, too
        at += tuple(x for x, before in sources(network.nodes).items() if path in before)
    weights = "as_is" if fault.plant else "copy"

    def make() -> Pair:
        wrong = fault.edit(network.nodes, path)
        right = network.nodes
        sides = build_sides(
            network, *((wrong, right) if side == "keras" else (right, wrong))
        )
        _check_shapes(sides, path)
        causes = (fault.cause, *ALIKE.get(fault.cause, ()))

        def plant(sides: Sides) -> None:
            if fault.plant:
                fault.plant(sides, getattr(sides, side), path)

        expected = (expected_at(sides, at, causes),)
        return make_pair(sides, expected, scale, weights=weights, plant=plant)

    title = f"{fault.cause}-{name}/{network.name}/{path}/{side}/{scale:.3g}"
    where = place(network.nodes, path)
    return Case(title, network.name, fault.cause, where, scale, make)


def _check_shapes(sides: Sides, path: str) -> None:
    """Raises ValueError where a fault changes the weights of other layers."""
    for other in sides.keras.layers.keys() & sides.torch.layers.keys() - {path}:
        ours, theirs = (
            {role: x.size for role, x in read_weights(built, other).items()}
            for built in (sides.keras, sides.torch)
        )
        if ours != theirs:
            raise ValueError(f"{other} has weights of other sizes")


def _holds(case: Case) -> bool:
    """Returns whether a pair can be built, and differs if and only if it should."""
    try:
        pair = case.make()
        error = _error(pair)
    except Exception:  # whatever a framework says of a node that does not fit
        return False
    if not np.isfinite(error):
        return False
    return error <= TOLERANCES["outputs"] if case.cause == "equal" else error > LEAST


def _error(pair: Pair) -> float:
    """Returns the error between both sides' outputs, in float64."""
    pair.transfer()
    images = np.asarray(pair.images, np.float64)
    with keras_as(pair.keras_model, "float64", "cpu") as model:
        ours = np.array(model(images, training=False))
    with torch_as(pair.torch_model, "float64", "cpu") as model, torch.no_grad():
        theirs = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    return relative_error(theirs, ours)

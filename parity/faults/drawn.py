"""Faults drawn by chance: at any node, of any size, with both sides in any style.

The lists of the other files were made by hand, and the diagnosis with them in view.
What is drawn here with a number that nobody has used before was seen by neither.
"""

import warnings
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
# One in so many pairs is the same function, in two styles; one has two faults.
EVERY = 5
LEAST = 1e-6  # of what a fault makes of the outputs


@dataclass(frozen=True)
class Fault:
    """One way to spoil a node.

    Attributes:
        cause: its identifier.
        edit: of the nodes of the wrong side.
        plant: of the weights, which are then judged as they are.
        side: that is wrong; "" before it is drawn.
        added: the name of a node that is put behind, where the fault is found.
        path: of the node.
    """

    cause: str
    edit: Edit = lambda nodes, path: nodes
    plant: Callable | None = None
    side: str = ""
    added: str = ""
    path: str = ""


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
    def draw(random: Random, item: Node) -> Fault:
        name = f"{item.name}_more"
        return Fault(cause, adding(kind, name, **settings), added=name)

    return draw


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
    # With weights of their own, branches in another order may be the same function.
    return Fault("merge.order", setting(inputs=inputs), plant=lambda *_: None)


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
        count: of pairs; one in five is equal, and one in five has two faults.
    """
    random = np.random.default_rng(seed)
    found = 0
    while found < count:
        name = f"drawn-{seed}-{found}"
        network, scale = _network(random), float(10 ** random.uniform(-2, 2))
        faults: list[Fault] = []
        if found % EVERY == 0:
            weights = ("copy", "as_is")[random.integers(2)]
            drawn = [_equal(network, scale, weights, name)]
        else:
            faults = [_draw(random, network) for _ in range(1 + (found % EVERY == 1))]
            drawn = [_faulty(network, scale, faults, name)]
            if len(faults) > 1:  # each must show by itself
                drawn += [_faulty(network, scale, [fault], name) for fault in faults]
        if len({fault.path for fault in faults}) == len(faults) and all(
            map(_holds, drawn)
        ):
            found += 1
            yield drawn[0]


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


def _equal(network: Network, scale: float, weights: str, name: str) -> Case:
    def make() -> Pair:
        return make_pair(build_sides(network), (), scale, weights=weights)

    return Case(f"equal-{name}", network.name, "equal", "whole", scale, make)


def _draw(random: Random, network: Network) -> Fault:
    """Returns a fault at a drawn node of a drawn side."""
    paths = [x for x in leaves(network.nodes) if find(network.nodes, x).kind in RULES]
    path = str(random.choice(paths))
    item = find(network.nodes, path)
    rules = RULES[item.kind]
    fault = rules[random.integers(len(rules))](random, item)
    side = fault.side or ("keras", "torch")[random.integers(2)]
    return replace(fault, path=path, side=side)


def _faulty(network: Network, scale: float, faults: list[Fault], name: str) -> Case:
    weights = "as_is" if any(fault.plant for fault in faults) else "copy"

    def make() -> Pair:
        nodes = {"keras": network.nodes, "torch": network.nodes}
        for fault in faults:
            nodes[fault.side] = fault.edit(nodes[fault.side], fault.path)
        sides = build_sides(network, nodes["keras"], nodes["torch"])
        _check_shapes(sides, {fault.path for fault in faults})

        def plant(sides: Sides) -> None:
            for fault in faults:
                if fault.plant:
                    fault.plant(sides, getattr(sides, fault.side), fault.path)

        expected = tuple(
            expected_at(
                sides,
                _places(network, fault),
                (fault.cause, *ALIKE.get(fault.cause, ())),
            )
            for fault in faults
        )
        return make_pair(sides, expected, scale, weights=weights, plant=plant)

    planted = "+".join(f"{x.cause}:{x.path}:{x.side}" for x in faults)
    where, cause = place(network.nodes, faults[0].path), faults[0].cause
    if len(faults) > 1:
        where, cause = "whole", "several"
    title = f"{planted}-{name}/{network.name}/{scale:.3g}"
    return Case(title, network.name, cause, where, scale, make)


def _places(network: Network, fault: Fault) -> tuple[str, ...]:
    """Returns the paths at which a fault may be found."""
    if fault.added:
        return (beside(fault.path, fault.added),)
    if find(network.nodes, fault.path).kind != "pad":
        return (fault.path,)
    # A border may be told by the layer that sees it, too.
    behind = (x for x, given in sources(network.nodes).items() if fault.path in given)
    return (fault.path, *behind)


def _check_shapes(sides: Sides, paths: set[str]) -> None:
    """Raises ValueError where a fault changes the weights of other layers."""
    for other in (sides.keras.layers.keys() & sides.torch.layers.keys()) - paths:
        ours, theirs = (
            {role: x.size for role, x in read_weights(built, other).items()}
            for built in (sides.keras, sides.torch)
        )
        if ours != theirs:
            raise ValueError(f"{other} has weights of other sizes")


def _holds(case: Case) -> bool:
    """Returns whether a pair can be built, and differs if and only if it should."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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

"""A network as data, from which either side is written in several ways.

A network is a tuple of nodes. Both sides are built from the same one; a fault is a
change of the nodes of one side, so that it stands where a person would have written it.
Nodes are found by their path: `stage1.conv2` is a node inside a block.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Node:
    """One step of a network.

    Attributes:
        name: unique among the nodes beside it.
        kind: "conv", "bn", "act", "block", ...
        inputs: names of the nodes beside it whose outputs it takes; "" is what the
            network, or the block, was given.
        settings: what the kind needs, in PyTorch's terms: padding in pixels or "same".
        path: the place in the whole network.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def __getitem__(self, setting: str) -> Any:
        """Returns a setting."""
        return self.settings[setting]

    def get(self, setting: str, default: Any = None) -> Any:
        """Returns a setting, or a default."""
        return self.settings.get(setting, default)


Nodes = tuple[Node, ...]


@dataclass(frozen=True)
class Style:
    """How one side is written.

    Attributes:
        form: of a Keras model "functional", "subclass" or "sequential"; of a PyTorch
            one "module" or "sequential" (where no branch is in the way).
        activation: "inside" the layer before (Keras only), a "layer" or a "function".
        steps: pooling, flattening, padding, merging as a "layer" or a "function".
        nested: whether a block is a layer of its own, or its nodes stand in the whole.
        names: beginnings of names by kind, which are then numbered; the nodes' own
            names where it is None.
        in_place: whether PyTorch's activations are.
        backwards: whether the layers are defined in the reverse of the order in which
            they are called.
        shared: whether one layer serves all activations of a kind.
    """

    form: str
    activation: str = "layer"
    steps: str = "layer"
    nested: bool = True
    names: Mapping[str, str] | None = None
    in_place: bool = False
    backwards: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Network:
    """A network and how the two sides are written.

    Attributes:
        size: height and width of its images.
        num_classes: of its output; 0 where that is no vector of logits.
    """

    name: str
    nodes: Nodes
    keras: Style
    torch: Style
    size: tuple[int, int]
    in_channels: int = 3
    num_classes: int = 7


def node(
    kind: str, name: str, *inputs: str, first: bool = False, **settings: Any
) -> Node:
    """Returns a node; without inputs it takes the output of the one before it.

    Args:
        kind: of the node.
        name: of the node.
        inputs: names of other nodes.
        first: whether it takes what the network, or the block, was given.
        settings: what the kind needs.
    """
    return Node(name, kind, ("",) if first else inputs, settings)


def chain(*nodes: Node) -> Nodes:
    """Returns nodes, each of which takes the output of the one before it."""
    done, before = [], ""
    for item in nodes:
        done.append(item if item.inputs else replace(item, inputs=(before,)))
        before = item.name
    return tuple(done)


def block(name: str, *nodes: Node, inputs: tuple[str, ...] = ()) -> Node:
    """Returns a node that holds others."""
    return Node(name, "block", inputs, {"nodes": chain(*nodes)})


def edit(nodes: Nodes, path: str, function: Callable[[Nodes, int], Nodes]) -> Nodes:
    """Returns nodes of which those beside a path went through a function.

    Args:
        nodes: of the network.
        path: of a node.
        function: is given the nodes beside the path, and which of them it is.
    """
    head, _, rest = path.partition(".")
    index = [item.name for item in nodes].index(head)
    if not rest:
        return function(nodes, index)
    inner = edit(nodes[index]["nodes"], rest, function)
    held = replace(nodes[index], settings={"nodes": inner})
    return (*nodes[:index], held, *nodes[index + 1 :])


def change(nodes: Nodes, path: str, **settings: Any) -> Nodes:
    """Returns nodes of which one has other settings, kind or inputs."""

    def changed(beside: Nodes, index: int) -> Nodes:
        old, new = beside[index], dict(settings)
        kind, inputs = new.pop("kind", old.kind), new.pop("inputs", old.inputs)
        new = replace(old, kind=kind, inputs=inputs, settings={**old.settings, **new})
        return (*beside[:index], new, *beside[index + 1 :])

    return edit(nodes, path, changed)


def remove(nodes: Nodes, path: str) -> Nodes:
    """Returns nodes without one; who took its output takes its first input."""

    def removed(beside: Nodes, index: int) -> Nodes:
        old = beside[index]
        rest = (*beside[:index], *beside[index + 1 :])
        return tuple(_rewired(item, old.name, old.inputs[0]) for item in rest)

    return edit(nodes, path, removed)


def insert(nodes: Nodes, path: str, kind: str, name: str, **settings: Any) -> Nodes:
    """Returns nodes with one more behind a path; who took that output takes its."""

    def inserted(beside: Nodes, index: int) -> Nodes:
        old = beside[index]
        rest = tuple(_rewired(item, old.name, name) for item in beside[index + 1 :])
        new = Node(name, kind, (old.name,), settings)
        return (*beside[: index + 1], new, *rest)

    return edit(nodes, path, inserted)


def _rewired(item: Node, old: str, new: str) -> Node:
    inputs = tuple(new if name == old else name for name in item.inputs)
    return replace(item, inputs=inputs)


def find(nodes: Nodes, path: str) -> Node:
    """Returns the node of a path."""
    head, _, rest = path.partition(".")
    found = next(item for item in nodes if item.name == head)
    return find(found["nodes"], rest) if rest else found


def leaves(nodes: Nodes, prefix: str = "") -> Iterator[str]:
    """Yields the paths of all nodes that hold no others, in order."""
    for item in nodes:
        if item.kind == "block":
            yield from leaves(item["nodes"], f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def located(nodes: Nodes, prefix: str = "") -> Nodes:
    """Returns nodes that know their paths."""
    done = []
    for item in nodes:
        path = prefix + item.name
        settings = item.settings
        if item.kind == "block":
            settings = {"nodes": located(item["nodes"], f"{path}.")}
        done.append(replace(item, path=path, settings=settings))
    return tuple(done)


def inlined(nodes: Nodes, prefix: str = "", given: tuple[str, ...] = ("",)) -> Nodes:
    """Returns located nodes without blocks, whose names hold those of the blocks."""
    done, outputs = [], {"": given[0]}
    for item in nodes:
        inputs = tuple(outputs[name] for name in item.inputs)
        name = f"{prefix}{item.name}"
        if item.kind == "block":
            inner = inlined(item["nodes"], f"{name}_", inputs)
            done += inner
            name = inner[-1].name
        else:
            done.append(replace(item, name=name, inputs=inputs))
        outputs[item.name] = name
    return tuple(done)


def merged_activations(nodes: Nodes) -> dict[str, Node]:
    """Returns which layers can hold the activation behind them, and which."""
    taken = [name for item in nodes for name in item.inputs]
    by_name = {item.name: item for item in nodes}
    found = {}
    for item in nodes:
        if item.kind != "act" or item.get("slope") or item.get("alone"):
            continue
        before = by_name.get(item.inputs[0])
        holds = before is not None and before.kind in ("conv", "dense")
        if holds and taken.count(before.name) == 1:
            found[before.name] = item
    return found


class Names:
    """Names of the layers of one block, as a style has them."""

    def __init__(self, style: Style):
        self.style, self.counts = style, {}

    def of(self, item: Node, suffix: str = "") -> str:
        """Returns the name of a node's layer, or of one that belongs to it."""
        kind = suffix or item.kind
        if self.style.names is not None and kind in self.style.names:
            beginning = self.style.names[kind]
            self.counts[beginning] = self.counts.get(beginning, 0) + 1
            return f"{beginning}{self.counts[beginning]}"
        return f"{item.name}_{suffix}" if suffix else item.name


@dataclass
class Built:
    """A model and where its nodes are.

    Attributes:
        model: of either framework.
        nodes: what it was built from, located.
        layers: the layer of each path that has one of its own.
        names: that layer's attribute path, or that of the layer that holds the node.
        others: attribute paths of further layers of a node, such as its padding.
        sources: the paths that a node takes its inputs from; "" is the images.
        loose: the paths of layers before which a function of theirs is called.
        flattened: (channels, height, width) and the order of what a dense layer takes,
            where that is a flattened map.
    """

    model: Any
    nodes: Nodes
    layers: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    flattened: dict[str, tuple] = field(default_factory=dict)


def sources(nodes: Nodes) -> dict[str, tuple[str, ...]]:
    """Returns the paths that each node takes its inputs from."""
    flat = inlined(located(nodes))
    paths = {item.name: item.path for item in flat} | {"": ""}
    return {item.path: tuple(paths[name] for name in item.inputs) for item in flat}


def layer_names(built: Built, path: str, other: Built) -> tuple[str, ...]:
    """Returns how a diagnosis may name a node on one side.

    By its own layer; else, and where the side has no such node, by the layers that made
    its inputs.

    Args:
        built: the side.
        path: of the node.
        other: the other side, which knows the node where this one does not.
    """
    if not path:
        return ("input",)
    if path in built.names:
        return (built.names[path], *built.others.get(path, ()))
    before = (built if path in built.sources else other).sources[path]
    found = [name for item in before for name in layer_names(built, item, other)]
    return tuple(dict.fromkeys(found))

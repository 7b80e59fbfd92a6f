"""Writes the Keras side of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from parity.frameworks import keras
from keras_impl.tracing import named_layers
from parity.faults import keras_layers
from parity.faults.spec import (
    Built,
    Names,
    Node,
    Nodes,
    Style,
    inlined,
    located,
    merged_activations,
    sources,
)

WEIGHTED = ("conv", "conv_transpose", "dense", "bn", "ln", "gn")


class _Step(NamedTuple):
    """One call: of a layer by its attribute, or of a function."""

    output: str
    inputs: tuple[str, ...]
    attribute: str | None
    function: Callable | None
    settings: dict


def build(nodes: Nodes, style: Style, size: tuple[int, int], channels: int) -> Built:
    """Returns the Keras model of nodes, built for images of a size."""
    nodes = located(nodes)
    built = Built(None, nodes, sources=sources(nodes))
    images = keras.Input((*size, channels))
    if style.form == "subclass":
        model = _whole(nodes, style, built)
        model(images)
    else:
        model = _functional(inlined(nodes), style, built, images)
    built.model = model
    _collect(model, built)
    _note_flattened(built)
    return built


def _plan(nodes: Nodes, style: Style, built: Built, prefix: str) -> tuple[list, dict]:
    """Returns the calls of some nodes and what makes their layers, by attribute."""
    holders = merged_activations(nodes) if style.activation == "inside" else {}
    held = {item.name: holder for holder, item in holders.items()}
    names, steps, makers, shared = Names(style), [], {}, {}
    for item in nodes:
        if item.name in held:
            path = next(x.path for x in nodes if x.name == held[item.name])
            built.names[item.path] = built.names[path]
            steps.append(_Step(item.name, (held[item.name],), None, _same, {}))
            continue
        if item.kind == "block":
            attribute = names.of(item)
            makers[attribute] = _block_maker(item, style, built, prefix + attribute)
            steps.append(_Step(item.name, item.inputs, attribute, None, {}))
            continue
        made = keras_layers.parts(item, style, holders.get(item.name))
        inputs = item.inputs
        for index, (suffix, thing, is_layer) in enumerate(made):
            last = index == len(made) - 1
            output = item.name if last else f"{item.name}.{index}"
            if not is_layer:
                steps.append(_Step(output, inputs, None, thing, {}))
                inputs = (output,)
                if not last:
                    built.loose.add(item.path)
                continue
            kind = (item.kind, str(sorted(item.settings.items(), key=str)))
            reused = style.shared and item.kind == "act" and shared.get(kind)
            attribute = reused or names.of(item, suffix)
            shared[kind] = attribute
            makers.setdefault(attribute, thing)
            training = {"training": True} if item.get("training") else {}
            steps.append(_Step(output, inputs, attribute, None, training))
            inputs = (output,)
            name = f"{prefix}{attribute}"
            if suffix:
                built.others[item.path] = (*built.others.get(item.path, ()), name)
            else:
                built.names[item.path] = name
    return steps, makers


def _same(x: Any) -> Any:
    return x


def _run(steps: list[_Step], owner: object, images: Any) -> Any:
    values = {"": images}
    for step in steps:
        inputs = [values[name] for name in step.inputs]
        if step.attribute is None:
            values[step.output] = step.function(*inputs)
            continue
        layer = getattr(owner, step.attribute)
        given = inputs if len(inputs) > 1 else inputs[0]
        values[step.output] = layer(given, **step.settings)
    return values[steps[-1].output]


def _define(owner: object, makers: dict, style: Style) -> None:
    order = list(makers)
    for attribute in reversed(order) if style.backwards else order:
        setattr(owner, attribute, makers[attribute]())


def _block_maker(item: Node, style: Style, built: Built, prefix: str) -> Callable:
    steps, makers = _plan(item["nodes"], style, built, f"{prefix}.")

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            _define(self, makers, style)

        def call(self, images):
            return _run(steps, self, images)

    return Block


def _whole(nodes: Nodes, style: Style, built: Built) -> keras.Model:
    nodes = nodes if style.nested else inlined(nodes)
    steps, makers = _plan(nodes, style, built, "")

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            _define(self, makers, style)

        def call(self, images):
            return _run(steps, self, images)

    return Net()


def _functional(nodes: Nodes, style: Style, built: Built, images: Any) -> keras.Model:
    steps, makers = _plan(nodes, style, built, "")
    made = {attribute: make(name=attribute) for attribute, make in makers.items()}
    if style.form == "sequential":
        order = [step.attribute for step in steps if step.function is not _same]
        model = keras.Sequential([images, *(made[attribute] for attribute in order)])
        places = {attribute: str(index) for index, attribute in enumerate(order)}
        built.names = {path: places[name] for path, name in built.names.items()}
        built.others = {
            path: tuple(places[name] for name in names)
            for path, names in built.others.items()
        }
        return model

    class Owner:
        pass

    owner = Owner()
    vars(owner).update(made)
    return keras.Model(images, _run(steps, owner, images))


def _collect(model: keras.Model, built: Built) -> None:
    """Finds the layers with weights by the names that a diagnosis has for them."""
    by_name = named_layers(model)
    kinds = {item.path: item.kind for item in inlined(built.nodes)}
    for path, name in built.names.items():
        if kinds[path] in WEIGHTED and name in by_name:  # else it leads nowhere
            built.layers[path] = by_name[name]


def _note_flattened(built: Built) -> None:
    """Finds the dense layers that take a flattened map, and its shape."""
    by_path = {item.path: item for item in inlined(built.nodes)}
    for path, item in by_path.items():
        if item.kind != "dense":
            continue
        before = built.sources[path][0]
        while before and by_path[before].kind in ("dropout", "act"):
            before = built.sources[before][0]
        if before and by_path[before].kind == "flatten":
            order = by_path[before].get("order", "hwc")
            built.flattened[path] = (None, order)

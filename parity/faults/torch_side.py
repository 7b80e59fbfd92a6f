"""Writes the PyTorch side of a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from parity.frameworks import torch
from parity.faults import torch_layers
from parity.faults.spec import Built, Names, Nodes, Style, inlined, located, sources

nn = torch.nn


class _Step(NamedTuple):
    """One call: of a module by its attribute, or of a function."""

    output: str
    inputs: tuple[str, ...]
    attribute: str | None
    function: Callable | None


def build(nodes: Nodes, style: Style, size: tuple[int, int], channels: int) -> Built:
    """Returns the PyTorch module of nodes, in evaluation mode."""
    nodes = located(nodes)
    built = Built(None, nodes, sources=sources(nodes))
    images = torch.linspace(-1, 1, 2 * channels * size[0] * size[1])
    images = images.view(2, channels, *size)
    with torch.no_grad():
        shown = nodes if style.nested else inlined(nodes)
        built.model, _ = _block(shown, style, built, "", images, None)
    return built


def _block(
    nodes: Nodes, style: Style, built: Built, prefix: str, images: Any, flat: Any
) -> tuple[nn.Module, Any]:
    """Returns a module of nodes, and its output for images.

    Args:
        nodes: of the network, or of a block.
        style: how the side is written.
        built: takes down where the nodes are.
        prefix: of the names.
        images: or what the block is given.
        flat: the shape and the order of the map that was flattened to that, if any.
    """
    names, steps, modules, shared = Names(style), [], {}, {}
    values, maps = {"": images}, {"": flat}
    noted = []  # (path, whether it is the node's own, attribute)
    for item in nodes:
        inputs = [values[name] for name in item.inputs]
        if item.kind == "block":
            attribute = names.of(item)
            path = f"{prefix}{attribute}."
            given = (inputs[0], maps.get(item.inputs[0]))
            module, output = _block(item["nodes"], style, built, path, *given)
            modules[attribute], values[item.name] = module, output
            steps.append(_Step(item.name, item.inputs, attribute, None))
            continue
        if item.kind == "flatten":
            order = item.get("order", "chw")
            maps[item.name] = (tuple(inputs[0].shape[1:]), order)
        elif item.kind in ("dropout", "act"):
            maps[item.name] = maps.get(item.inputs[0])
        elif item.kind == "dense" and maps.get(item.inputs[0]):
            built.flattened[item.path] = maps[item.inputs[0]]
        given, sources_ = inputs, item.inputs
        made = torch_layers.parts(item, style, inputs)
        for index, (suffix, thing) in enumerate(made):
            last = index == len(made) - 1
            output = item.name if last else f"{item.name}.{index}"
            if not isinstance(thing, nn.Module):
                steps.append(_Step(output, sources_, None, thing))
                if not last:
                    built.loose.add(item.path)
            else:
                kind = repr(thing)
                attribute = style.shared and item.kind == "act" and shared.get(kind)
                attribute = attribute or names.of(item, suffix)
                shared[kind] = attribute
                modules.setdefault(attribute, thing)
                steps.append(_Step(output, sources_, attribute, None))
                noted.append((item.path, not suffix, attribute))
                thing.eval()
            result = thing(*[x.clone() for x in given])
            given, sources_ = [result], (output,)
        values[item.name] = given[0]
    linear = all(
        step.attribute and step.inputs == (before,)
        for step, before in zip(steps, ["", *(s.output for s in steps)], strict=False)
    )
    linear = linear and len({s.attribute for s in steps}) == len(steps)
    linear = linear and all(item.kind != "block" for item in nodes)
    if style.form == "sequential" and linear:
        places = {attribute: str(i) for i, attribute in enumerate(modules)}
        module = nn.Sequential(*modules.values())
    else:
        places = {attribute: attribute for attribute in modules}
        module = _module(modules, steps, style)
    for path, own, attribute in noted:
        name = prefix + places[attribute]
        if own:
            built.names[path], built.layers[path] = name, modules[attribute]
        else:
            built.others[path] = (*built.others.get(path, ()), name)
    return module.eval(), values[nodes[-1].name]


def _module(modules: dict[str, nn.Module], steps: list[_Step], style: Style):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            order = list(modules)
            for attribute in reversed(order) if style.backwards else order:
                setattr(self, attribute, modules[attribute])

        def forward(self, images):
            values = {"": images}
            for step in steps:
                inputs = [values[name] for name in step.inputs]
                call = step.function or getattr(self, step.attribute)
                values[step.output] = call(*inputs)
            return values[steps[-1].output]

    return Net()

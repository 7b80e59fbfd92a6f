"""Brings the steps of both sides to one form, where the same thing has several.

A border of zeros before a convolution is its padding, a vector that is added behind it
its bias; a mean over the whole map is a global pooling; `x * sigmoid(x)` is SiLU. What
a function of one number computes is told from its values.
"""

import math

import numpy as np

from parity.frameworks import torch
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.attention import name_attention
from parity.diagnosis.recording.functions import (
    classify,
    difference,
    name_functions,
    remove,
)
from parity.diagnosis.recording.graph import Graph, Step, Tensor
from parity.spec.tolerances import ROUNDED, TOLERANCES


def simplify(graph: Graph) -> None:
    """Changes a graph's steps in place, so that equal ones look alike."""
    for step in list(graph.steps):
        if step.kind == "dropout" and not step.parameters["active"]:
            remove(graph, step)
        elif step.kind == "dropout":
            _keep_mask(graph, step)
    name_attention(graph)
    _join_affine(graph)
    _merge_layers(graph)
    name_functions(graph)
    _name_differences(graph)
    _name_averages(graph)
    _name_counts(graph)
    _merge_scales(graph)
    _fold_crops(graph)
    _fold_pads(graph)
    _normalise(graph)
    _fold_biases(graph)
    for step in graph.steps:
        _as_dense(graph, step)
    check(graph)
    graph.drop_values()


def check(graph: Graph) -> None:
    """Makes opaque each step whose parameters do not give what it computed."""
    for step in graph.steps:
        if step.kind not in operations.KINDS or _is_random(step):
            continue
        inputs = graph.inputs_of(step)
        try:
            value = operations.run(step.kind, step.parameters, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError):
            value = None
        made = graph.values[step.output]
        if (
            value is None
            or value.numel() != made.numel()
            or difference(value.reshape(made.shape), made)
            > ROUNDED.get(step.kind, ROUNDED["constants"])
        ):
            step.kind = "opaque"


def _keep_mask(graph: Graph, step: Step) -> None:
    """Keeps the mask that was drawn, since another run would draw another."""
    (given,) = graph.inputs_of(step)
    made = graph.values[step.output].reshape(given.shape)
    step.parameters["mask"] = torch.where(given == 0, 1.0, made / given)


def _is_random(step: Step) -> bool:
    return step.kind == "dropout"


def _normalise(graph: Graph) -> None:
    for step in list(graph.steps):
        p = step.parameters
        shape = step.shapes[0]
        if step.kind == "group_norm" and p["groups"] == 1:
            step.kind = "layer_norm"
            axes = tuple(range(1, len(shape)))
            step.parameters = {"epsilon": p["epsilon"], "axes": axes}
            for name in ("gamma", "beta"):
                vector = p[name]
                if vector is not None:
                    vector = vector.reshape(1, -1, *[1] * (len(shape) - 2))
                step.parameters[name] = vector
        if step.kind == "scale" and bool((p["scale"] == 1).all()):
            if not p["shift"].any():
                remove(graph, step)
        elif step.kind == "pad" and not np.any(p["padding"]):
            remove(graph, step)
        elif step.kind == "adaptive_pool":
            if p["size"] == shape[2:]:
                remove(graph, step)
            elif all(s % t == 0 for s, t in zip(shape[2:], p["size"], strict=True)):
                size = tuple(s // t for s, t in zip(shape[2:], p["size"], strict=True))
                step.kind = "pool"
                step.parameters = _plain_pool(p["mode"], size)
        elif step.kind == "dense" and len(shape) == 4 and p.get("axis") == 1:
            step.kind = "conv"
            step.parameters = {
                "weight": p["weight"][:, :, None, None],
                "bias": p["bias"],
                "stride": (1, 1),
                "padding": ((0, 0), (0, 0)),
                "dilation": (1, 1),
                "groups": 1,
            }
        if step.kind == "pool" and step.parameters["size"] == shape[2:]:
            p = step.parameters
            if not np.any(p["padding"]) and p["mode"] in ("average", "max"):
                mode = "mean" if p["mode"] == "average" else "max"
                step.kind, step.parameters = "reduce", {"mode": mode, "axes": (2, 3)}


def _plain_pool(mode: str, size: tuple[int, int]) -> dict[str, object]:
    return {
        "mode": mode,
        "size": size,
        "stride": size,
        "padding": ((0, 0), (0, 0)),
        "border": -math.inf,
        "count_padding": False,
        "ceil": False,
    }


def _only_consumer(graph: Graph, number: int) -> Step | None:
    consumers = [step for step in graph.steps if number in step.inputs]
    if len(consumers) == 1 and number not in graph.outputs:
        return consumers[0]
    return None


def _fold_pads(graph: Graph) -> None:
    for pad in [step for step in graph.steps if step.kind == "pad"]:
        step = _only_consumer(graph, pad.output)
        if step is None or np.min(pad.parameters["padding"]) < 0:
            continue
        if step.kind == "pad" and _is_same_border(pad.parameters, step.parameters):
            padding = pad.parameters["padding"], step.parameters["padding"]
            step.parameters["padding"] = _sum(*padding)
            step.inputs, step.shapes = list(pad.inputs), list(pad.shapes)
            graph.steps.remove(pad)
            continue
        fold = {"conv": _fold_into_conv, "pool": _fold_into_pool}.get(step.kind)
        if fold is None or not fold(step.parameters, pad.parameters):
            continue
        step.pad = pad
        step.inputs, step.shapes = list(pad.inputs), list(pad.shapes)
        graph.steps.remove(pad)


def _is_same_border(p: dict, q: dict) -> bool:
    """Returns whether two borders, one around the other, are one of the same value."""
    values = [(b.get("mode", "constant"), b.get("value", 0.0)) for b in (p, q)]
    return values[0] == values[1] == ("constant", values[0][1]) and (
        np.min(q["padding"]) >= 0
    )


def _fold_into_conv(p: dict, pad: dict) -> bool:
    if np.any(p["padding"]):
        return False
    p["mode"], p["value"] = pad["mode"], pad["value"]
    p["padding"] = pad["padding"]
    return True


def _fold_into_pool(p: dict, pad: dict) -> bool:
    if np.any(p["padding"]) or p["ceil"] or pad["mode"] != "constant":
        return False
    if p["mode"] == "max":
        p["border"] = pad["value"]
    elif pad["value"] != 0:
        return False
    else:
        p["count_padding"] = True
    p["padding"] = pad["padding"]
    return True


def _sum(padding: tuple, more: tuple) -> tuple:
    return tuple(
        (before + b, after + a)
        for (before, after), (b, a) in zip(padding, more, strict=True)
    )


def _fold_biases(graph: Graph) -> None:
    for step in list(graph.steps):
        if step.kind not in ("conv", "conv_transpose", "dense"):
            continue
        after = _only_consumer(graph, step.output)
        if step.parameters["bias"] is not None or after is None:
            continue
        p = after.parameters
        if after.kind != "scale" or not bool((p["scale"] == 1).all()):
            continue
        if p["shift"].dim() != 1 or "shift" not in after.weights:
            continue
        step.parameters["bias"] = p["shift"]
        step.weights["bias"] = after.weights["shift"]
        step.output = after.output
        graph.steps.remove(after)


def _name_differences(graph: Graph) -> None:
    """Takes a value to which the negative of another is added for their difference."""
    for negative in [step for step in graph.steps if step.kind == "scale"]:
        after = _only_consumer(graph, negative.output)
        if after is None or after.kind != "merge" or after.parameters["mode"] != "add":
            continue
        (given,) = graph.inputs_of(negative)
        made = graph.values[negative.output].reshape(given.shape)
        different = difference(made, -given) > TOLERANCES["outputs"]
        twice = len(set(after.inputs)) == 1
        if negative.weights or different or twice or len(after.inputs) != 2:
            continue
        other = 1 - after.inputs.index(negative.output)
        after.inputs = [after.inputs[other], negative.inputs[0]]
        after.shapes = [after.shapes[other], negative.shapes[0]]
        after.parameters = {"mode": "subtract"}
        graph.steps.remove(negative)


def _name_averages(graph: Graph) -> None:
    """Takes a sum of n values that is then divided by n for their average."""
    for step in list(graph.steps):
        after = _only_consumer(graph, step.output)
        if step.kind != "merge" or step.parameters["mode"] != "add" or after is None:
            continue
        p = after.parameters
        if after.kind != "scale" or p["scale"].dim() or bool(p["shift"].any()):
            continue
        if math.isclose(float(p["scale"]), 1 / len(step.inputs), rel_tol=1e-12):
            step.parameters = {"mode": "average"}
            step.output = after.output
            graph.steps.remove(after)


def _name_counts(graph: Graph) -> None:
    """Takes an average that is divided by the share of real pixels for one of those."""
    for step in list(graph.steps):
        after = _only_consumer(graph, step.output)
        if (
            step.kind not in ("pool", "reduce")
            or after is None
            or after.kind != "opaque"
        ):
            continue
        source = step
        if step.kind == "pool" and step.parameters["mode"] == "average":
            pads = [
                s for s in graph.steps if s.kind == "pad" and s.output == step.inputs[0]
            ]
            p = dict(step.parameters, count_padding=False)
            if pads:
                p["padding"] = pads[0].parameters["padding"]
                source = pads[0]
            made = operations.run("pool", p, graph.inputs_of(source))
            wanted = graph.values[after.output]
            if made.shape == wanted.shape and difference(made, wanted) <= 1e-12:
                step.parameters, step.output = p, after.output
                step.inputs, step.shapes = list(source.inputs), list(source.shapes)
                graph.steps.remove(after)
                if pads:
                    step.pad = pads[0]
                    graph.steps.remove(pads[0])


def _merge_scales(graph: Graph) -> None:
    """Puts one product and sum for two that follow each other."""
    for step in list(graph.steps):
        after = _only_consumer(graph, step.output)
        if after is None or step.kind != "scale" or after.kind != "scale":
            continue
        if step.weights or after.weights:
            continue
        p, q = step.parameters, after.parameters
        after.parameters = {
            "scale": p["scale"] * q["scale"],
            "shift": p["shift"] * q["scale"] + q["shift"],
        }
        after.inputs, after.shapes = list(step.inputs), list(step.shapes)
        graph.steps.remove(step)


def _join_affine(graph: Graph) -> None:
    """Puts one step for a product with a weight and a sum with another."""
    for step in list(graph.steps):
        after = _only_consumer(graph, step.output)
        if after is None or step.kind != "scale" or after.kind != "scale":
            continue
        if set(step.weights) != {"scale"} or set(after.weights) != {"shift"}:
            continue
        p, q = step.parameters, after.parameters
        if p["shift"].any() or not bool((q["scale"] == 1).all()):
            continue
        after.parameters = {"scale": p["scale"], "shift": q["shift"]}
        after.weights = step.weights | after.weights
        after.inputs, after.shapes = list(step.inputs), list(step.shapes)
        graph.steps.remove(step)


def _fold_crops(graph: Graph) -> None:
    """Makes a border cut off a transposed convolution part of it."""
    for step in list(graph.steps):
        after = _only_consumer(graph, step.output)
        if step.kind != "conv_transpose" or after is None or after.kind != "pad":
            continue
        if np.max(after.parameters["padding"]) > 0:
            continue
        negative = tuple((-a, -b) for a, b in after.parameters["padding"])
        step.parameters["crop"] = _sum(step.parameters["crop"], negative)
        step.output = after.output
        graph.steps.remove(after)


def _merge_layers(graph: Graph) -> None:
    """Puts one step for what a user's own layer does, where no reader knows it."""
    names = dict.fromkeys(
        s.name for s in graph.steps if s.is_layer and s.kind == "opaque"
    )
    for name in names:
        inner = [s for s in graph.steps if s.is_layer and s.name == name]
        if len(inner) < 2 or any(s.kind in ("conv", "dense") for s in inner):
            continue
        made = {s.output for s in inner}
        sources = {n for s in inner for n in s.inputs} - made
        used = {n for s in graph.steps if s not in inner for n in s.inputs}
        used |= set(graph.outputs)
        results = made & used
        if len(sources) != 1 or len(results) != 1:
            continue
        (source,), (result,) = sources, results
        shape = next(
            shape
            for s in inner
            for n, shape in zip(s.inputs, s.shapes, strict=True)
            if n == source
        )
        step = Step(
            "opaque",
            name,
            type(inner[-1].owner).__name__ if inner[-1].owner else inner[-1].operation,
            [source],
            result,
            replay=_chain(inner, source, result),
            shapes=[shape],
        )
        if shape == graph.shapes[result]:
            _name_function(graph, step)
        graph.steps[graph.steps.index(inner[-1])] = step
        for other in inner[:-1]:
            graph.steps.remove(other)


def _name_function(graph: Graph, step: Step) -> None:
    """Names the function of each number that a layer of the user's computes."""
    made = graph.values[step.output]
    found = classify(graph.values[step.inputs[0]].reshape(made.shape), made)
    if found is not None and found[0] == "activation":
        step.kind, step.parameters = found


def _chain(steps: list[Step], source: int, result: int):
    """Returns a function that runs several steps, None if one cannot be run."""
    if any(s.kind not in operations.KINDS and s.replay is None for s in steps):
        return None

    def replay(inputs: list[Tensor]) -> Tensor:
        values = {source: inputs[0]}
        for step in steps:
            given = [
                values[n].reshape(shape)
                for n, shape in zip(step.inputs, step.shapes, strict=True)
            ]
            if step.kind in operations.KINDS:
                values[step.output] = operations.run(step.kind, step.parameters, given)
            else:
                values[step.output] = step.replay(given)
        return values[result]

    return replay


def _as_dense(graph: Graph, step: Step) -> None:
    """Makes a convolution over its whole input the dense layer that it is."""
    if step.kind != "conv":
        return
    p, shape = step.parameters, step.shapes[0]
    if (
        p["groups"] == 1
        and p["weight"].shape[2:] == shape[2:]
        and p["dilation"] == (1, 1)
    ):
        if np.any(p["padding"]) or graph.shapes[step.output][2:] not in ((1, 1), ()):
            return
        step.kind = "dense"
        step.parameters = {"weight": p["weight"].flatten(1), "bias": p["bias"]}

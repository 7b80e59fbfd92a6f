"""Names the cause of a pair of steps that differ, by exchanging its parameters.

One parameter of PyTorch's step is exchanged for Keras's, the step is run again on the
same inputs, and the explanation holds when the error is gone. Where no single one does,
the smallest set that does is looked for; where one side's step has no parameters that
are known, those of the other are searched for values that give its output.
"""

import itertools

import numpy as np

from parity.diagnosis.explaining.explanation import (
    GELUS,
    PLAIN,
    Explanation,
    not_finite,
    operation_of,
    same_value,
    shown,
    try_step,
    values_of,
)
from parity.diagnosis.explaining.images import explain_transform
from parity.diagnosis.explaining.recover import recover
from parity.diagnosis.explaining.tensors import explain_tensors
from parity.diagnosis.locate import TOLERANCE, Culprit
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Step
from parity.spec import padding as windows

# (kind, parameter) -> cause, where the parameter alone says it.
CAUSES = {
    ("conv", "stride"): "conv.stride",
    ("conv", "padding"): "conv.padding",
    ("conv", "mode"): "pad.value",
    ("conv", "value"): "pad.value",
    ("conv", "dilation"): "conv.dilation",
    ("conv", "groups"): "conv.groups",
    ("conv_transpose", "crop"): "conv.transposed_padding",
    ("conv_transpose", "stride"): "conv.stride",
    ("conv_transpose", "dilation"): "conv.dilation",
    ("conv_transpose", "groups"): "conv.groups",
    ("batch_norm", "epsilon"): "bn.epsilon",
    ("batch_norm", "training"): "bn.training_mode",
    ("layer_norm", "epsilon"): "ln.epsilon",
    ("layer_norm", "axes"): "ln.axes",
    ("group_norm", "epsilon"): "ln.epsilon",
    ("group_norm", "groups"): "ln.axes",
    ("lrn", "alpha"): "lrn.alpha",
    ("lrn", "beta"): "lrn.beta",
    ("lrn", "size"): "lrn.size",
    ("lrn", "k"): "lrn.k",
    ("pool", "mode"): "pool.kind",
    ("pool", "size"): "pool.size",
    ("pool", "stride"): "pool.stride",
    ("pool", "padding"): "pool.padding",
    ("pool", "count_padding"): "pool.count_padding",
    ("pool", "border"): "pool.border",
    ("pool", "ceil"): "pool.ceil_mode",
    ("reduce", "mode"): "pool.kind",
    ("reduce", "axes"): "reshape.order",
    ("adaptive_pool", "mode"): "pool.kind",
    ("adaptive_pool", "size"): "pool.size",
    ("pad", "padding"): "pad.amount",
    ("pad", "value"): "pad.value",
    ("pad", "mode"): "pad.value",
    ("softmax", "axis"): "softmax.axis",
    ("softmax", "log"): "activation.kind",
    ("merge", "mode"): "merge.kind",
    ("merge", "axis"): "merge.kind",
    ("resize", "method"): "resize.method",
    ("resize", "grid"): "resize.grid",
    ("resize", "size"): "resize.grid",
    ("resize", "antialias"): "resize.antialias",
    ("dropout", "rate"): "dropout.rate",
    ("dropout", "active"): "dropout.active",
    ("join", "axis"): "merge.kind",
    ("join", "first"): "merge.order",
    ("attention", "heads"): "attention.heads",
    ("attention", "scale"): "attention.scale",
    ("attention", "causal"): "attention.mask",
    ("attention", "over"): "softmax.axis",
    ("attention", "split"): "reshape.order",
    ("attention", "joined"): "reshape.order",
}


def explain_step(culprit: Culprit, context: dict) -> list[Explanation]:
    """Returns every cause of a pair that differs; none where nothing fits."""
    k, t = culprit.keras_step, culprit.torch_step
    nan = not_finite(culprit)
    if nan:
        return nan
    inputs, wanted = culprit.inputs, culprit.output
    if k.kind == "merge" and t.kind == "merge":
        order = _order(culprit)
        if order:
            return order
    if k.kind == t.kind and k.kind in operations.KINDS:
        return _by_parameters(culprit, context)
    if {k.kind, t.kind} == {"pool", "reduce"} or {k.kind, t.kind} <= {
        "pool",
        "reduce",
        "adaptive_pool",
    }:
        modes = {"mean": "average", "sum": "sum"}
        ours, theirs = (
            modes.get(s.parameters["mode"], s.parameters["mode"]) for s in (k, t)
        )
        cause = "pool.kind" if ours != theirs else "pool.size"
        after = try_step(k.kind, k.parameters, inputs, wanted)
        if after <= TOLERANCE:
            return [Explanation(cause, culprit.error, after, values_of(ours, theirs))]
    if k.kind in operations.KINDS and t.kind in operations.KINDS:
        after = try_step(k.kind, k.parameters, inputs, wanted)
        cause = "activation.kind"
        if {k.kind, t.kind} == {"layer_norm", "group_norm"}:
            cause = "ln.axes"
        elif {k.kind, t.kind} & {"batch_norm", "layer_norm", "group_norm", "lrn"}:
            cause = "operation.different"
        if {k.kind, t.kind} & {"conv", "dense", "conv_transpose", "resize"}:
            cause = "operation.different"
        if after <= TOLERANCE:
            values = values_of(operation_of(k), operation_of(t))
            return [Explanation(cause, culprit.error, after, values)]
    return _recovered(culprit) or _otherwise(culprit)


def _otherwise(culprit: Culprit) -> list[Explanation]:
    """Explains two operations by what they make of the same numbers."""
    k, t = culprit.keras_step, culprit.torch_step
    found = explain_transform(culprit.output, culprit.found)
    if found and found[0].cause == "reshape.order":
        if k.operation.lower() != t.operation.lower():
            found[0].ties = ("operation.different",)
        return found
    if k.kind != t.kind or k.operation.lower() != t.operation.lower():
        values = values_of(k.operation, t.operation)
        return [Explanation("operation.different", culprit.error, None, values)]
    return []


def _by_parameters(culprit: Culprit, context: dict) -> list[Explanation]:
    k, t = culprit.keras_step, culprit.torch_step
    inputs, wanted = culprit.inputs, culprit.output
    names = sorted({*k.parameters, *t.parameters})
    differing = [
        name
        for name in names
        if not same_value(k.parameters.get(name), t.parameters.get(name))
    ]
    if not differing:
        return []

    def error(changed) -> float:
        changes = {name: k.parameters[name] for name in changed if name in k.parameters}
        parameters = t.parameters | changes
        for name in changed:
            if name not in k.parameters:
                parameters.pop(name)
        return try_step(k.kind, parameters, inputs, wanted)

    singles = [name for name in differing if error([name]) <= TOLERANCE]
    if singles:
        chosen = [[singles[0]]]
        ties = singles[1:]
    else:
        if error(differing) > TOLERANCE:
            return _recovered(culprit)
        needed = list(differing)
        for name in differing:
            rest = [other for other in needed if other != name]
            if error(rest) <= TOLERANCE:
                needed = rest
        chosen, ties = _sets(needed), []
    found = []
    for changed in chosen:
        others = [name for group in chosen if group != changed for name in group]
        before = error(others) if others else culprit.error
        after = error([*others, *changed])
        causes = [cause_of(k, t, name, context) for name in ties]
        found += _name(culprit, changed, before, after, tuple(causes), context)
    return found


def _sets(needed: list[str]) -> list[list[str]]:
    """Returns parameters that must all change, those of one mistake together."""
    if "training" in needed:
        norm = [n for n in needed if n in ("training", "mean", "variance")]
        return [norm, *_sets([n for n in needed if n not in norm])]
    weights = [
        name
        for name in needed
        if name in ("weight", "bias", "gamma", "beta", "mean", "variance")
    ]
    if "weight" in needed and "groups" in needed:
        together = [n for n in needed if n in ("weight", "bias", "groups")]
    else:
        together = weights
    pads = [name for name in needed if name in ("padding", "mode", "value")]
    heads = [name for name in needed if name in ("heads", "scale")]
    if "heads" not in heads:  # their number makes the scale
        heads = []
    order = [name for name in needed if name in ("split", "joined")]
    groups = (together, pads, heads, order)
    rest = [[name] for name in needed if not any(name in group for group in groups)]
    return [group for group in (*groups, *rest) if group]


def _name(culprit, changed, before, after, ties, context) -> list[Explanation]:
    """Returns the explanation of a set of parameters that must change together."""
    k, t = culprit.keras_step, culprit.torch_step
    if "training" in changed:
        values = values_of(k.parameters["training"], t.parameters["training"])
        return [Explanation("bn.training_mode", before, after, values, ties)]
    tensors = [n for n in changed if n in operations.TENSORS.get(k.kind, ())]
    if "groups" in changed and k.kind != "group_norm":
        values = values_of(k.parameters["groups"], t.parameters["groups"])
        return [Explanation("conv.groups", before, after, values, ties)]
    ours, theirs = k.parameters.get("weight"), t.parameters.get("weight")
    if "weight" in changed and ours.shape != theirs.shape:
        values = values_of(tuple(ours.shape), tuple(theirs.shape))
        same = k.kind == "conv" and ours.shape[2:] != theirs.shape[2:]
        cause = "conv.kernel_size" if same else "operation.different"
        return [Explanation(cause, before, after, values, ties)]
    if tensors and k.kind not in ("activation", "scale"):
        named = explain_tensors(k, t, tensors, culprit.inputs, context)
        return [
            Explanation(cause, before, after, values, (*more, *ties))
            for cause, values, more in named
        ]
    name = changed[0]
    values = values_of(k.parameters.get(name), t.parameters.get(name))
    if k.kind == "scale":
        values = {
            side: {n: shown(step.parameters[n]) for n in ("scale", "shift")}
            for side, step in (("keras", k), ("torch", t))
        }
    if k.kind == "activation" and name == "function":
        values = values_of(operation_of(k), operation_of(t))
    own = ("padding", "mode", "value") if k.kind == "conv" else ("padding",)
    if name in own and (k.pad or t.pad):
        return [_separate_pad(culprit, changed, before, after, ties, context)]
    if k.kind == "pool" and name == "padding":
        ties = (*ties, *_rounds_up(culprit))
    cause = cause_of(k, t, name, context)
    if cause == "activation.kind" and PLAIN & {operation_of(k), operation_of(t)}:
        ties = (*ties, "operation.different")
    return [Explanation(cause, before, after, values, ties)]


def _separate_pad(culprit, changed, before, after, ties, context) -> Explanation:
    """Explains a padding that is a step of its own on one side at least."""
    k, t = culprit.keras_step, culprit.torch_step
    name = "padding" if "padding" in changed else changed[0]
    values = values_of(k.parameters.get(name), t.parameters.get(name))
    own = [
        np.subtract(step.parameters["padding"], step.pad.parameters["padding"])
        if step.pad
        else np.array(step.parameters["padding"])
        for step in (k, t)
    ]
    if k.pad and t.pad:
        cause = "pad.amount" if "padding" in changed else "pad.value"
    elif np.array_equal(*own):
        cause = "pad.missing"
    else:
        cause = "pad.value" if name != "padding" else "conv.padding"
    if cause != "conv.padding" and k.kind == "conv":
        ties = (*ties, "conv.padding")
    if k.kind == "pool":
        cause = "pad.missing" if cause == "pad.missing" else "pool.padding"
        ties = (*ties, "pool.padding", *_rounds_up(culprit))
    if cause == "conv.padding":
        return Explanation(cause, before, after, values, ties, k, t)
    places = [step.pad if step.pad and step.pad.is_layer else step for step in (k, t)]
    return Explanation(cause, before, after, values, ties, *places)


def _rounds_up(culprit: Culprit) -> tuple[str, ...]:
    """Returns the cause of rounding sizes up where a padding at the end does that."""
    p = culprit.keras_step.parameters
    sizes = culprit.inputs[0].shape[2:]
    pads = [
        culprit.keras_step.parameters["padding"],
        culprit.torch_step.parameters["padding"],
    ]
    more = np.abs(np.subtract(*pads))
    ends = [
        windows.ceil_padding(size, window, step, *least)
        for size, window, step, least in zip(
            sizes, p["size"], p["stride"], np.minimum(*pads).tolist(), strict=True
        )
    ]
    same = not more[:, 0].any() and more[:, 1].tolist() == ends
    return ("pool.ceil_mode",) if same else ()


def cause_of(k: Step, t: Step, name: str, context: dict) -> str:
    """Returns the cause that a differing parameter is."""
    if k.kind == "activation":
        functions = {k.parameters["function"], t.parameters["function"]}
        if functions <= GELUS:
            return "gelu.approximation"
        if functions == {"leaky_relu"}:
            return "leaky.slope"
        if len(functions) == 1:
            return "activation.parameter"
        return "activation.kind"
    if k.kind == "scale":
        at_input = context["torch"].inputs[0] in t.inputs
        if not at_input:
            return "weights.different" if t.weights else "scale.missing"
        return input_cause(k.parameters, t.parameters)
    if name in operations.TENSORS.get(k.kind, ()):
        if name == "bias" and None in (k.parameters[name], t.parameters[name]):
            return "bias.missing"
        return "weights.different"
    return CAUSES.get((k.kind, name), "operation.different")


def input_cause(ours: dict, theirs: dict) -> str:
    """Returns whether two normalisations differ by a factor or by means too."""
    shift = max(float(p["shift"].abs().max()) for p in (ours, theirs))
    vectors = any(p["scale"].dim() for p in (ours, theirs))
    return "input.mean_std" if vectors or shift > 1e-12 else "input.scale"


def _order(culprit: Culprit) -> list[Explanation]:
    """Explains a concatenation (or difference) whose inputs stand in another order."""
    k, t = culprit.keras_step, culprit.torch_step
    if k.parameters != t.parameters or len(culprit.inputs) > 6:
        return []
    for order in itertools.permutations(range(len(culprit.inputs))):
        given = [culprit.inputs[i] for i in order]
        after = try_step(t.kind, t.parameters, given, culprit.output)
        if after <= TOLERANCE:
            plain = list(range(len(order)))
            values = {"keras": list(order), "torch": plain}
            return [Explanation("merge.order", culprit.error, after, values)]
    return []


def _recovered(culprit: Culprit) -> list[Explanation]:
    """Searches the parameters of the side that is known for the other's output."""
    k, t = culprit.keras_step, culprit.torch_step
    if culprit.found is None:
        return []
    sides = []
    if k.kind in operations.KINDS:
        sides.append((k, culprit.found, "torch"))
    if t.kind in operations.KINDS:
        sides.append((t, culprit.output, "keras"))
    for step, target, other in sides:
        found = recover(step.kind, step.parameters, culprit.inputs, target)
        if found is None:
            continue
        name, value, after = found
        own = "keras" if other == "torch" else "torch"
        values = {own: shown(step.parameters[name]), other: shown(value)}
        cause = cause_of_recovered(step, name, value)
        return [Explanation(cause, culprit.error, after, values)]
    return []


def cause_of_recovered(step: Step, name: str, value: object) -> str:
    """Returns the cause that another value of one parameter of a step is."""
    if step.kind != "activation":
        return CAUSES.get((step.kind, name), "operation.different")
    other = Step(step.kind, "", "", [], 0, step.parameters | {name: value})
    return cause_of(step, other, name, {})

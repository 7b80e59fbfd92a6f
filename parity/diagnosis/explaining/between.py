"""Names the cause of what stands between two pairs of partners on one side only."""

from parity.diagnosis.explaining.explanation import (
    PLAIN,
    Explanation,
    not_finite,
    operation_of,
    shown,
    try_step,
    values_of,
)
from parity.diagnosis.explaining.images import explain_images, explain_transform
from parity.diagnosis.explaining.pair import cause_of_recovered
from parity.diagnosis.explaining.recover import recover
from parity.diagnosis.locate import TOLERANCE, Culprit
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Step, Tensor
from parity.diagnosis.replay import error_between

MISSING = {
    "activation": "activation.missing",
    "softmax": "softmax.missing",
    "scale": "scale.missing",
    "pad": "pad.missing",
    "batch_norm": "bn.missing",
    "dropout": "dropout.active",
    "conv": "layer.missing",
    "dense": "layer.missing",
    "conv_transpose": "layer.missing",
    "pool": "layer.missing",
    "reduce": "layer.missing",
    "adaptive_pool": "layer.missing",
    "lrn": "layer.missing",
    "layer_norm": "layer.missing",
    "group_norm": "layer.missing",
    "resize": "layer.missing",
    "attention": "layer.missing",
    "join": "layer.missing",
    "merge": "shortcut.missing",
    "transpose": "reshape.order",
}


def explain_before(culprit: Culprit, context: dict) -> list[Explanation]:
    """Returns every cause of inputs that differ; none where nothing fits."""
    nan = not_finite(culprit)
    if nan:
        return nan
    k, t = culprit.keras_step, culprit.torch_step
    only_keras, only_torch = culprit.only_keras, culprit.only_torch
    if k is not None and k.kind == "merge" and len(k.inputs) != len(t.inputs):
        values = values_of(len(k.inputs), len(t.inputs))
        after = try_step(k.kind, k.parameters, culprit.inputs, culprit.output)
        return [Explanation("shortcut.missing", culprit.error, after, values)]
    if culprit.at_input:
        found = explain_images(culprit)
        if found:
            return found
    if only_keras and only_torch:
        return explain_between_both(culprit)
    if only_keras or only_torch:
        side = "keras" if only_keras else "torch"
        return _one_sided(culprit, only_keras or only_torch, side, context)
    found = explain_transform(culprit.output, culprit.found)
    if found:
        return found
    if k is not None and k.kind == "merge":
        return [Explanation("shortcut.missing", culprit.error, None, {})]
    return []


def _one_sided(culprit, steps: list[Step], side: str, context) -> list[Explanation]:
    """Explains a value by steps that only one side takes."""
    other = "torch" if side == "keras" else "keras"
    graph = context[side]
    partner = _step_before(culprit, context[other], side)
    after = _after(culprit, side)
    found = []
    for step in steps:
        cause = MISSING.get(step.kind, "operation.different")
        if _twice(graph, step):
            cause = f"{step.kind}.twice"
        ties = ()
        if step.kind == "activation" and step.parameters["function"] in PLAIN:
            cause, ties = "operation.different", (cause,)
        if step.kind == "opaque":
            transform = explain_transform(culprit.output, culprit.found)
            if transform:
                cause = transform[0].cause
        word = step.operation if step.kind == "opaque" else operation_of(step)
        values = {side: word, other: None}
        where = {f"{side}_step": step, f"{other}_step": partner}
        found.append(Explanation(cause, culprit.error, after, values, ties, **where))
    return found


def _after(culprit: Culprit, side: str) -> float | None:
    """Returns the error with the other side's steps added, or without one's own.

    None where that cannot be run, or does not take the error away.
    """
    if side == "torch":
        value = culprit.without
    else:
        value = _run_all(culprit.only_keras, culprit.base)
    after = None if value is None else error_between(value, culprit.output)
    return after if after is not None and after <= TOLERANCE else None


def _run_all(steps: list[Step], base: list) -> Tensor | None:
    """Returns what Keras's steps make of the values that they begin with."""
    known = all(step.kind in operations.KINDS for step in steps)
    inner = {step.output for step in steps}
    outside = [n for step in steps for n in step.inputs if n not in inner]
    if not known or len(outside) != len(base):
        return None
    values = dict(zip(outside, base, strict=True))
    for step in steps:
        given = [
            values[number].reshape(shape)
            for number, shape in zip(step.inputs, step.shapes, strict=True)
        ]
        values[step.output] = operations.run(step.kind, step.parameters, given)
    return values[steps[-1].output]


def _twice(graph, step: Step) -> bool:
    """Returns whether the same activation stands before or behind a step."""
    if step.kind not in ("activation", "softmax"):
        return False
    before = graph.producers().get(step.inputs[0])
    behind = [other for other in graph.steps if step.output in other.inputs]
    return any(
        other.kind == step.kind
        and other.parameters.get("function") == step.parameters.get("function")
        for other in (before, *behind)
        if other is not None
    )


def _step_before(culprit: Culprit, graph, side: str) -> Step | None:
    """Returns the step before the place where the other side lacks some."""
    following = culprit.torch_step if side == "keras" else culprit.keras_step
    producers = graph.producers()
    if following is None:
        return producers.get(graph.outputs[0])
    inputs = [producers.get(number) for number in following.inputs]
    return next((step for step in inputs if step is not None), None)


def explain_between_both(culprit: Culprit) -> list[Explanation]:
    """Explains a place where each side has steps that the other has not."""
    ours, theirs = culprit.only_keras, culprit.only_torch
    base = culprit.base
    for steps, target, other in (
        (ours, culprit.found, "torch"),
        (theirs, culprit.output, "keras"),
    ):
        if len(steps) != 1 or steps[0].kind not in operations.KINDS or target is None:
            continue
        found = recover(steps[0].kind, steps[0].parameters, base, target)
        if found:
            name, value, after = found
            own = "keras" if other == "torch" else "torch"
            values = {own: shown(steps[0].parameters[name]), other: shown(value)}
            cause = cause_of_recovered(steps[0], name, value)
            return [
                Explanation(
                    cause,
                    culprit.error,
                    after,
                    values,
                    (),
                    ours[-1],
                    theirs[-1],
                )
            ]
    values = {
        "keras": ", ".join(step.operation for step in ours),
        "torch": ", ".join(step.operation for step in theirs),
    }
    kinds = {step.kind for step in (*ours, *theirs)}
    cause = (
        "activation.kind"
        if kinds <= {"activation", "softmax", "scale", "opaque"}
        else ("operation.different")
    )
    return [Explanation(cause, culprit.error, None, values, (), ours[-1], theirs[-1])]

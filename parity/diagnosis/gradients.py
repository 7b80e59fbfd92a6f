"""The levels above the forward pass: gradients, the loss, and steps of training.

Each side's own gradients are held against those that its steps have by the chain rule:
where the gradient that arrives at a value is not the sum of what the steps behind it
send back, something stops it or scales it there. No layer is blamed for what others do.
"""

import math
from dataclasses import replace

import numpy as np

from parity.frameworks import keras, tf, torch
from parity import probe
from parity.diagnosis.case import Case
from parity.diagnosis.causes import fixes
from parity.diagnosis.copying import parameter_pairs
from parity.diagnosis.findings import Diagnosis, Finding
from parity.diagnosis.recording import keras_graph, operations, torch_graph
from parity.diagnosis.recording.functions import difference
from parity.diagnosis.recording.graph import Graph, Step, Tensor
from parity.diagnosis.recording.simplify import simplify
from parity.diagnosis.replay import run
from parity.diagnosis.training.losses import explain_loss, penalty
from parity.diagnosis.training.trainings import (
    NormPair,
    diagnose_training,
    explain_frozen,
)
from parity.precision import keras_as, torch_as, untouched_state
from parity.spec.errors import UsageError
from parity.spec.tolerances import ROUNDED

Gradients = dict[int, Tensor | None]


def diagnose_levels(
    diagnosis: Diagnosis,
    case: Case,
    keras_model: keras.Model,
    torch_model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray | None,
    *,
    keras_loss: object = None,
    torch_loss: object = None,
    keras_optimizer: keras.optimizers.Optimizer | None = None,
    torch_optimizer: torch.optim.Optimizer | None = None,
    **training: object,
) -> Diagnosis:
    """Returns a forward diagnosis with the findings of the levels above it.

    Args:
        diagnosis: of the forward pass.
        case: both sides' steps.
        keras_model: as in `diagnose`.
        torch_model: as in `diagnose`.
        images: NHWC.
        labels: of the images; None draws them.
        keras_loss: called with labels and outputs; None takes the compiled one, or the
            cross-entropy of logits.
        torch_loss: called with outputs and labels; None for the cross-entropy.
        keras_optimizer: None takes the compiled one.
        torch_optimizer: over the model's parameters.
        **training: see `diagnose_training`.
    """
    outputs = case.keras.outputs_of(case.keras.values)
    if labels is None:
        labels = probe.labels(len(images), max(2, outputs[0].shape[1]))
    compiled = getattr(keras_model, "compiled", False)
    if keras_loss is None:
        keras_loss = (compiled and keras_model.loss) or (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    if keras_optimizer is None and compiled:
        keras_optimizer = keras_model.optimizer
    torch_loss = torch_loss or torch.nn.CrossEntropyLoss()
    pairs, parts = parameter_pairs(case, keras_model, torch_model, images)
    frozen = explain_frozen(parts, None)
    findings, notes = list(diagnosis.findings), list(diagnosis.notes)
    try:
        findings += explain_loss(
            keras_loss,
            torch_loss,
            _channels_last(outputs[0]),
            _channels_last(case.free.outputs[0]),
            np.asarray(labels),
            keras_penalty=penalty(keras_model),
            torch_decays=_decays(torch_optimizer),
        )
        if diagnosis.level == "training":
            findings += _dropouts(case)
        findings += _stopped(case, keras_model, torch_model, images)
        if diagnosis.level == "backward":
            frozen += explain_frozen(pairs, None)
            findings += [replace(finding, level="backward") for finding in frozen]
        else:
            findings += frozen
            findings += diagnose_training(
                pairs,
                keras_model,
                torch_model,
                images,
                np.asarray(labels),
                keras_loss=keras_loss,
                torch_loss=torch_loss,
                keras_optimizer=keras_optimizer,
                torch_optimizer=torch_optimizer,
                norms=_norms(case),
                **training,
            )
            if keras_optimizer is None:
                notes.append("no optimizer was given, so no step was judged")
    except ValueError as error:
        raise UsageError(str(error)) from None
    verdict = "different" if findings else diagnosis.verdict
    return replace(
        diagnosis, verdict=verdict, findings=tuple(findings), notes=tuple(notes)
    )


def _channels_last(value: Tensor) -> np.ndarray:
    return (value.movedim(1, -1) if value.dim() > 2 else value).numpy()


def _decays(optimizer: torch.optim.Optimizer | None) -> bool:
    groups = optimizer.param_groups if optimizer is not None else ()
    return any(group.get("weight_decay") for group in groups)


def _dropouts(case: Case) -> list[Finding]:
    """Returns the dropout layers of another rate, by the same random numbers."""
    ours, theirs = case.keras.dropouts, case.torch.dropouts
    found = []
    for (name, rate, number), (other, other_rate, _) in zip(ours, theirs, strict=False):
        if math.isclose(rate, other_rate, rel_tol=1e-6):
            continue
        value = case.keras.values[number]
        generator = torch.Generator().manual_seed(0)
        draws = torch.rand(value.shape, generator=generator, dtype=torch.float64)
        dropped = [
            value * (draws >= p) / max(1 - p, 1e-300) for p in (rate, other_rate)
        ]
        error = difference(dropped[1], dropped[0])
        values = {"keras": rate, "torch": other_rate}
        found.append(_finding("dropout.rate", name, other, error, 0.0, values))
    return [replace(finding, level="training") for finding in found]


def _norms(case: Case) -> list[NormPair]:
    """Returns the BatchNorms that are partners, with what comes into Keras's."""
    return [
        NormPair(
            [_channels_last(case.keras.inputs_of(k)[0])],
            k.owner,
            t.owner,
            k.name,
            t.name,
        )
        for k, t in case.pairs
        if k.kind == t.kind == "batch_norm"
        and k.owner is not None
        and isinstance(t.owner, torch.nn.modules.batchnorm._BatchNorm)
    ]


def _finding(cause, keras_name, torch_name, before, after, values) -> Finding:
    fix, keras_fix = fixes(cause, values.get("keras"), values.get("torch"))
    return Finding(
        cause, keras_name, torch_name, before, after, fix, keras_fix, "backward", values
    )


def _stopped(case, keras_model, torch_model, images: np.ndarray) -> list[Finding]:
    """Returns where one side alone stops or scales the gradient."""
    ours = {_place(case, "keras", s): s for s in _keras_breaks(keras_model, images)}
    theirs = {_place(case, "torch", s): s for s in _torch_breaks(torch_model, images)}
    found = []
    for key in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(key), theirs.get(key)
        if mine and other and math.isclose(mine[2], other[2], rel_tol=1e-6):
            continue
        cause = "gradient.stopped"
        ratios = [b[2] for b in (mine, other) if b]
        if any(ratio != 0 for ratio in ratios):
            cause = "gradient.scaled"
        values = {
            "keras": f"times {mine[2]:.6g}" if mine else "as it is",
            "torch": f"times {other[2]:.6g}" if other else "as it is",
        }
        error = max(b[1] for b in (mine, other) if b)
        names = _names(case, key)
        found.append(_finding(cause, *names, error, 0.0, values))
    return found


def _place(case, side: str, break_: tuple) -> str:
    """Returns a key of a place that is the same on both sides."""
    index = 0 if side == "keras" else 1
    for number, pair in enumerate(case.pairs):
        step = pair[index]
        if (step.name, step.kind) == break_[0]:
            return f"pair {number}"
    return f"{side} {break_[0][0]}"


def _names(case, key: str) -> tuple[str | None, str | None]:
    word, rest = key.split(" ", 1)
    if word == "pair":
        return tuple(step.name for step in case.pairs[int(rest)])
    return (rest, None) if word == "keras" else (None, rest)


def _keras_breaks(model: keras.Model, images: np.ndarray) -> list[tuple]:
    arrays: dict[int, list[tf.Tensor]] = {}
    with keras_as(model, "float64", "cpu") as cast, tf.GradientTape() as tape:
        graph = keras_graph.record(cast, images, arrays, tape)
        seeds = _seeds(graph)
        total = tf.add_n(
            [
                tf.reduce_sum(arrays[n][-1] * graph.views[n].array(seed).numpy())
                for n, seed in seeds.items()
            ]
        )
    numbers = [n for n in graph.values if n in arrays]
    gradients = tape.gradient(total, {n: arrays[n] for n in numbers})
    live: Gradients = {}
    for number, found in gradients.items():
        # An array made inside a function with a gradient of its own has none.
        first = next((gradient for gradient in found if gradient is not None), None)
        live[number] = None
        if first is not None:
            array = torch.from_numpy(np.array(first, np.float64))
            live[number] = graph.views[number].value(array)
    simplify(graph)
    return _breaks(graph, live, seeds)


def _torch_breaks(model: torch.nn.Module, images: np.ndarray) -> list[tuple]:
    arrays: dict[int, list[Tensor]] = {}
    tensor = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).requires_grad_()
    with torch_as(model, "float64", "cpu") as cast, untouched_state():
        graph = torch_graph.record(cast, tensor, arrays)
        seeds = _seeds(graph)
        total = sum(
            (arrays[n][-1] * graph.views[n].array(seed)).sum()
            for n, seed in seeds.items()
        )
        if not total.requires_grad:
            total = total + 0 * tensor.sum()
        total.backward()
        live: Gradients = {}
        last = {id(array): n for n, found in arrays.items() for array in found}
        for number in graph.values:
            array = arrays.get(number, [None])[0]
            if array is None or last[id(array)] != number:
                continue  # overwritten in place
            gradient = array.grad if array.requires_grad else None
            view = graph.views[number]
            live[number] = None if gradient is None else view.value(gradient).clone()
    simplify(graph)
    return _breaks(graph, live, seeds)


def _seeds(graph: Graph) -> dict[int, Tensor]:
    """Returns a gradient for each output, the same on both sides."""
    generator = torch.Generator().manual_seed(0)
    return {
        number: torch.randn(
            graph.shapes[number], generator=generator, dtype=torch.float64
        )
        for number in graph.outputs
    }


def _breaks(graph: Graph, live: Gradients, seeds: dict[int, Tensor]) -> list[tuple]:
    """Returns ((layer, kind), error, factor) where a gradient does not obey the rule.

    Args:
        graph: simplified.
        live: the gradients that the framework computed; those it did not keep lack.
        seeds: the gradients at the outputs.
    """
    zero = {
        n: torch.zeros(shape, dtype=torch.float64) for n, shape in graph.shapes.items()
    }
    expected: dict[int, Tensor | None] = {}
    for number, seed in seeds.items():
        expected[number] = seed.clone()
    found = []
    producers = graph.producers()
    for step in reversed(graph.steps):
        number = step.output
        rule = expected.get(number, zero[number])
        arrived = rule
        if number in live and rule is not None:
            arrived = live[number] if live[number] is not None else zero[number]
            arrived = arrived.reshape(rule.shape)
            error = difference(arrived, rule) if rule.any() else 0.0
            # Less than this TensorFlow leaves where it rounds the constants of a GELU.
            if error > ROUNDED["constants"]:
                factor = float((arrived * rule).sum() / rule.square().sum())
                found.append(((step.name, step.kind), error, round(factor, 9)))
        elif number in live:
            arrived = live[number] if live[number] is not None else zero[number]
        sent = _sent_back(graph, step, arrived)
        for position, source in enumerate(step.inputs):
            if source not in producers:
                continue
            part = None if sent is None else sent[position].reshape(zero[source].shape)
            before = expected.get(source, zero[source])
            expected[source] = None if part is None or before is None else before + part
    return found


def _sent_back(
    graph: Graph, step: Step, gradient: Tensor | None
) -> list[Tensor] | None:
    """Returns what a step sends back to its inputs, None where it is not known."""
    if gradient is None or (step.kind not in operations.KINDS and step.replay is None):
        return None
    inputs = [value.clone().requires_grad_() for value in graph.inputs_of(step)]
    try:
        with torch.enable_grad():
            output = run(step, inputs)
            parts = torch.autograd.grad(
                output, inputs, gradient.reshape(output.shape), allow_unused=True
            )
    except RuntimeError:
        return None
    return [
        torch.zeros_like(x) if part is None else part
        for x, part in zip(inputs, parts, strict=True)
    ]

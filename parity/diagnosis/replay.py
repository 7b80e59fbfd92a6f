"""Runs PyTorch's steps again, on its own values or on Keras's."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from parity.diagnosis.recording import operations
from parity.diagnosis.recording.functions import difference
from parity.diagnosis.recording.graph import Graph, Step, Tensor, same_size
from parity.spec.tolerances import ROUNDED


@dataclass
class FreeRun:
    """What PyTorch's side computes on its own images.

    Attributes:
        inherited: by the id of a step with a partner, the relative L2 error of what
            comes in, held against what comes into the partner.
        outputs: what the model returns; None where a step cannot be run.
    """

    inherited: dict[int, float]
    outputs: list[Tensor | None]


def run(step: Step, inputs: list[Tensor]) -> Tensor:
    """Returns what a step of PyTorch computes from other inputs."""
    if step.kind in operations.KINDS:
        return operations.run(step.kind, _resized(step, inputs), inputs)
    return step.replay(inputs)


def _resized(step: Step, inputs: list[Tensor]) -> dict[str, object]:
    """Returns a step's parameters; a resize by a whole factor keeps that factor."""
    given, own = inputs[0].shape[2:], step.shapes[0][2:]
    if step.kind != "resize" or given == own:
        return step.parameters
    size = step.parameters["size"]
    factors = [new / old for new, old in zip(size, own, strict=True)]
    if any(factor != int(factor) for factor in factors):
        return step.parameters
    size = tuple(int(f) * x for f, x in zip(factors, given, strict=True))
    return step.parameters | {"size": size}


def shaped(step: Step, inputs: list[Tensor]) -> list[Tensor]:
    """Returns values in the shapes that a step takes, where that can be."""
    return [
        x.reshape(shape) if same_size(tuple(x.shape), shape) else x
        for x, shape in zip(inputs, step.shapes, strict=True)
    ]


def in_shape(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns a value in another shape, if that only joins, parts or drops axes.

    A map whose height and width are exchanged is another map, which a reshape mixes.
    """
    axes, wanted = ([size for size in x if size > 1] for x in (value.shape, shape))
    same = same_size(tuple(value.shape), shape)
    fits = len(axes) != len(wanted) or axes == wanted
    return value.reshape(shape) if same and fits else value


def error_between(value: Tensor | None, reference: Tensor) -> float:
    """Returns the relative L2 error, infinite where the sizes differ."""
    if value is None or not same_size(tuple(value.shape), tuple(reference.shape)):
        return math.inf
    return difference(value.reshape(reference.shape), reference)


def is_rounding(error: float) -> bool:
    """Returns whether a constant that one side rounded to float32 explains an error."""
    return error <= ROUNDED["constants"]


def run_or_none(
    step: Step, inputs: list[Tensor | None], shaped: Callable = shaped
) -> Tensor | None:
    """Returns what a step of PyTorch computes, None where it cannot be run.

    Args:
        step: of PyTorch.
        inputs: values, None where one could not be computed.
        shaped: puts them in the shapes that the step takes.
    """
    if any(value is None for value in inputs):
        return None
    try:
        return run(step, shaped(step, inputs))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def run_freely(
    keras_graph: Graph, torch_graph: Graph, pairs: list, images: Tensor
) -> FreeRun:
    """Runs PyTorch's steps on its own images, each value kept until its last use.

    Args:
        keras_graph: with its values.
        torch_graph: whose steps are run.
        pairs: the partners.
        images: PyTorch's, (N, C, H, W).
    """
    partner = {id(t): k for k, t in pairs}
    uses = Counter(number for step in torch_graph.steps for number in step.inputs)
    uses.update(torch_graph.outputs)
    values: dict[int, Tensor | None] = {torch_graph.inputs[0]: images}
    inherited: dict[int, float] = {}
    for step in torch_graph.steps:
        inputs = [values[number] for number in step.inputs]
        k = partner.get(id(step))
        if k is not None and len(k.inputs) == len(inputs):
            candidates = [keras_graph.values[number] for number in k.inputs]
            errors = [_least_error(value, candidates) for value in inputs]
            inherited[id(step)] = max(errors, default=0.0)
        values[step.output] = run_or_none(step, inputs)
        uses.subtract(step.inputs)
        for number in {*step.inputs, step.output}:
            if not uses[number]:
                del values[number]
    return FreeRun(inherited, torch_graph.outputs_of(values))


def _least_error(value: Tensor | None, candidates: list[Tensor]) -> float:
    return min((error_between(value, other) for other in candidates), default=math.inf)

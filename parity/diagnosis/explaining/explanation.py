"""What an explanation is, and the pieces that all of them need."""

import math
from dataclasses import dataclass, field

from parity.frameworks import torch
from parity.diagnosis.locate import Culprit
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.graph import Step, Tensor
from parity.diagnosis.replay import error_between

# Functions of one number that are no activation by custom.
PLAIN = {"square", "abs", "exp"}
GELUS = {"gelu", "gelu_tanh", "gelu_quick"}


@dataclass
class Explanation:
    """One accepted cause of a culprit.

    Attributes:
        cause: its identifier.
        before: the error without it.
        after: the error once it is removed; None when nothing fits.
        values: what differs on each side.
        ties: further causes that explain it as well.
        keras_step: the step it is about, where not the culprit's.
        torch_step: likewise.
    """

    cause: str
    before: float
    after: float | None
    values: dict[str, object] = field(default_factory=dict)
    ties: tuple[str, ...] = ()
    keras_step: Step | None = None
    torch_step: Step | None = None


def try_step(
    kind: str, parameters: dict, inputs: list[Tensor], wanted: Tensor
) -> float:
    """Returns the error of a step run with some parameters, infinite if it cannot."""
    try:
        return error_between(operations.run(kind, parameters, inputs), wanted)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return math.inf


def same_value(a: object, b: object) -> bool:
    """Returns whether two parameters are the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return a == b


def shown(value: object) -> object:
    """Returns a parameter as a person reads it."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else f"a tensor {tuple(value.shape)}"
    return value


def values_of(ours: object, theirs: object) -> dict[str, object]:
    """Returns what differs on each side."""
    return {"keras": shown(ours), "torch": shown(theirs)}


def operation_of(step: Step) -> str:
    """Returns what a step does, in a word."""
    return str(
        step.parameters.get("function") or step.parameters.get("mode") or step.kind
    )


def not_finite(culprit: Culprit) -> list[Explanation]:
    """Explains a NaN or an infinity that one side has and the other has not."""
    if culprit.found is None:
        return []
    ours, theirs = (
        bool(torch.isfinite(x).all()) for x in (culprit.output, culprit.found)
    )
    if ours == theirs:
        return []
    values = values_of(
        "finite" if ours else "not finite", "finite" if theirs else "not finite"
    )
    step = culprit.torch_step if ours else culprit.keras_step
    for name, tensor in step.parameters.items() if step else ():
        if isinstance(tensor, Tensor) and not bool(torch.isfinite(tensor).all()):
            values["weight"] = step.weights.get(name, name)
    after = None
    k, t = culprit.keras_step, culprit.torch_step
    if k and t and k.kind == t.kind and ours:
        after = try_step(k.kind, k.parameters, culprit.inputs, culprit.output)
    return [Explanation("nan.first", culprit.error, after, values)]

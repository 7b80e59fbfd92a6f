"""One description of what an optimizer does, of either framework, and its steps.

An optimizer is read into `Rules`, from which `simulate` makes the steps in NumPy and
float64. Any constant of one side can so be exchanged for the other side's, and the
steps made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Arrays = list[np.ndarray]

# Where an epsilon stands.
AFTER = "after the bias correction"
BEFORE = "before the bias correction"
INSIDE = "inside the root"
OUTSIDE = "outside the root"
IN_MAXIMUM = "inside the maximum"
OUT_OF_MAXIMUM = "outside the maximum"


@dataclass(frozen=True)
class Rule:
    """What is done to one tensor.

    Attributes:
        kind: a key of `KINDS`.
        rates: learning rate of each step.
        momentum: of SGD and RMSprop.
        dampening: the part of a gradient that SGD's velocity does not take.
        rate_inside: whether the velocity is one of steps and not of gradients: it then
            goes on at the old rate when that changes.
        momentum_decay: of Nadam: its momentum warms up with 0.96 ** (step * this).
        nesterov: whether SGD looks ahead.
        beta_1: of the mean of the gradients.
        beta_2: of the mean of their squares; RMSprop's rho.
        epsilon: bound of the divisor.
        epsilon_place: where it is added.
        start: what Adagrad's sum of squares starts from.
        centered: whether RMSprop divides by the deviation.
        amsgrad: whether Adam divides by the largest mean so far.
        penalty: factor of the weights in the gradient of the loss, which is clipped.
        absolute: factor of their signs there.
        coupled: factor of the weights that is added to the clipped gradient.
        decoupled: the part of the weights that is taken from them, times the rate.
    """

    kind: str
    rates: tuple[float, ...] = ()
    momentum: float = 0.0
    dampening: float = 0.0
    rate_inside: bool = False
    momentum_decay: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    epsilon_place: str = ""
    start: float = 0.0
    centered: bool = False
    amsgrad: bool = False
    penalty: float = 0.0
    absolute: float = 0.0
    coupled: float = 0.0
    decoupled: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What a training step does to all tensors.

    Attributes:
        tensors: the rule of each.
        clip: None, or "value", "norm" (of each tensor) or "global norm", and its bound.
        slack: what is added to a norm before it divides; PyTorch adds a millionth.
        kept: whether the gradients of the steps before are added.
    """

    tensors: tuple[Rule, ...]
    clip: tuple[str, float] | None = None
    slack: float = 0.0
    kept: bool = False

    def change(self, **fields: object) -> "Rules":
        """Returns the rules with fields of every tensor's rule changed."""
        tensors = tuple(replace(rule, **fields) for rule in self.tensors)
        return replace(self, tensors=tensors)

    def column(self, name: str) -> list:
        """Returns one field of every tensor's rule."""
        return [getattr(rule, name) for rule in self.tensors]


def simulate(rules: Rules, start: Arrays, gradients: Sequence[Arrays]) -> list[Arrays]:
    """Returns the weights after each step.

    Args:
        rules: what is done.
        start: the weights before.
        gradients: of the loss without penalties, for each step.
    """
    weights, made = list(start), []
    states: list[dict] = [{} for _ in start]
    total = [np.zeros_like(x) for x in start]
    for number, given in enumerate(gradients):
        step = [
            g + rule.penalty * w + rule.absolute * np.sign(w)
            for g, w, rule in zip(given, weights, rules.tensors, strict=True)
        ]
        if rules.kept:
            step = total = [a + b for a, b in zip(total, step, strict=True)]
        step = clipped(step, rules.clip, rules.slack)
        if rules.kept:
            total = step
        for index, rule in enumerate(rules.tensors):
            rate = rule.rates[number]
            weight = weights[index] * (1 - rate * rule.decoupled)
            gradient = step[index] + rule.coupled * weight
            moved = KINDS[rule.kind](rule, gradient, states[index], rate, number + 1)
            weights[index] = weight - moved
        made.append(list(weights))
    return made


def clipped(gradients: Arrays, clip: tuple[str, float] | None, slack: float) -> Arrays:
    """Returns gradients within a bound."""
    if clip is None:
        return gradients
    kind, limit = clip
    if kind == "value":
        return [np.clip(gradient, -limit, limit) for gradient in gradients]
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    if kind == "global norm":
        norms = [np.linalg.norm(norms)] * len(gradients)
    return [
        gradient * min(1.0, limit / max(norm + slack, 1e-300))
        for gradient, norm in zip(gradients, norms, strict=True)
    ]


def _sgd(rule: Rule, gradient, state: dict, rate: float, step: int):
    if not rule.momentum:
        return rate * gradient
    if rule.rate_inside:
        gradient, rate = rate * gradient, 1.0
    if step == 1:
        state["velocity"] = gradient
    else:
        taken = (1 - rule.dampening) * gradient
        state["velocity"] = rule.momentum * state["velocity"] + taken
    if rule.nesterov:
        return rate * (gradient + rule.momentum * state["velocity"])
    return rate * state["velocity"]


def _average(state: dict, name: str, beta: float, value):
    state[name] = beta * state.get(name, 0.0) + (1 - beta) * value
    return state[name]


def _adam(rule: Rule, gradient, state: dict, rate: float, step: int):
    mean = _average(state, "mean", rule.beta_1, gradient)
    square = _average(state, "square", rule.beta_2, gradient**2)
    if rule.amsgrad:
        square = state["largest"] = np.maximum(state.get("largest", 0.0), square)
    root = np.sqrt(1 - rule.beta_2**step)
    epsilon = rule.epsilon * (root if rule.epsilon_place == AFTER else 1.0)
    rate = rate * root / (1 - rule.beta_1**step)
    return rate * mean / (np.sqrt(square) + epsilon)


def _nadam(rule: Rule, gradient, state: dict, rate: float, step: int):
    now, then = (
        rule.beta_1 * (1 - 0.5 * 0.96 ** (number * rule.momentum_decay))
        for number in (step, step + 1)
    )
    product = state["product"] = state.get("product", 1.0) * now
    mean = _average(state, "mean", rule.beta_1, gradient)
    square = _average(state, "square", rule.beta_2, gradient**2)
    moved = then * mean / (1 - product * then) + (1 - now) * gradient / (1 - product)
    return rate * moved / (np.sqrt(square / (1 - rule.beta_2**step)) + rule.epsilon)


def _rmsprop(rule: Rule, gradient, state: dict, rate: float, step: int):
    square = _average(state, "square", rule.beta_2, gradient**2)
    if rule.centered:
        square = square - _average(state, "mean", rule.beta_2, gradient) ** 2
    moved = gradient / _root(rule, square)
    return _sgd(replace(rule, nesterov=False), moved, state, rate, step)


def _adagrad(rule: Rule, gradient, state: dict, rate: float, step: int):
    state["sum"] = state.get("sum", rule.start) + gradient**2
    return rate * gradient / _root(rule, state["sum"])


def _root(rule: Rule, square):
    if rule.epsilon_place == INSIDE:
        return np.sqrt(square + rule.epsilon)
    return np.sqrt(np.maximum(square, 0.0)) + rule.epsilon


def _adadelta(rule: Rule, gradient, state: dict, rate: float, step: int):
    square = _average(state, "square", rule.beta_2, gradient**2)
    size = np.sqrt(state.get("moved", 0.0) + rule.epsilon)
    moved = size * gradient / np.sqrt(square + rule.epsilon)
    _average(state, "moved", rule.beta_2, moved**2)
    return rate * moved


def _adamax(rule: Rule, gradient, state: dict, rate: float, step: int):
    mean = _average(state, "mean", rule.beta_1, gradient)
    inside = rule.epsilon if rule.epsilon_place == IN_MAXIMUM else 0.0
    largest = np.maximum(rule.beta_2 * state.get("norm", 0.0), abs(gradient) + inside)
    state["norm"] = largest
    return rate / (1 - rule.beta_1**step) * mean / (largest + rule.epsilon - inside)


KINDS = {
    "SGD": _sgd,
    "Adam": _adam,
    "Nadam": _nadam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Adadelta": _adadelta,
    "Adamax": _adamax,
}


def tidy(rule: Rule) -> Rule:
    """Returns a rule without constants that have no effect."""
    if not rule.momentum or rule.kind not in ("SGD", "RMSprop"):
        rule = replace(
            rule, momentum=0.0, dampening=0.0, rate_inside=False, nesterov=False
        )
    if len(set(rule.rates)) == 1:
        rule = replace(rule, rate_inside=False)
    return rule

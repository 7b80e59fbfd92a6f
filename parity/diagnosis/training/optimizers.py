"""Why two optimizers make other steps from the same parameters and gradients.

Both really make the steps, in float64; both are read into `Rules`, which must make the
same ones again, or are searched until they do. Then the constants that differ are
exchanged, one by one and together, until PyTorch's rules make Keras's steps.

Keras keeps its learning rate in float32 and makes float32 of Python's numbers. Neither
is a difference of the optimizers: the steps here are made with all digits of the
constants, and rates that agree to a millionth are taken for the same.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, torch
from parity.diagnosis.findings import Finding
from parity.diagnosis.training.differences import (
    changed,
    describe,
    describe_rates,
    differing,
    explain_decay,
    pace,
    same_clip,
)
from parity.diagnosis.training.losses import accepted
from parity.diagnosis.training.reading import group_of, read_keras, read_torch
from parity.diagnosis.training.rules import Arrays, Rules, clipped
from parity.diagnosis.training.rules_search import FLOAT32_LEAST_PART, Trial, search
from parity.diagnosis.training.stepping import (
    Pair,
    Scheduler,
    keras_rates,
    keras_steps,
    torch_rates,
    torch_steps,
)
from parity.spec.tolerances import relative_error

# Steps that are nearer are the same: see parity.spec.tolerances. In float32, where
# nothing else is possible, those that are nearer than its rounding.
TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 1e-4
# What float32 constants that could not be replaced may leave (the 0.96 of Nadam).
ROUNDED = 1e-6
# Of a tensor with more elements, so many are taken: each is stepped by itself.
SAMPLE = 2048
# How many steps of a schedule are looked at, at least.
HORIZON = 64

SAID = {"names": ("optimizer", "optimizer"), "level": "training"}


class Observed(NamedTuple):
    """What a training loop of one's own did.

    Attributes:
        start: the weights before.
        fresh: the gradients that each step's backward pass made.
        seen: those that the optimizer was given; empty where no optimizer was seen.
        rates: its learning rates, one for each group of parameters.
        made: the weights after each step.
        exact: whether in float64.
    """

    start: Arrays
    fresh: list[Arrays]
    seen: list[Arrays]
    rates: list[list[float]]
    made: list[Arrays]
    exact: bool = True


def explain_optimizer(
    keras_optimizer: keras.optimizers.Optimizer,
    torch_optimizer: torch.optim.Optimizer | None,
    pairs: Sequence[Pair],
    gradients: Sequence[Arrays] = (),
    *,
    torch_scheduler: Scheduler | None = None,
    steps_per_epoch: int | None = None,
    torch_penalty: Sequence[float] | None = None,
    observed: Observed | None = None,
) -> list[Finding]:
    """Returns why two optimizers part; nothing where they make the same steps.

    Both start without state from Keras's weights. What is trained on one side only is
    left out: `parity.diagnosis.training.trainings` says so.

    Args:
        keras_optimizer: as it is.
        torch_optimizer: as it was afterwards, over the parameters of the pairs.
        pairs: the parameters.
        gradients: for each step and pair, in PyTorch's layout, of the loss without
            penalties.
        torch_scheduler: of the learning rates, stepped after each step.
        steps_per_epoch: after how many steps it is stepped instead.
        torch_penalty: factor of each parameter in the gradient of PyTorch's loss.
        observed: steps of a loop of one's own, in place of those of the optimizer, on
            the pairs that both sides train.

    Raises:
        ValueError: an optimizer can't make steps from gradients alone.
    """
    penalty = list(torch_penalty or [0.0] * len(pairs))
    used = trained(pairs, torch_optimizer)
    pairs, penalty = ([values[i] for i in used] for values in (pairs, penalty))
    variables = [pair.variable for pair in pairs]
    parameters = [pair.parameter for pair in pairs]
    if not pairs:
        return []
    if observed:
        start, gradients = observed.start, _data_gradients(observed, penalty)
    else:
        start = _weights(pairs)
        gradients = [
            [
                np.zeros_like(x) if step[i] is None else step[i]
                for i, x in zip(used, start, strict=True)
            ]
            for step in gradients
        ]
        start, gradients = _sampled(start, gradients)
    steps = len(gradients)

    every = steps_per_epoch or 1
    count = max(steps, _horizon(keras_optimizer, torch_scheduler, every))
    rates_t: list[list[float]] = []
    if torch_optimizer is not None:
        rates_t = torch_rates(torch_optimizer, torch_scheduler, count, every)
    if observed and observed.rates:
        rates_t = observed.rates
    rates_k = _same_digits(keras_rates(keras_optimizer, count), rates_t)

    made_k = keras_steps(keras_optimizer, variables, start, gradients, rates_k[:steps])
    rules_k = read_keras(keras_optimizer, variables, rates_k[:steps])
    rules_t = None
    if torch_optimizer is not None:
        rules_t = read_torch(torch_optimizer, parameters, rates_t[:steps], penalty)
    if observed:
        made_t = observed.made
        rules_t = rules_t and _with_loop(rules_t, observed)
    else:
        made_t = torch_steps(
            torch_optimizer, parameters, start, gradients, rates_t[:steps], penalty
        )
    trial = Trial(start, gradients, TOLERANCE)
    if observed and not observed.exact:
        trial = replace(trial, tolerance=FLOAT32_TOLERANCE, least=FLOAT32_LEAST_PART)
    found = _explain(trial, rules_k, made_k, rules_t, made_t)
    found = found or _later_rates(rates_k, rates_t, steps)
    return [_with_pace(finding, rates_k, rates_t) for finding in found]


def trained(
    pairs: Sequence[Pair], optimizer: torch.optim.Optimizer | None
) -> list[int]:
    """Returns which pairs both sides train, of a shared parameter one."""
    found: dict[int, int] = {}
    for index, pair in enumerate(pairs):
        held = optimizer is None or group_of(optimizer, pair.parameter) >= 0
        if held and pair.variable.trainable and pair.parameter.requires_grad:
            found.setdefault(id(pair.parameter), index)
    return list(found.values())


def _weights(pairs: Sequence[Pair]) -> Arrays:
    arrays = (pair.to_torch(np.asarray(pair.variable.value)) for pair in pairs)
    return [np.array(array, np.float64) for array in arrays]


def _sampled(start: Arrays, gradients: Sequence[Arrays]) -> tuple[Arrays, list]:
    """Returns some elements of each tensor; a gradient's norm is that of all of it."""
    chosen = [
        np.linspace(0, x.size - 1, SAMPLE).astype(int) if x.size > SAMPLE else None
        for x in start
    ]

    def some(array: np.ndarray, index: np.ndarray | None) -> np.ndarray:
        array = np.array(array, np.float64)
        return array if index is None else array.ravel()[index]

    def scaled(array: np.ndarray, index: np.ndarray | None) -> np.ndarray:
        part = some(array, index)
        norm = np.linalg.norm(part)
        return part * (np.linalg.norm(array) / norm) if norm else part

    sampled = [
        [scaled(g, index) for g, index in zip(step, chosen, strict=True)]
        for step in gradients
    ]
    return [some(x, index) for x, index in zip(start, chosen, strict=True)], sampled


def _data_gradients(observed: Observed, penalty: Sequence[float]) -> list[Arrays]:
    """Returns the gradients of a loop without those of its penalty."""
    weights = [observed.start, *observed.made[:-1]]
    return [
        [g - factor * w for g, factor, w in zip(step, penalty, values, strict=True)]
        for step, values in zip(observed.fresh, weights, strict=True)
    ]


def _with_loop(rules: Rules, observed: Observed) -> Rules:
    """Returns rules with what a loop does between the backward pass and the step."""
    if not observed.seen:
        return rules
    near = 1e-10 if observed.exact else 1e-5

    def same(one: Arrays, other: Arrays) -> bool:
        scale = max(map(np.linalg.norm, other)) or 1.0
        pairs = zip(one, other, strict=True)
        return all(np.linalg.norm(a - b) <= near * scale for a, b in pairs)

    for is_kept in (False, True):
        nothing = [np.zeros_like(x) for x in observed.start]
        before = (
            [nothing, *observed.seen[:-1]]
            if is_kept
            else [nothing] * len(observed.seen)
        )
        given = [
            [g + b for g, b in zip(*both, strict=True)]
            for both in zip(observed.fresh, before, strict=True)
        ]
        for clip, slack in _possible_clips(given, observed.seen):
            made = [clipped(step, clip, slack) for step in given]
            if all(map(same, made, observed.seen)):
                return replace(rules, clip=clip, slack=slack, kept=is_kept)
    return rules


def _possible_clips(given: Sequence[Arrays], seen: Sequence[Arrays]) -> Iterator:
    """Yields clippings that may have made some gradients of others, and slacks."""
    yield None, 0.0
    arrays = list(itertools.chain(*seen))
    yield ("value", float(max(abs(array).max() for array in arrays))), 0.0
    norms = [np.linalg.norm(array) for array in arrays]
    totals = [math.hypot(*map(np.linalg.norm, step)) for step in seen]
    for kind, sizes in (("norm", norms), ("global norm", totals)):
        for slack in (0.0, 1e-6):
            # The largest are those that were cut, if any was.
            most = float(max(sizes))
            if kind == "norm":
                before = np.linalg.norm(list(itertools.chain(*given))[np.argmax(sizes)])
            else:
                before = math.hypot(*map(np.linalg.norm, given[int(np.argmax(sizes))]))
            yield (kind, most * float(before + slack) / float(before or 1.0)), slack


def _horizon(
    optimizer: keras.optimizers.Optimizer, scheduler: Scheduler | None, every: int
) -> int:
    """Returns how many steps of the schedules to look at: none after either's end."""
    schedules = keras.optimizers.schedules
    rate = optimizer._learning_rate
    ends = [max(HORIZON, 2 * every + 1)]
    if isinstance(rate, schedules.CosineDecay | schedules.PolynomialDecay):
        ends.append(int(rate.decay_steps + getattr(rate, "warmup_steps", 0)))
    last, before = scheduler, 0
    while getattr(last, "_schedulers", None):
        before += max(getattr(last, "_milestones", [0]), default=0)
        last = last._schedulers[-1]
    for name in ("T_max", "total_steps"):
        if hasattr(last, name):
            ends.append((before + getattr(last, name)) * every)
    return min(ends)


def _same_digits(rates: list[float], groups: Sequence[Sequence[float]]) -> list[float]:
    """Returns Keras's rates with the digits of PyTorch's where they are the same."""
    if not groups:
        return rates
    found = []
    for number, rate in enumerate(rates):
        theirs = groups[number] if number < len(groups) else ()
        near = (x for x in theirs if math.isclose(x, rate, rel_tol=ROUNDED))
        found.append(next(near, rate))
    return found


def _explain(
    trial: Trial, rules_k: Rules | None, made_k, rules_t: Rules | None, made_t
) -> list[Finding]:
    before = trial.distance(made_t, made_k)
    if before <= trial.tolerance:
        return []
    own_k, own_t = rules_k, rules_t
    rules_t = search(trial, own_t, own_k, made_t)
    rules_k = search(trial, own_k, rules_t or own_t, made_k)
    if rules_k and rules_t:
        limit = max(trial.tolerance, 4 * trial.error(rules_k, made_k))
        if rules_k.clip and same_clip(rules_k, rules_t):
            rules_t = replace(rules_t, clip=rules_k.clip, slack=rules_k.slack)
            if trial.error(rules_t, made_k) <= limit:
                return []
        found = _accepted(trial, rules_k, made_k, rules_t, limit)
        if found:
            return found
    if before <= ROUNDED:
        return []
    return [accepted("unexplained", before, None, **SAID)]


def _accepted(
    trial: Trial, rules_k: Rules, made_k, rules_t: Rules, limit: float
) -> list[Finding]:
    """Returns a finding for each cause of the smallest set that explains the steps."""
    causes = differing(rules_k, rules_t)
    for size in range(1, len(causes) + 1):
        sets = []
        for chosen in itertools.combinations(causes, size):
            after = trial.error(changed(rules_t, rules_k, chosen), made_k)
            if after <= limit:
                sets.append((chosen, after))
        if sets:
            break
    else:
        return []
    chosen, after = sets[0]
    ties = tuple(c for (c, *_), _ in sets[1:]) if size == 1 else ()
    findings = []
    for cause in chosen:
        others = [other for other in chosen if other != cause]
        without = changed(rules_t, rules_k, others)
        before = trial.error(without, made_k)
        named = [(cause, *(describe(cause, rules) for rules in (rules_k, rules_t)))]
        if cause == "optimizer.weight_decay":
            named, after = explain_decay(
                rules_k, without, lambda rules: trial.error(rules, made_k), limit
            )
        for name, ours, theirs in named:
            findings.append(
                accepted(name, before, after, ours, theirs, ties=ties, **SAID)
            )
    return findings


def _later_rates(rates_k, rates_t, steps: int) -> list[Finding]:
    """Returns what schedules do that agree in the steps made and not in later ones."""
    count = min(len(rates_k), len(rates_t))
    ours = np.array(rates_k[:count])
    for theirs in np.array(rates_t[:count]).T:
        together = np.allclose(ours[:steps], theirs[:steps], rtol=ROUNDED, atol=0)
        error = relative_error(theirs, ours)
        if together and error > ROUNDED:
            values = describe_rates(rates_k), describe_rates(theirs)
            return [accepted("optimizer.schedule", error, 0.0, *values, **SAID)]
    return []


def _with_pace(finding: Finding, rates_k, rates_t) -> Finding:
    """Returns a finding about schedules that says how often each is stepped."""
    words = pace(rates_k, [groups[0] for groups in rates_t])
    if finding.cause != "optimizer.schedule" or words is None:
        return finding
    errors = finding.error_before, finding.error_after
    return accepted(finding.cause, *errors, *words, **SAID)

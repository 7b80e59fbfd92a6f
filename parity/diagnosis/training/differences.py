"""What differs between the rules of two optimizers, and how that is said."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from parity.diagnosis.training.rules import Rule, Rules

# The fields of a rule that are a weight decay, and what each is called.
DECAYS = {
    "penalty": "in the loss",
    "absolute": "of the signs in the loss",
    "coupled": "coupled",
    "decoupled": "decoupled",
}

# The fields of a rule that a cause is about.
FIELDS = {
    "optimizer.learning_rate": ("rates",),
    "optimizer.schedule": ("rates",),
    "optimizer.momentum": ("momentum", "dampening", "rate_inside", "momentum_decay"),
    "optimizer.nesterov": ("nesterov",),
    "optimizer.betas": ("beta_1", "beta_2"),
    "optimizer.epsilon": ("epsilon", "start"),
    "optimizer.epsilon_place": ("epsilon_place",),
    "optimizer.centered": ("centered",),
    "optimizer.kind": ("kind", "amsgrad"),
    "optimizer.weight_decay": tuple(DECAYS),
}


def differing(rules_k: Rules, rules_t: Rules) -> list[str]:
    """Returns the causes about which two rules differ."""

    def differ(name: str) -> bool:
        pairs = zip(rules_k.column(name), rules_t.column(name), strict=True)
        return any(not _close(a, b) for a, b in pairs)

    found = []
    other_kind = any(map(differ, FIELDS["optimizer.kind"]))
    for cause, names in FIELDS.items():
        about_decay = cause == "optimizer.weight_decay"
        if cause in ("optimizer.learning_rate", "optimizer.schedule"):
            if differ("rates") and not other_kind:
                constant = _one_factor(rules_k, rules_t)
                if constant == (cause == "optimizer.learning_rate"):
                    found.append(cause)
        elif about_decay or not other_kind or cause == "optimizer.kind":
            found += [cause] if any(map(differ, names)) else []
    clips = {"keras": rules_k.clip, "torch": rules_t.clip}
    if any(clips.values()) and not (rules_k.clip and same_clip(rules_k, rules_t)):
        found.append("optimizer.clipping")
    if rules_k.kept != rules_t.kept:
        found.append("optimizer.zero_grad")
    return found


def _close(one: object, other: object) -> bool:
    if isinstance(one, tuple):
        return all(map(_close, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-7)
    return one == other


def _one_factor(rules_k: Rules, rules_t: Rules) -> bool:
    """Returns whether the rates are a constant multiple of the other side's."""
    for ours, theirs in zip(rules_k.tensors, rules_t.tensors, strict=True):
        a, b = np.array(ours.rates), np.array(theirs.rates)
        if not np.allclose(a * np.abs(b).max(), b * np.abs(a).max(), rtol=1e-6, atol=0):
            return False
    return True


def changed(rules: Rules, goal: Rules, causes: Sequence[str]) -> Rules:
    """Returns rules with all that some causes are about taken from others."""
    names = {name for cause in causes for name in FIELDS.get(cause, ())}
    if "optimizer.kind" in causes:
        names |= set(Rule.__dataclass_fields__) - set(DECAYS)
    tensors = tuple(
        replace(rule, **{name: getattr(other, name) for name in names})
        for rule, other in zip(rules.tensors, goal.tensors, strict=True)
    )
    rules = replace(rules, tensors=tensors)
    if "optimizer.clipping" in causes:
        rules = replace(rules, clip=goal.clip, slack=goal.slack)
    if "optimizer.zero_grad" in causes:
        rules = replace(rules, kept=goal.kept)
    return rules


def same_clip(rules_k: Rules, rules_t: Rules) -> bool:
    """Returns whether two rules clip alike; PyTorch's millionth does not count."""
    (kind, limit), (other, bound) = rules_k.clip, rules_t.clip or ("", 0.0)
    return kind == other and math.isclose(limit, bound, rel_tol=1e-5)


def explain_decay(
    rules_k: Rules, rules_t: Rules, error: Callable[[Rules], float], limit: float
) -> tuple[list[tuple[str, object, object]], float]:
    """Returns which differences of the weight decay count, and the error without them.

    Its place (in the gradient or beside the step), its size, and the tensors that
    decay at all are exchanged: the fewest that take the error away.

    Args:
        rules_k: Keras's.
        rules_t: PyTorch's, which are equal but for the decay.
        error: of the steps that rules make.
        limit: below which they are Keras's.

    Returns:
        Causes with what Keras and PyTorch have there.
    """
    pairs = [
        (_decays(ours), _decays(theirs))
        for ours, theirs in zip(rules_k.tensors, rules_t.tensors, strict=True)
    ]
    both = [pair for pair in pairs if all(pair)]
    possible = {
        "place": any(a.keys() != b.keys() for a, b in both),
        "size": any(not math.isclose(_sum(a), _sum(b)) for a, b in both),
        "missing": any(bool(a) != bool(b) for a, b in pairs),
    }
    names = [name for name, value in possible.items() if value]
    chosen, after = names, math.inf
    for mask in sorted(range(1, 2 ** len(names)), key=lambda x: (x.bit_count(), x)):
        some = [name for bit, name in enumerate(names) if mask >> bit & 1]
        tensors = [
            replace(rule, **(dict.fromkeys(DECAYS, 0.0) | _exchanged(*pair, some)))
            for rule, pair in zip(rules_t.tensors, pairs, strict=True)
        ]
        after = error(replace(rules_t, tensors=tuple(tensors)))
        if after <= limit:
            chosen = some
            break
    causes = {}
    amounts = [_amount([pair[side] for pair in pairs]) for side in (0, 1)]
    if "place" in chosen:
        causes["optimizer.weight_decay_coupled"] = [
            _place([pair[side] for pair in both]) for side in (0, 1)
        ]
    if "size" in chosen:
        causes[_size_cause(both)] = amounts
    if "missing" in chosen:
        sides = [[x for pair in pairs for x in pair[side]] for side in (0, 1)]
        in_loss = [{"penalty", "absolute"} & set(side) for side in sides]
        alone = not all(sides) and any(in_loss)
        cause = "loss.regularizer" if alone else "optimizer.weight_decay"
        causes.setdefault(cause, amounts)
    if "loss.regularizer" in causes:
        causes["loss.regularizer"] = [
            _penalty([pair[side] for pair in pairs]) for side in (0, 1)
        ]
    return [(cause, *values) for cause, values in causes.items()], after


def _decays(rule: Rule) -> dict[str, float]:
    return {name: getattr(rule, name) for name in DECAYS if getattr(rule, name)}


def _sum(decays: dict[str, float]) -> float:
    return sum(decays.values())


def _exchanged(ours: dict, theirs: dict, what: Sequence[str]) -> dict[str, float]:
    """Returns PyTorch's decay of one tensor with something of Keras's."""
    if not (ours and theirs):
        return ours if "missing" in what else theirs
    place = ours if "place" in what else theirs
    size = _sum(ours if "size" in what else theirs)
    return {name: value * size / _sum(place) for name, value in place.items()}


def _size_cause(both: Sequence[tuple[dict, dict]]) -> str:
    if all(
        a.keys() == b.keys() and {"penalty", "absolute"} & a.keys() for a, b in both
    ):
        return "loss.regularizer"
    twice = all(
        any(
            math.isclose(_sum(a), factor * _sum(b), rel_tol=1e-6) for factor in (2, 0.5)
        )
        or len(a) != len(b)
        for a, b in both
    )
    return "optimizer.weight_decay_doubled" if twice else "optimizer.weight_decay"


def _place(decays: Sequence[dict]) -> str:
    return " and ".join(
        DECAYS[name] for name in dict.fromkeys(k for d in decays for k in d)
    )


def _penalty(decays: Sequence[dict]) -> str | None:
    """Returns what stands in a loss, whose gradient the decay is."""
    decay = max(decays, key=_sum)
    parts = []
    if decay.get("absolute"):
        parts.append(f"{_short(decay['absolute'])} * sum(abs(w))")
    size = _sum(decay) - decay.get("absolute", 0.0)
    if size:
        parts.append(f"{_short(size / 2)} * sum(w**2)")
    return " + ".join(parts) or None


def _amount(decays: Sequence[dict]) -> object:
    """Returns the decay of all tensors: a number, or which it is on how many."""
    return _one([_short(_sum(decay)) for decay in decays])


def _one(values: Sequence) -> object:
    """Returns the value of all tensors, or how many have which."""
    counts = {value: list(values).count(value) for value in values}
    if len(counts) == 1:
        return values[0]
    parts = [f"{value} on {count}" for value, count in counts.items()]
    return ", ".join(parts) + " tensors"


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def describe(cause: str, rules: Rules) -> object:
    """Returns what rules have where they differ from others."""

    def column(name: str) -> list:
        values = rules.column(name)
        return [_short(x) if isinstance(x, float) else x for x in values]

    if cause == "optimizer.clipping":
        return rules.clip and f"{rules.clip[0]} {_short(rules.clip[1])}"
    if cause == "optimizer.zero_grad":
        return "added to those before" if rules.kept else "forgotten after each step"
    if cause == "optimizer.learning_rate":
        return _one([_short(rates[0]) for rates in rules.column("rates")])
    if cause == "optimizer.schedule":
        return describe_rates(rules.tensors[0].rates)
    if cause == "optimizer.kind":
        rates = _one([_short(rates[0]) for rates in rules.column("rates")])
        both = zip(*map(column, FIELDS[cause]), strict=True)
        kinds = [kind + " (amsgrad)" * largest for kind, largest in both]
        return f"{_one(kinds)} at a rate of {rates}"
    if cause == "optimizer.momentum":
        words = []
        for rule in rules.tensors:
            value = rule.momentum_decay if rule.kind == "Nadam" else rule.momentum
            word = _short(value)
            if rule.dampening:
                word = f"{word}, dampening {rule.dampening}"
            words.append(f"{word}, the rate inside" if rule.rate_inside else word)
        return _one(words)
    if cause == "optimizer.betas":
        pairs = zip(column("beta_1"), column("beta_2"), strict=True)
        return _one([(a, b) if a else b for a, b in pairs])
    if cause == "optimizer.epsilon" and any(column("start")):
        pairs = zip(column("epsilon"), column("start"), strict=True)
        return _one([f"{a}, sum from {b}" for a, b in pairs])
    return _one(column(FIELDS[cause][0]))


def describe_rates(rates: Sequence[float]) -> str:
    """Returns how a learning rate goes, in words."""
    changes = [
        (number, rate)
        for number, rate in enumerate(rates)
        if not number or not math.isclose(rate, rates[number - 1], rel_tol=1e-6)
    ]
    if len(changes) == 1:
        return f"constant at {_short(rates[0])}"
    words = [f"{_short(rate)} from step {number + 1}" for number, rate in changes[:4]]
    return ", ".join(words) + (", ..." if len(changes) > 4 else "")


def pace(rates_k: Sequence[float], rates_t: Sequence[float]) -> tuple[str, str] | None:
    """Returns how often each side's schedule goes on, if they are one and the same."""
    ours, theirs = np.array(rates_k), np.array(rates_t)
    count = min(len(ours), len(theirs))
    words = "at every step", "once in {} steps"
    for number in range(2, count // 2 + 1):
        often, seldom = words[0], words[1].format(number)
        sides = (ours, theirs, (often, seldom)), (theirs, ours, (seldom, often))
        for fast, slow, said in sides:
            slow = slow[:count:number]
            fast = fast[: len(slow)]
            alike = np.allclose(fast, slow, rtol=1e-6, atol=0)
            if alike and np.ptp(fast) and len(slow) > 2:
                return said
    return None

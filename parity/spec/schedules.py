"""Learning rates: what the initial one is multiplied by at each step, from 0.

A step is whatever the caller counts: an optimizer's steps or epochs. Each function
returns a function of the step, but for plateau, which follows losses.
"""

import math
from collections.abc import Callable, Iterable

Factor = Callable[[int], float]


def constant() -> Factor:
    """Returns 1."""
    return lambda step: 1.0


def step_decay(step_size: int, gamma: float) -> Factor:
    """Returns gamma ** floor(step / step_size): a stair."""
    return lambda step: gamma ** (step // step_size)


def exponential_decay(decay_steps: float, gamma: float) -> Factor:
    """Returns gamma ** (step / decay_steps)."""
    return lambda step: gamma ** (step / decay_steps)


def cosine_decay(decay_steps: int, final: float = 0.0) -> Factor:
    """Returns final + (1 - final) * (1 + cos(pi * step / decay_steps)) / 2.

    From `decay_steps` on it is `final`, a part of the initial rate.
    Source: Loshchilov & Hutter, "SGDR", ICLR 2017, arXiv:1608.03983, equation 5,
    without restarts.
    """

    def factor(step: int) -> float:
        if step >= decay_steps:
            return final
        return final + (1 - final) * (1 + math.cos(math.pi * step / decay_steps)) / 2

    return factor


def warm_up(steps: int, after: Factor, start: float = 0.1) -> Factor:
    """Returns start + (1 - start) * step / steps, then after(step - steps).

    Source: Goyal et al., "Accurate, large minibatch SGD", 2017, arXiv:1706.02677,
    section 2.2.
    """

    def factor(step: int) -> float:
        if step >= steps:
            return after(step - steps)
        return start + (1 - start) * step / steps

    return factor


def plateau(
    initial: float,
    losses: Iterable[float],
    *,
    gamma: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
) -> float:
    """Returns the rate after some losses: times gamma wherever they stopped falling.

    They have stopped when more than `patience` in a row are not below
    (1 - threshold) * the least one so far. After that the count starts anew.

    Args:
        initial: the rate before the first loss.
        losses: of each step so far; NaN is not below anything.
        gamma: what the rate is multiplied by.
        patience: losses in a row that are borne.
        threshold: by what part a loss must fall to count.
    """
    rate, least, waited = initial, math.inf, 0
    for loss in losses:
        if loss < least * (1 - threshold):
            least, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            rate, waited = rate * gamma, 0
    return rate

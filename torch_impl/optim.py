"""The optimizers and schedules of the papers; PyTorch defines most of them so."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from parity.spec import schedules
from parity.spec.recipes import check_clip, optimizer_settings

Parameters = Iterable[nn.Parameter]


def sgd(parameters: Parameters, learning_rate=0.01, **options) -> torch.optim.Optimizer:
    """Returns gradient descent: w -= rate * g.

    Args:
        parameters: those to train.
        learning_rate: of the first step.
        options: for all optimizers here: `weight_decay`; `decoupled`, whether the decay
            is w -= rate * weight_decay * w before the step or g += weight_decay * w;
            `clip`, a name in CLIPPINGS and a bound for the gradients, which is kept
            before the decay: ("global_norm", 1.0).
    """
    return _create(torch.optim.SGD, parameters, learning_rate, **options)


def momentum(parameters: Parameters, learning_rate=0.01, *, momentum=0.9, **options):
    """Returns heavy-ball momentum: v = momentum * v + g, w -= rate * v."""
    options["momentum"] = momentum
    return _create(torch.optim.SGD, parameters, learning_rate, **options)


def nesterov(parameters: Parameters, learning_rate=0.01, *, momentum=0.9, **options):
    """Returns Nesterov's: v = momentum * v + g, w -= rate * (g + momentum * v)."""
    options |= {"momentum": momentum, "nesterov": True}
    return _create(torch.optim.SGD, parameters, learning_rate, **options)


def adam(
    parameters: Parameters,
    learning_rate=1e-3,
    *,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    **options,
):
    """Returns Adam: w -= rate * m / (sqrt(v) + epsilon), m and v bias-corrected."""
    options |= {"betas": (beta_1, beta_2), "eps": epsilon}
    return _create(torch.optim.Adam, parameters, learning_rate, **options)


def adamw(
    parameters: Parameters,
    learning_rate=1e-3,
    *,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
    weight_decay=0.01,
    clip=None,
):
    """Returns Adam with decoupled weight decay, times the learning rate.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019,
    arXiv:1711.05101, algorithm 2.
    """
    options = {"weight_decay": weight_decay, "clip": clip}
    options |= {"betas": (beta_1, beta_2), "eps": epsilon}
    return _create(torch.optim.AdamW, parameters, learning_rate, **options)


def rmsprop(
    parameters: Parameters, learning_rate=1e-3, *, rho=0.9, epsilon=1e-8, **options
):
    """Returns RMSprop: v = rho v + (1 - rho) g^2, w -= rate * g / (sqrt(v) + epsilon).

    Source: Tieleman & Hinton, "Neural networks for machine learning", 2012, lecture 6e,
    which has no epsilon.
    """
    options |= {"alpha": rho, "eps": epsilon}
    return _create(torch.optim.RMSprop, parameters, learning_rate, **options)


def adagrad(parameters: Parameters, learning_rate=0.01, *, epsilon=1e-10, **options):
    """Returns Adagrad: s += g^2, w -= rate * g / (sqrt(s) + epsilon); s starts from 0.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods", JMLR 12, 2011,
    figure 1, whose delta is epsilon.
    """
    options["eps"] = epsilon
    return _create(torch.optim.Adagrad, parameters, learning_rate, **options)


def _create(
    kind: type,
    parameters: Parameters,
    learning_rate: float,
    *,
    weight_decay=0.0,
    decoupled=False,
    clip=None,
    **constants,
) -> torch.optim.Optimizer:
    """Returns an optimizer with what PyTorch has for some or none of them.

    A parameter group may have a weight decay of its own. The optimizer's `step` is to
    be called without a closure, whose gradients would come too late.
    """
    optimizer = kind(parameters, learning_rate, weight_decay=weight_decay, **constants)
    if decoupled:
        for group in optimizer.param_groups:
            group["decay"], group["weight_decay"] = group["weight_decay"], 0.0
    if clip:
        check_clip(clip)

    def before_step(optimizer, *_):
        groups = [
            (group, [p for p in group["params"] if p.grad is not None])
            for group in optimizer.param_groups
        ]
        if clip:
            parameters = [p for _, members in groups for p in members]
            clipped = _CLIPPINGS[clip[0]]([p.grad for p in parameters], clip[1])
            for parameter, gradient in zip(parameters, clipped, strict=True):
                parameter.grad = gradient
        if decoupled:
            for group, members in groups:
                for parameter in members:
                    parameter.mul_(1 - group["lr"] * group["decay"])

    if clip or decoupled:
        optimizer.register_step_pre_hook(torch.no_grad()(before_step))
    return optimizer


def clip_by_value(gradients: list, limit: float) -> list:
    """Returns gradients whose numbers are within -limit and limit; None stays None."""
    check_clip(("value", limit))
    return [g if g is None else g.clamp(-limit, limit) for g in gradients]


def clip_by_norm(gradients: list, limit: float) -> list:
    """Returns gradients, each of which has a norm of no more than the limit."""
    check_clip(("norm", limit))
    return [g if g is None else g * _scale(g.norm(), limit) for g in gradients]


def clip_by_global_norm(gradients: list, limit: float) -> list:
    """Returns gradients times one number, whose norm together is within the limit.

    All become NaN if that norm is not finite. PyTorch's `clip_grad_norm_` adds 1e-6 to
    the norm.
    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.
    """
    check_clip(("global_norm", limit))
    norms = [g.norm() for g in gradients if g is not None]
    if not norms:
        return list(gradients)
    norm = torch.stack(norms).norm()
    scale = _scale(norm.where(norm.isfinite(), torch.nan), limit)
    return [g if g is None else g * scale for g in gradients]


def _scale(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """Returns what brings a norm down to the limit, 1 where it is less."""
    return limit / norm.clamp(min=limit)


_CLIPPINGS = {
    "value": clip_by_value,
    "norm": clip_by_norm,
    "global_norm": clip_by_global_norm,
}


def step_decay(optimizer, *, step_size, gamma=0.1):
    """Returns a scheduler: the rate times gamma after every `step_size` steps.

    `scheduler.step()` after each step; a step is an optimizer's or an epoch. PyTorch's
    `StepLR` rounds at every product.
    """
    return LambdaLR(optimizer, schedules.step_decay(step_size, gamma))


def exponential_decay(optimizer, *, decay_steps, gamma):
    """Returns a scheduler: the rate times gamma ** (step / decay_steps).

    PyTorch's `ExponentialLR` has `decay_steps` 1.
    """
    return LambdaLR(optimizer, schedules.exponential_decay(decay_steps, gamma))


def cosine_decay(optimizer, *, decay_steps, final=0.0):
    """Returns a scheduler: half a cosine down to the part `final` of the rate.

    PyTorch's `CosineAnnealingLR` climbs again after its end.
    """
    return LambdaLR(optimizer, schedules.cosine_decay(decay_steps, final))


def warm_up(optimizer, *, steps, after=None, start=0.1):
    """Returns a scheduler: a line from the part `start` of the rate up to it.

    PyTorch's `LinearLR` starts from a third unless told otherwise.

    Args:
        optimizer: whose rate is set.
        steps: of the line.
        after: one of `parity.spec.schedules`; None keeps the rate.
        start: the first part.
    """
    after = after or schedules.constant()
    return LambdaLR(optimizer, schedules.warm_up(steps, after, start))


def plateau(optimizer, *, gamma=0.1, patience=10, threshold=1e-4):
    """Returns a scheduler: the rate times gamma when a loss has stopped falling.

    `scheduler.step(loss)`, of the training and not of the test, after each epoch.
    """
    constants = {"patience": patience, "threshold": threshold, "eps": 0.0}
    return ReduceLROnPlateau(optimizer, factor=gamma, **constants)


def create_optimizer(
    name: str,
    learning_rate: float,
    parameters: Parameters,
    *,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
) -> torch.optim.Optimizer:
    """Returns an optimizer by its name in a recipe.

    Args:
        name: the optimizer.
        learning_rate: of the first step.
        parameters: those to train.
        weight_decay: decoupled in AdamW; None is the recipe's.
        clip_norm: what the norm of all gradients together is kept within.
    """
    settings = optimizer_settings(name, weight_decay, clip_norm)
    functions = (sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad)
    by_name = {function.__name__: function for function in functions}
    return by_name[name](parameters, learning_rate, **settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Makes the next steps with a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate

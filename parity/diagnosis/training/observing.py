"""Makes steps of a training loop of one's own, and looks at what it does."""

import contextlib
import functools
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.optim.optimizer import register_optimizer_step_pre_hook

from parity.frameworks import torch
from parity.diagnosis.training.optimizers import Observed
from parity.diagnosis.training.rules import Arrays
from parity.diagnosis.training.stepping import Scheduler, forget, kept, lent
from parity.precision import torch_as


def observe_steps(
    step: Callable,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | None,
    scheduler: Scheduler | None,
    parameters: Sequence[torch.nn.Parameter],
    batch: tuple[np.ndarray, np.ndarray],
    steps: int,
) -> tuple[Observed, torch.optim.Optimizer | None]:
    """Makes steps of a training loop of one's own, and puts back what it changed.

    Args:
        step: called with images and labels.
        model: in which the step trains; in float64, where the step bears that.
        optimizer: of the step; None lets it be found.
        scheduler: of the step, if any; those that a function's own variables hold are
            found.
        parameters: to look at.
        batch: images, channels first, and labels.
        steps: how many to make.

    Raises:
        ValueError: the step can't be made.
    """
    errors = []
    for dtype in ("float64", "float32"):
        try:
            return _observed(
                step, model, optimizer, scheduler, parameters, batch, steps, dtype
            )
        except Exception as error:  # whatever a step of one's own raises
            errors.append(" ".join(str(error).split())[:300])
    raise ValueError(f"the training step can't be made: {errors[-1]}")


def _observed(step, model, optimizer, scheduler, parameters, batch, steps, dtype):
    images, labels = (torch.tensor(array) for array in batch)
    images = images.to(getattr(torch, dtype))
    labels = labels.to(images.dtype) if labels.is_floating_point() else labels.long()
    schedulers = [scheduler, *_schedulers(step)]
    optimizers = [optimizer] if optimizer else _held(step, torch.optim.Optimizer)
    fresh, seen, rates, made, used = [], [], [], [], []

    def arrays(tensors) -> Arrays:
        return [
            np.zeros(tuple(p.shape))
            if t is None
            else t.detach().double().numpy().copy()
            for t, p in zip(tensors, parameters, strict=True)
        ]

    def collect(gradient, index: int) -> None:
        fresh[-1][index] = fresh[-1][index] + gradient.detach().double().numpy()

    def before_step(stepped, *_) -> None:
        used.append(stepped)
        seen.append(arrays([p.grad for p in parameters]))
        rates.append([float(group["lr"]) for group in stepped.param_groups])

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_chance_kept())
        stack.enter_context(torch_as(model, dtype, "cpu"))
        stack.enter_context(kept(*schedulers))
        for one in optimizers:
            stack.enter_context(lent(one, parameters))
            forget(one)
        stack.callback(register_optimizer_step_pre_hook(before_step).remove)
        for index, p in enumerate(parameters):
            if not p.requires_grad:
                continue
            hook = functools.partial(collect, index=index)
            stack.callback(p.register_hook(hook).remove)
        start = arrays([p.data for p in parameters])
        for _ in range(steps):
            fresh.append(arrays([None] * len(parameters)))
            step(images, labels)
            made.append(arrays([p.data for p in parameters]))
    if len(seen) != steps:  # none, or several in one step
        seen, rates = [], []
    known = used[0] if seen else None
    return Observed(start, fresh, seen, rates, made, dtype == "float64"), known


def _held(function: Callable, kind: type) -> list:
    """Returns the objects of a kind that a function's variables hold."""
    owners: list[object] = []
    while isinstance(function, functools.partial):
        owners += [*function.args, *function.keywords.values()]
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is None and not inspect.isfunction(function):
        owner = function
    owners += [owner, *vars(owner).values()] if hasattr(owner, "__dict__") else []
    with contextlib.suppress(TypeError, ValueError):
        variables = inspect.getclosurevars(inspect.unwrap(function))
        owners += [*variables.nonlocals.values(), *variables.globals.values()]
    found = {id(x): x for x in owners if isinstance(x, kind)}
    return list(found.values())


def _schedulers(function: Callable) -> list[Scheduler]:
    return _held(function, Scheduler)


@contextlib.contextmanager
def _chance_kept() -> Iterator[None]:
    """Puts the states of the random generators back at the end."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])

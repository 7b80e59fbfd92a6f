"""Lets the optimizers of both frameworks make steps, and leaves them as they were.

In float64, from no state, with given parameters, gradients and learning rates. Keras's
optimizer is made again from its configuration; PyTorch's is lent other parameters,
since its hooks may hold on to those of a model.
"""

import contextlib
import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from parity.frameworks import keras, tf, torch
from parity.diagnosis.training.reading import decays_in_keras, penalties
from parity.diagnosis.training.rules import Arrays

Scheduler = torch.optim.lr_scheduler.LRScheduler
Plateau = torch.optim.lr_scheduler.ReduceLROnPlateau


class Pair(NamedTuple):
    """A parameter on both sides.

    Attributes:
        variable: in Keras.
        parameter: in PyTorch.
        to_torch: brings a Keras array into PyTorch's layout.
        keras_name: attribute path of the layer.
        torch_name: likewise.
    """

    variable: keras.Variable
    parameter: torch.nn.Parameter
    to_torch: Callable[[np.ndarray], np.ndarray]
    keras_name: str
    torch_name: str


def keras_rates(optimizer: keras.optimizers.Optimizer, count: int) -> list[float]:
    """Returns the learning rates of an optimizer's next steps.

    Keras computes a schedule in float32 unless its constants are NumPy's.
    """
    rate = optimizer._learning_rate  # the property computes the present rate
    first = int(optimizer._iterations)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        with contextlib.suppress(Exception):  # one that can't be made again is used
            rate = type(rate).from_config(_digits(rate.get_config()))
        return [float(rate(first + number)) for number in range(count)]
    if isinstance(rate, keras.Variable):
        value = np.asarray(rate.value)
        # The digits that were meant: 0.1, not 0.10000000149.
        value = float(str(value)) if value.dtype == np.float32 else float(value)
        return [value] * count
    return [float(rate() if callable(rate) else rate)] * count


def torch_rates(
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler | None,
    count: int,
    every: int = 1,
) -> list[list[float]]:
    """Returns the learning rates of an optimizer's next steps, one for each group.

    Args:
        optimizer: as it is.
        scheduler: of its rates. One that waits for a loss is left alone.
        count: of the steps.
        every: after how many steps the scheduler makes one.
    """
    rates = []
    with lent(optimizer, []), kept(scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer makes no step
        for number in range(1, count + 1):
            rates.append([float(group["lr"]) for group in optimizer.param_groups])
            steps = scheduler is not None and not isinstance(scheduler, Plateau)
            if steps and number % every == 0:
                scheduler.step()
    return rates


def keras_steps(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    start: Arrays,
    gradients: Sequence[Arrays],
    rates: Sequence[float],
) -> list[Arrays]:
    """Returns the weights after each step of a Keras optimizer that is made again.

    Args:
        optimizer: as it is.
        variables: whose regularizers and exclusions count, and nothing else.
        start: the weights before, in any layout.
        gradients: of the loss without regularizers.
        rates: learning rate of each step.

    Raises:
        ValueError: the optimizer can't be made from its own configuration.
    """
    floatx, made = keras.config.floatx(), []
    factors = [penalties(variable) for variable in variables]
    try:
        keras.config.set_floatx("float64")
        with tf.device("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin = _twin(optimizer)
            weights = [
                keras.Variable(array, dtype="float64", name=variable.name)
                for array, variable in zip(start, variables, strict=True)
            ]
            fixed = [
                weight
                for weight, variable in zip(weights, variables, strict=True)
                if not decays_in_keras(optimizer, variable)
            ]
            twin.exclude_from_weight_decay(var_list=fixed)
            for rate, step in zip(rates, gradients, strict=True):
                twin.learning_rate = rate
                step = [
                    gradient + square * values + absolute * np.sign(values)
                    for gradient, (square, absolute), values in zip(
                        step, factors, (w.numpy() for w in weights), strict=True
                    )
                ]
                twin.apply([tf.constant(g, "float64") for g in step], weights)
                made.append([np.array(weight.numpy()) for weight in weights])
    finally:
        keras.config.set_floatx(floatx)
    return made


def _twin(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns a new optimizer with the same constants, with all of their digits."""
    name = type(optimizer).__name__
    try:
        config = _digits(optimizer.get_config()) | {"learning_rate": 0.1}
        return type(optimizer).from_config(config)
    except Exception as error:  # whatever a class of one's own raises
        line = " ".join(str(error).split())
        raise ValueError(
            f"the Keras optimizer {name} can't be made from its configuration: {line}"
        ) from error


def _digits(config: dict) -> dict:
    """Returns a configuration whose numbers Keras does not round to float32."""
    return {k: np.float64(v) if type(v) is float else v for k, v in config.items()}


def torch_steps(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    start: Arrays,
    gradients: Sequence[Arrays],
    rates: Sequence[Sequence[float]],
    penalty: Sequence[float],
) -> list[Arrays]:
    """Returns the weights after each step of a PyTorch optimizer.

    Args:
        optimizer: as it was afterwards.
        parameters: of its own.
        start: the weights before, of any shape.
        gradients: of the loss without penalties, for each step.
        rates: learning rates of each step, one for each group.
        penalty: factor of each parameter in the gradient of the loss.

    Raises:
        ValueError: the optimizer can't make a step from gradients alone.
    """
    made = []
    with lent(optimizer, parameters):
        for group in optimizer.param_groups:
            for parameter in group["params"]:  # hooks may change the others too
                parameter.data = parameter.data.clone()
        for parameter, array in zip(parameters, start, strict=True):
            parameter.data = torch.tensor(array, dtype=torch.float64)
        forget(optimizer)
        for groups, step in zip(rates, gradients, strict=True):
            for group, rate in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate
            for p, gradient, factor in zip(parameters, step, penalty, strict=True):
                p.grad = torch.tensor(gradient, dtype=torch.float64) + factor * p.data
            try:
                optimizer.step()
            except TypeError as error:
                name = type(optimizer).__name__
                raise ValueError(
                    f"the PyTorch optimizer {name} makes no step from gradients: "
                    f"{error}"
                ) from error
            made.append([p.data.numpy().copy() for p in parameters])
    return made


@contextlib.contextmanager
def lent(
    optimizer: torch.optim.Optimizer | None, parameters: Sequence[torch.nn.Parameter]
) -> Iterator[None]:
    """Puts an optimizer, its parameters and others back at the end."""
    groups = optimizer.param_groups if optimizer else []
    members = [member for group in groups for member in group["params"]]
    tensors = {id(p): p for p in (*members, *parameters)}.values()
    values = [(p, p.data, p.grad) for p in tensors]
    settings = [_copied(group) for group in groups]
    attributes = dict(vars(optimizer)) if optimizer else {}
    try:
        for parameter in tensors:
            parameter.grad = None
        for group in groups:
            if isinstance(group["lr"], torch.Tensor):  # a scheduler writes into it
                group["lr"] = group["lr"].clone()
        yield
    finally:
        for parameter, data, gradient in values:
            parameter.grad = None
            parameter.data = data
            parameter.grad = gradient
        for group, setting in zip(groups, settings, strict=True):
            group.clear()
            group.update(setting)
        if optimizer:
            vars(optimizer).clear()
            vars(optimizer).update(attributes)


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer the state that it has before the first step."""
    optimizer.state = defaultdict(dict)
    if isinstance(optimizer, torch.optim.Adagrad):  # makes it beforehand
        for group in optimizer.param_groups:
            for p in group["params"]:
                total = torch.full_like(p.data, group["initial_accumulator_value"])
                optimizer.state[p] = {"step": torch.tensor(0.0), "sum": total}


@contextlib.contextmanager
def kept(*schedulers: Scheduler | None) -> Iterator[None]:
    """Puts schedulers, and those that they hold, back at the end."""
    found: dict[int, Scheduler] = {}

    def collect(scheduler: Scheduler | None) -> None:
        if scheduler is not None and id(scheduler) not in found:
            found[id(scheduler)] = scheduler
            for inner in getattr(scheduler, "_schedulers", ()):
                collect(inner)

    for scheduler in schedulers:
        collect(scheduler)
    states = [(scheduler, _copied(vars(scheduler))) for scheduler in found.values()]
    try:
        yield
    finally:
        for scheduler, state in states:
            vars(scheduler).clear()
            vars(scheduler).update(state)


def _copied(values: dict) -> dict:
    """Returns values of which the lists, dicts and counters are not the same ones."""
    return {k: copy.copy(v) if _is_plain(v) else v for k, v in values.items()}


def _is_plain(value: object) -> bool:
    return isinstance(value, list | dict | set)

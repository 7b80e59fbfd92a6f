"""Reads what an optimizer of either framework does into `Rules`."""

from collections.abc import Sequence
from dataclasses import replace

from parity.frameworks import keras, torch
from keras_impl.optim import CoupledDecay
from parity.diagnosis.training.rules import (
    AFTER,
    BEFORE,
    IN_MAXIMUM,
    INSIDE,
    KINDS,
    OUT_OF_MAXIMUM,
    OUTSIDE,
    Rule,
    Rules,
    tidy,
)

# Where each side adds epsilon unless told otherwise.
KERAS_PLACES = {
    "Adam": BEFORE,
    "Nadam": AFTER,
    "RMSprop": INSIDE,
    "Adagrad": INSIDE,
    "Adadelta": INSIDE,
    "Adamax": OUT_OF_MAXIMUM,
}
TORCH_PLACES = {
    "Adam": AFTER,
    "Nadam": AFTER,
    "RMSprop": OUTSIDE,
    "Adagrad": OUTSIDE,
    "Adadelta": INSIDE,
    "Adamax": IN_MAXIMUM,
}
TORCH_KINDS = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,  # AdamW is one too
    "Nadam": torch.optim.NAdam,
    "RMSprop": torch.optim.RMSprop,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
}


def read_keras(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    rates: Sequence[float],
) -> Rules | None:
    """Returns what a Keras optimizer does, None for one that is not known.

    A subclass is read as its parent: whether that is right, its steps say.

    Args:
        optimizer: as it is.
        variables: those to train, with their regularizers.
        rates: learning rate of each step.
    """
    kinds = {name: getattr(keras.optimizers, name) for name in KINDS}
    kind = next((k for k, v in kinds.items() if isinstance(optimizer, v)), None)
    if kind is None:
        return None
    ours = isinstance(optimizer, CoupledDecay)  # those of the papers

    def constant(name: str) -> float:
        return float(getattr(optimizer, name, 0.0) or 0.0)

    rule = Rule(
        kind,
        tuple(rates),
        momentum=constant("momentum"),
        rate_inside=not ours,
        momentum_decay=float(kind == "Nadam"),
        nesterov=bool(constant("nesterov")),
        beta_1=constant("beta_1"),
        beta_2=constant("rho") or constant("beta_2"),
        epsilon=constant("epsilon"),
        epsilon_place=(TORCH_PLACES if ours else KERAS_PLACES).get(kind, ""),
        start=constant("initial_accumulator_value"),
        centered=bool(constant("centered")),
        amsgrad=bool(constant("amsgrad")),
    )
    tensors = []
    for variable in variables:
        decays = decays_in_keras(optimizer, variable)
        penalty, absolute = penalties(variable)
        tensors.append(
            replace(
                rule,
                penalty=penalty,
                absolute=absolute,
                coupled=constant("l2") * decays,
                decoupled=constant("weight_decay") * decays,
            )
        )
    bounds = {
        "clipnorm": "norm",
        "global_clipnorm": "global norm",
        "clipvalue": "value",
    }
    clip = next(
        ((kind, constant(name)) for name, kind in bounds.items() if constant(name)),
        None,
    )
    return Rules(tuple(map(tidy, tensors)), clip)


def decays_in_keras(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> bool:
    """Returns whether a variable has not been excluded from the weight decay.

    The optimizer's own method of this would write down that it was asked.
    """
    excluded = getattr(optimizer, "_exclude_from_weight_decay", ())
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if optimizer._var_key(variable) in excluded:
        return False
    return pattern is None or pattern.search(variable.name) is None


def penalties(variable: keras.Variable) -> tuple[float, float]:
    """Returns what a regularizer adds to the gradient: factors of w and of sign(w)."""
    regularizer = variable.regularizer
    square, absolute = (getattr(regularizer, name, 0.0) or 0.0 for name in ("l2", "l1"))
    return 2 * float(square), float(absolute)


def read_torch(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    rates: Sequence[Sequence[float]],
    penalty: Sequence[float],
) -> Rules | None:
    """Returns what a PyTorch optimizer does, None for one that is not known.

    Args:
        optimizer: as it is.
        parameters: those to train, all of which it holds.
        rates: learning rates of each step, one for each group of parameters.
        penalty: factor of each parameter in the gradient of the loss.
    """
    kinds = TORCH_KINDS.items()
    kind = next((k for k, v in kinds if isinstance(optimizer, v)), None)
    if kind is None:
        return None
    tensors = []
    for parameter, factor in zip(parameters, penalty, strict=True):
        index = group_of(optimizer, parameter)
        group = optimizer.param_groups[index]
        slower = group.get("lr_decay", 0.0)
        betas = group.get("betas", (0.0, 0.0))
        decay = float(group.get("weight_decay", 0.0))
        apart = bool(group.get("decoupled_weight_decay"))
        rule = Rule(
            kind,
            tuple(rate[index] / (1 + t * slower) for t, rate in enumerate(rates)),
            momentum=float(group.get("momentum", 0.0)),
            dampening=float(group.get("dampening", 0.0)),
            momentum_decay=float(group.get("momentum_decay", 0.0)),
            nesterov=bool(group.get("nesterov")),
            beta_1=float(betas[0]),
            beta_2=float(group.get("alpha", group.get("rho", betas[1]))),
            epsilon=float(group.get("eps", 0.0)),
            epsilon_place=TORCH_PLACES.get(kind, ""),
            start=float(group.get("initial_accumulator_value", 0.0)),
            centered=bool(group.get("centered")),
            amsgrad=bool(group.get("amsgrad")),
            penalty=float(factor),
            coupled=0.0 if apart else decay,
            # A group of `torch_impl.optim` has its decoupled decay there.
            decoupled=decay if apart else float(group.get("decay", 0.0)),
        )
        tensors.append(tidy(rule))
    return Rules(tuple(tensors))


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> int:
    """Returns which group of an optimizer a parameter is in, -1 where in none."""
    for index, group in enumerate(optimizer.param_groups):
        if any(member is parameter for member in group["params"]):
            return index
    return -1

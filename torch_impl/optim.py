"""The optimizers of the recipes; PyTorch defines them as the papers do."""

from collections.abc import Iterable

import torch
from torch import nn

from parity.spec.recipes import OPTIMIZERS


def create_optimizer(
    name: str, learning_rate: float, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Returns an optimizer by its name in a recipe."""
    constants = OPTIMIZERS[name]
    if name == "adam":
        betas = (constants["beta_1"], constants["beta_2"])
        return torch.optim.Adam(parameters, learning_rate, betas, constants["epsilon"])
    return torch.optim.SGD(parameters, learning_rate, **constants)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Makes the next steps with a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate

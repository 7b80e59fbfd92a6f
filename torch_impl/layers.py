"""What PyTorch lacks or defines differently from the papers."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


def he_normal(layer: nn.Module) -> nn.Module:
    """Returns the layer with He et al.'s weights and zero biases.

    PyTorch's layers start from a uniform distribution, biases too.
    """
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def glorot_uniform(layer: nn.Module) -> nn.Module:
    """Returns the layer with Glorot & Bengio's weights and zero biases."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Makes the weights drawn inside come from a seed; None changes nothing.

    PyTorch draws from one generator, which is put back.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

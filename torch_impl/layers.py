"""What PyTorch lacks or defines differently from the papers."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


def he_normal(layer: nn.Module, mode: str = "fan_in") -> nn.Module:
    """Returns the layer with He et al.'s weights and zero biases, if it has any.

    PyTorch's layers start from a uniform distribution, biases too.
    """
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def glorot_uniform(layer: nn.Module) -> nn.Module:
    """Returns the layer with Glorot & Bengio's weights and zero biases."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class LocalResponseNorm(nn.LocalResponseNorm):
    """Divides by (k + alpha * sum of squares over `size` channels) ** beta.

    PyTorch's own divides alpha by the size.
    Source: Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta=0.75, k: float = 2.0):
        super().__init__(size, alpha * size, beta, k)


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Makes the weights drawn inside come from a seed; None changes nothing.

    PyTorch draws from one generator for each device; that of the CPU is put back.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

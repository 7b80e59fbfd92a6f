"""What PyTorch lacks or defines differently from the papers."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


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

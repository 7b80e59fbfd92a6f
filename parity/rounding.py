"""What float32 rounding explains, measured by simulating it in float64.

A sum of products W x + b computed in float32 is off by at most a few units of rounding
times |W| |x| + |b|, in practice by less (Higham 2002, "Accuracy and Stability of
Numerical Algorithms", section 3.1). Noise of one unit is put on every layer's output,
and on the gradient that comes back to it; the rest of the network magnifies it as it
magnifies real rounding. Cancellation, small variances and equal pixels in a pooling
window need no rule of their own that way.

The gradient by a weight is a sum over all positions of all images, n of them: in
float32 it is off by about sqrt(n) units (Higham & Mary 2019, "A New Approach to
Probabilistic Rounding Error Analysis"), which is put on it as noise too.
"""

import contextlib
import math
from collections.abc import Iterator
from functools import partial

from parity.frameworks import torch
from torch_impl.tracing import leaf_layers

UNIT = 2.0**-24
FLOAT64_UNIT = 2.0**-53
# The largest effect of this many simulations counts, times two, since that is a sample.
SIMULATIONS = 5
MARGIN = 2.0
# What comes behind the last layer (a softmax, a logarithm, a mean over the batch)
# rounds a few times too, and the frameworks order its sums differently.
LEAST = 8 * UNIT
# Kernels that begin a sum with the bias round at the bias's size with every product.
FORWARD = 2.0
# The backward pass makes two products where the forward pass makes one.
BACKWARD = 3.0
# The layers that sum products.
SUMS = (torch.nn.Conv2d, torch.nn.Linear)


class _Noise(torch.autograd.Function):
    """Adds noise to a tensor, and a relative noise to its gradient."""

    @staticmethod
    def forward(context, tensor, added, relative):
        context.save_for_backward(relative)
        return tensor + added

    @staticmethod
    def backward(context, gradient):
        (relative,) = context.saved_tensors
        return gradient * (1 + relative), None, None


@contextlib.contextmanager
def simulated_rounding(
    model: torch.nn.Module, seed: int, scale: float = 1.0, unit: float = UNIT
) -> Iterator[None]:
    """Puts the noise of float32 on each layer's output in a float64 model.

    Args:
        model: a module; its forward hooks make the noise while inside.
        seed: of the noise.
        scale: units of rounding.
        unit: of rounding; that of float32, or of float64 to see what that does.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = {}

    def disturb(module: torch.nn.Module, args: tuple, output: object) -> object:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        if type(module) in SUMS:
            lengths[module] = output.numel() / module.weight.shape[0]
        forward, backward = (
            scale * unit * (2 * torch.rand(output.shape, generator=generator) - 1)
            for _ in range(2)
        )
        size = _magnitude(module, args, output)
        return _Noise.apply(output, size * forward.to(output), backward.to(output))

    def disturb_sum(module: torch.nn.Module, gradient: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, gradient.shape, generator=generator) * 2 - 1
        size = scale * unit * math.sqrt(lengths[module])
        return gradient * (1 + size * signs.to(gradient))

    leaves = leaf_layers(model).values()
    hooks = [module.register_forward_hook(disturb) for module in leaves]
    for module in leaves:
        for parameter in module.parameters() if type(module) in SUMS else ():
            if parameter.requires_grad:
                hooks.append(parameter.register_hook(partial(disturb_sum, module)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def disturb_weights(model: torch.nn.Module, seed: int, unit: float = UNIT) -> None:
    """Rounds every parameter of a float64 model off by up to one unit."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = 2 * torch.rand(parameter.shape, generator=generator) - 1
        parameter.mul_(1 + unit * noise.to(parameter))


@torch.no_grad()
def _magnitude(module: torch.nn.Module, args: tuple, output: torch.Tensor):
    """Returns the size that is rounded: |W| |x| + |b| of sums of products, |output|."""
    kind = type(module)
    if kind not in SUMS or not args:
        return output.abs()
    weight, bias = module.weight.abs(), module.bias
    bias = None if bias is None else bias.abs()
    if kind is torch.nn.Linear:
        return FORWARD * torch.nn.functional.linear(args[0].abs(), weight, bias)
    return FORWARD * module._conv_forward(args[0].abs(), weight, bias)

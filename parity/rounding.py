"""What float32 rounding explains, measured by simulating it in float64.

A sum of products W x + b computed in float32 is off by at most a few units of rounding
times |W| |x| + |b|, in practice by less (Higham 2002, "Accuracy and Stability of
Numerical Algorithms", section 3.1). Noise of one unit is put on every layer's output;
the rest of the network magnifies it as it magnifies real rounding. Cancellation, small
variances and equal pixels in a pooling window need no rule of their own that way.
"""

import contextlib
from collections.abc import Iterator

from parity.frameworks import torch
from torch_impl.tracing import leaf_layers

UNIT = 2.0**-24
# The largest effect of this many simulations counts, times two, since that is a sample.
SIMULATIONS = 5
MARGIN = 2.0
# What comes behind the last layer (a softmax, a logarithm, a mean over the batch)
# rounds a few times too, and the frameworks order its sums differently.
LEAST = 8 * UNIT
# The backward pass makes two products where the forward pass makes one.
BACKWARD = 3.0


@contextlib.contextmanager
def simulated_rounding(
    model: torch.nn.Module, seed: int, scale: float = 1.0
) -> Iterator[None]:
    """Puts the noise of float32 on each layer's output in a float64 model.

    Args:
        model: a module; its forward hooks make the noise while inside.
        seed: of the noise.
        scale: units of rounding.
    """
    generator = torch.Generator().manual_seed(seed)

    def disturb(module: torch.nn.Module, args: tuple, output: object) -> object:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        noise = 2 * torch.rand(output.shape, generator=generator) - 1
        size = _magnitude(module, args, output)
        return output + scale * UNIT * size * noise.to(output)

    hooks = [
        module.register_forward_hook(disturb) for module in leaf_layers(model).values()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def disturb_weights(model: torch.nn.Module, seed: int) -> None:
    """Rounds every parameter of a float64 model off by up to one unit of float32."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = 2 * torch.rand(parameter.shape, generator=generator) - 1
        parameter.mul_(1 + UNIT * noise.to(parameter))


@torch.no_grad()
def _magnitude(module: torch.nn.Module, args: tuple, output: torch.Tensor):
    """Returns |W| |x| + |b| of a layer that sums products, else |output|."""
    kind = type(module)
    if kind not in (torch.nn.Conv2d, torch.nn.Linear) or not args:
        return output.abs()
    weight, bias = module.weight.abs(), module.bias
    bias = None if bias is None else bias.abs()
    if kind is torch.nn.Linear:
        return torch.nn.functional.linear(args[0].abs(), weight, bias)
    return module._conv_forward(args[0].abs(), weight, bias)

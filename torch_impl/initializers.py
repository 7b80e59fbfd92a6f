"""The initialisers of the papers; PyTorch's layers start from other distributions.

They start from a uniform distribution within 1 / sqrt(fan_in), biases too. Each
function here takes a layer, draws its weights, sets its biases to 0, if it has any, and
returns it.

A normal distribution is not cut off unless `truncated`, which cuts it at two standard
deviations and widens it to the deviation asked for, as Keras's own always are.

The fans are what one output is made from and what one input goes into, strides aside.
PyTorch's functions see the weight's shape only and read each as (out, in, h, w): of a
weight (out, in / groups, h, w) of a convolution in groups, depthwise ones too, their
fan_out is `groups` times too large; of (in, out / groups, h, w), a transposed one's,
they exchange the two.
"""

import math

from torch import nn

from parity.spec.errors import unknown

# The deviation of the normal distribution that is cut off at -2 and 2.
TRUNCATED_DEVIATION = 0.87962566103423978


def _variance_scaling(layer: nn.Module, scale: float, mode: str, distribution: str):
    """Returns the layer with weights of variance `scale` / fan and zero biases."""
    fans = _fans(layer)
    if mode not in fans:
        raise unknown("mode", mode, fans)
    deviation = math.sqrt(scale) / math.sqrt(fans[mode])
    if distribution == "uniform":
        limit = math.sqrt(3.0) * deviation
        nn.init.uniform_(layer.weight, -limit, limit)
    elif distribution == "truncated_normal":
        deviation /= TRUNCATED_DEVIATION
        # The limits are numbers, not deviations.
        limits = (-2 * deviation, 2 * deviation)
        nn.init.trunc_normal_(layer.weight, 0.0, deviation, *limits)
    else:
        nn.init.normal_(layer.weight, 0.0, deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _fans(layer: nn.Module) -> dict[str, float]:
    """Returns the inputs of an output, the outputs of an input, and their mean."""
    first, second, *size = layer.weight.shape
    groups, area = getattr(layer, "groups", 1), math.prod(size)
    fan_in, fan_out = second * area, first // groups * area
    if getattr(layer, "transposed", False):
        fan_in, fan_out = fan_out, fan_in
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}


def _normal(truncated: bool) -> str:
    return "truncated_normal" if truncated else "untruncated_normal"


def glorot_uniform(layer: nn.Module) -> nn.Module:
    """Returns the layer with Glorot & Bengio's weights: uniform, sqrt(6 / (in + out)).

    Keras's default for kernels; biases start from 0.
    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", AISTATS 2010, equation 16.
    """
    return _variance_scaling(layer, 1.0, "fan_avg", "uniform")


def glorot_normal(layer: nn.Module, *, truncated: bool = False) -> nn.Module:
    """Returns the layer with Glorot & Bengio's weights: variance 2 / (in + out)."""
    return _variance_scaling(layer, 1.0, "fan_avg", _normal(truncated))


def he_uniform(layer: nn.Module, mode: str = "fan_in") -> nn.Module:
    """Returns the layer with He et al.'s weights: uniform within sqrt(6 / fan)."""
    return _variance_scaling(layer, 2.0, mode, "uniform")


def he_normal(
    layer: nn.Module, mode: str = "fan_in", *, truncated: bool = False
) -> nn.Module:
    """Returns the layer with He et al.'s weights: normal, of variance 2 / fan.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015, arXiv:1502.01852,
    equations 10 and 14.
    """
    return _variance_scaling(layer, 2.0, mode, _normal(truncated))


def lecun_uniform(layer: nn.Module) -> nn.Module:
    """Returns the layer with LeCun et al.'s weights: uniform within sqrt(3 / in)."""
    return _variance_scaling(layer, 1.0, "fan_in", "uniform")


def lecun_normal(layer: nn.Module, *, truncated: bool = False) -> nn.Module:
    """Returns the layer with LeCun et al.'s weights: normal, of variance 1 / in.

    Source: LeCun et al., "Efficient BackProp", 1998, equation 16.
    """
    return _variance_scaling(layer, 1.0, "fan_in", _normal(truncated))

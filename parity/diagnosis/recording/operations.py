"""What an operation computes from its parameters, in PyTorch's layout and float64.

One function for each kind, so that any parameter of a step can be exchanged for the
other framework's and the step run again. The parameters are what the two frameworks'
arguments come to: padding in pixels on each side, the epsilon itself.
"""

import math
from collections.abc import Callable

from parity.frameworks import torch
from parity.spec import padding as windows

F = torch.nn.functional
Tensor = torch.Tensor
Parameters = dict[str, object]

# Which parameters of a kind are weights.
TENSORS = {
    "conv": ("weight", "bias"),
    "conv_transpose": ("weight", "bias"),
    "dense": ("weight", "bias"),
    "batch_norm": ("gamma", "beta", "mean", "variance"),
    "layer_norm": ("gamma", "beta"),
    "group_norm": ("gamma", "beta"),
    "activation": ("slope",),
    "scale": ("scale", "shift"),
    "join": ("weight",),
}

# The axes of tokens that are cut into heads.
TOKENS, HEADS = "(N, T, heads, C)", "(N, heads, T, C)"
# Elementwise functions, and those with a parameter.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "selu": F.selu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "hard_sigmoid_keras2": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "exp": torch.exp,
    "abs": torch.abs,
    "square": torch.square,
    "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
}
FUNCTIONS_OF_ONE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "leaky_relu": lambda x, slope: torch.where(x >= 0, x, slope * x),
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x)),
}


def run(kind: str, parameters: Parameters, inputs: list[Tensor]) -> Tensor:
    """Returns what a kind of step computes.

    Args:
        kind: a key of `KINDS`.
        parameters: of the kind.
        inputs: values, channels first.

    Raises:
        RuntimeError: the inputs do not fit.
    """
    return KINDS[kind](inputs, **parameters)


def _by_channel(vector: Tensor | None, rank: int) -> Tensor | None:
    if vector is None or vector.dim() != 1:
        return vector
    return vector.reshape(1, -1, *[1] * (rank - 2))


def _sides(padding: tuple) -> list[int]:
    (top, bottom), (left, right) = padding
    return [left, right, top, bottom]


def conv(
    inputs,
    weight,
    bias,
    stride,
    padding,
    dilation,
    groups,
    mode="constant",
    value=0.0,
):
    """Pads, with `value` or by the mode of F.pad, and convolves."""
    x = pad(inputs, padding, mode, value)
    return F.conv2d(x, weight, bias, stride, 0, dilation, groups)


def conv_transpose(inputs, weight, bias, stride, crop, dilation, groups):
    """Makes the whole transposed convolution, then cuts (or adds) its border."""
    whole = F.conv_transpose2d(inputs[0], weight, None, stride, 0, 0, groups, dilation)
    whole = F.pad(whole, [-pixels for pixels in _sides(crop)])
    return whole if bias is None else whole + _by_channel(bias, 4)


def dense(inputs, weight, bias, axis=None):
    """Maps the last axis, or another one of a map that is not flattened."""
    x = inputs[0]
    if axis is not None and x.dim() > 2:
        return F.linear(x.movedim(axis, -1), weight, bias).movedim(-1, axis)
    return F.linear(x.flatten(1) if x.dim() == 4 else x, weight, bias)


def batch_norm(inputs, gamma, beta, mean, variance, epsilon, training=False):
    """Normalises each channel, in training by the batch's own statistics."""
    x = inputs[0]
    if training:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        mean, variance = x.mean(axes), x.var(axes, correction=0)
    rank = x.dim()
    mean, variance = _by_channel(mean, rank), _by_channel(variance, rank)
    x = (x - mean) / torch.sqrt(variance + epsilon)
    return _affine(x, gamma, beta)


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    if gamma is not None:
        x = x * _by_channel(gamma, x.dim())
    return x if beta is None else x + _by_channel(beta, x.dim())


def layer_norm(inputs, gamma, beta, epsilon, axes):
    """Normalises over some axes; gamma and beta have the value's number of axes."""
    x = inputs[0]
    centred = x - x.mean(axes, keepdim=True)
    x = centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    if gamma is not None:
        x = x * gamma
    return x if beta is None else x + beta


def group_norm(inputs, gamma, beta, epsilon, groups):
    """Normalises each group of channels."""
    return F.group_norm(inputs[0], groups, gamma, beta, epsilon)


def lrn(inputs, size, alpha, beta, k):
    """Divides by (k + alpha * sum of squares over `size` channels) ** beta."""
    x = inputs[0]
    before = size // 2
    squares = F.pad(x.square().movedim(1, -1), [before, size - 1 - before])
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (k + alpha * total) ** beta


def pool(inputs, mode, size, stride, padding, border, count_padding, ceil):
    """Pools; `border` is what a maximum sees beyond the edge."""
    x = inputs[0]
    sides = _sides(padding)
    if mode == "max":
        x = F.pad(x, sides, value=border)
        return F.max_pool2d(x, size, stride, ceil_mode=ceil)
    counted = torch.ones_like(x[:1, :1])
    x = F.pad(x, sides)
    counted = F.pad(counted, sides, value=float(count_padding))
    more = [0, 0]
    if ceil:
        more = [
            windows.ceil_padding(*axis)
            for axis in zip(
                inputs[0].shape[2:],
                size,
                stride,
                *zip(*padding, strict=True),
                strict=True,
            )
        ]
    over = [0, more[1], 0, more[0]]
    x, counted = F.pad(x, over), F.pad(counted, over)
    area = math.prod(size)
    x, counted = (F.avg_pool2d(y, size, stride) * area for y in (x, counted))
    return x if mode == "sum" else x / counted


def reduce(inputs, mode, axes):
    """Takes the mean, maximum or sum over axes."""
    x = inputs[0]
    if mode == "max":
        return x.amax(axes)
    return x.mean(axes) if mode == "mean" else x.sum(axes)


def adaptive_pool(inputs, mode, size):
    """Pools to a size, by PyTorch's windows."""
    pooling = F.adaptive_avg_pool2d if mode == "average" else F.adaptive_max_pool2d
    return pooling(inputs[0], size)


def pad(inputs, padding, mode="constant", value=0.0):
    """Adds a border, or cuts it off where the padding is negative."""
    if mode == "constant":
        return F.pad(inputs[0], _sides(padding), value=value)
    return F.pad(inputs[0], _sides(padding), mode=mode)


def activation(inputs, function, slope=None):
    """Applies a function to each number; the slope is ELU's alpha too."""
    x = inputs[0]
    if function in FUNCTIONS:
        return FUNCTIONS[function](x)
    if isinstance(slope, Tensor):
        slope = _by_channel(slope, x.dim())
    return FUNCTIONS_OF_ONE[function](x, slope)


def softmax(inputs, axis, log=False):
    """Normalises exponentials along an axis."""
    return (torch.log_softmax if log else torch.softmax)(inputs[0], axis)


def scale(inputs, scale, shift):
    """Multiplies by a number, or one for each channel, and adds another."""
    x = inputs[0]
    return x * _by_channel(scale, x.dim()) + _by_channel(shift, x.dim())


def merge(inputs, mode, axis=None):
    """Adds, multiplies, ... or concatenates its inputs."""
    if mode == "concatenate":
        return torch.cat(inputs, axis)
    first, *others = inputs
    for other in others:
        if mode in ("add", "average"):
            first = first + other
        elif mode == "subtract":
            first = first - other
        elif mode == "multiply":
            first = first * other
        elif mode == "divide":
            first = first / other
        elif mode == "maximum":
            first = torch.maximum(first, other)
        else:
            first = torch.minimum(first, other)
    return first / len(inputs) if mode == "average" else first


def resize(inputs, size, method, grid, antialias=False):
    """Resizes; the grid is "half_pixel", "corners" or "origin"."""
    x = inputs[0]
    if method == "nearest" and grid == "half_pixel":
        return F.interpolate(x, size, mode="nearest-exact")
    if method == "nearest":
        return F.interpolate(x, size, mode="nearest")
    if grid == "origin":
        return _resize_from_origin(x, size)
    return F.interpolate(
        x, size, mode=method, align_corners=grid == "corners", antialias=antialias
    )


def _resize_from_origin(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Makes a bilinear resize whose first pixels lie on each other, at i * scale."""
    for axis, target in zip((2, 3), size, strict=True):
        length = x.shape[axis]
        places = torch.arange(target, dtype=x.dtype) * (length / target)
        first = places.floor().long().clamp(max=length - 1)
        second = (first + 1).clamp(max=length - 1)
        part = (places - first).reshape([-1 if i == axis else 1 for i in range(4)])
        first, second = x.index_select(axis, first), x.index_select(axis, second)
        x = first * (1 - part) + second * part
    return x


def join(inputs, weight, axis, first):
    """Concatenates a weight, the same for each image, before a value or behind it."""
    x = inputs[0]
    weight = weight.expand(len(x), *weight.shape[1:])
    return torch.cat([weight, x] if first else [x, weight], axis)


def attention(
    inputs, heads, scale, causal, axis, over="keys", split=TOKENS, joined=TOKENS
):
    """Weighs values by the products of queries and keys, each head for itself.

    Args:
        inputs: queries, keys and values; all axes but the first and `axis` are places.
        heads: the parts that the features are cut into.
        scale: of the products.
        causal: whether a place sees none behind it.
        axis: that of the features.
        over: what the weights sum to 1 over: "keys", "queries" or "heads".
        split: the axes into which a reshape splits tokens; `HEADS` is a mistake.
        joined: those that a reshape puts together to tokens; likewise.
    """
    maps = [x.movedim(axis, -1) for x in inputs]
    query, key, value = (_heads(x.flatten(1, -2), heads, split) for x in maps)
    products = query @ key.transpose(2, 3) * scale
    if causal:
        behind = torch.ones(products.shape[2:], dtype=torch.bool).triu(1)
        products = products.masked_fill(behind, -math.inf)
    made = products.softmax({"keys": 3, "queries": 2, "heads": 1}[over]) @ value
    if joined == TOKENS:
        made = made.transpose(1, 2)
    return made.reshape(*maps[0].shape[:-1], -1).movedim(-1, axis)


def _heads(x: Tensor, heads: int, split: str) -> Tensor:
    """Returns tokens (N, T, C) as (N, heads, T, C / heads)."""
    if split == TOKENS:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return x.reshape(len(x), heads, -1, x.shape[-1] // heads)


def dropout(inputs, rate, active, mask=None):
    """Multiplies by the mask that was drawn, if dropout is active."""
    return inputs[0] if mask is None or not active else inputs[0] * mask


KINDS: dict[str, Callable[..., Tensor]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "dense": dense,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "lrn": lrn,
    "pool": pool,
    "reduce": reduce,
    "adaptive_pool": adaptive_pool,
    "pad": pad,
    "activation": activation,
    "softmax": softmax,
    "scale": scale,
    "merge": merge,
    "resize": resize,
    "dropout": dropout,
    "join": join,
    "attention": attention,
}


def same_padding(sizes, kernel_size, stride, dilation=(1, 1)) -> tuple:
    """Returns the pixels that TensorFlow's 'same' adds before and after each axis."""
    return tuple(map(windows.same_padding, sizes, kernel_size, stride, dilation))

"""What each kind of node is in PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F

from parity.frameworks import torch
from parity.faults.spec import Node, Style
from parity.faults.torch_formulas import (
    BatchNormByBatch,
    BatchNormByHand,
    Lambda,
    LayerNorm2d,
    LinearByHand,
    LocalResponseNorm,
    function_of,
    torch_axis,
)
from parity.spec.padding import same_padding

nn = torch.nn

# A part is a suffix of a name and a module, or a function of tensors.
Part = tuple[str, Any]


def _activation_module(item: Node, in_place: bool) -> nn.Module:
    name = item["function"]
    makers = {
        "relu": lambda: nn.ReLU(in_place),
        "relu6": lambda: nn.ReLU6(in_place),
        "leaky_relu": lambda: nn.LeakyReLU(item["slope"], in_place),
        "elu": lambda: nn.ELU(item.get("alpha", 1.0), in_place),
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU("tanh"),
        "silu": lambda: nn.SiLU(in_place),
        "hard_swish": lambda: nn.Hardswish(in_place),
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "softplus": lambda: nn.Softplus(threshold=40),
        "softmax": lambda: nn.Softmax(torch_axis(item)),
    }
    return makers[name]() if name in makers else Lambda(function_of(item))


def parts(item: Node, style: Style, inputs: list[Any]) -> list[Part]:
    """Returns the modules and functions that a node is, in order.

    Args:
        item: the node.
        style: how the side is written.
        inputs: tensors that it may be given, for their shapes.
    """
    return globals()[f"_{item.kind}"](item, style, inputs[0])


def sides(padding: Any) -> tuple[int, int, int, int]:
    """Returns (left, right, top, bottom) of one, two or four numbers of pixels."""
    if isinstance(padding, int):
        padding = (padding, padding)
    if len(padding) == 2:
        padding = (padding[0], padding[0], padding[1], padding[1])
    top, bottom, left, right = padding
    return left, right, top, bottom


def _border(border: tuple[int, ...], style: Style, value: float = 0.0) -> list[Part]:
    if not any(border):
        return []
    if style.steps == "layer":
        zero = value == 0
        module = nn.ZeroPad2d(border) if zero else nn.ConstantPad2d(border, value)
        return [("pad", module)]
    return [("", lambda x: F.pad(x, border, value=value))]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _padding(item: Node, x: Any, size: Any) -> tuple[Any, tuple[int, ...]]:
    """Returns the padding argument of a layer, and what is to be padded before it."""
    padding = item.get("padding", "same")
    none = (0, 0, 0, 0)
    if padding == "valid":
        return 0, none
    if padding != "same":
        left, right, top, bottom = sides(padding)
        if left == right and top == bottom:
            return (top, left), none
        return 0, (left, right, top, bottom)
    settings = (
        _pair(size),
        _pair(item.get("stride", 1)),
        _pair(item.get("dilation", 1)),
    )
    rows, columns = (
        same_padding(length, k, s, d)
        for length, k, s, d in zip(x.shape[2:], *settings, strict=True)
    )
    if rows[0] == rows[1] and columns[0] == columns[1]:
        return (rows[0], columns[0]), none
    return 0, (*columns, *rows)


def _conv(item: Node, style: Style, x: Any) -> list[Part]:
    channels, size = x.shape[1], item["kernel"]
    padding, border = _padding(item, x, size)
    filters = channels if item.get("depthwise") else item["filters"]
    module = nn.Conv2d(
        channels,
        filters,
        size,
        item.get("stride", 1),
        padding,
        item.get("dilation", 1),
        channels if item.get("depthwise") else item.get("groups", 1),
        item.get("bias", True),
    )
    if item.get("way") == "subsample":  # the stride of a kernel of one pixel
        rows, columns = module.stride
        module.stride = (1, 1)
        return [("", lambda x: x[:, :, ::rows, ::columns]), ("", module)]
    return [*_border(border, style), ("", module)]


def _conv_transpose(item: Node, style: Style, x: Any) -> list[Part]:
    size, stride = item["kernel"], item["stride"]
    padding = item.get("padding", "same")
    settings = {"bias": item.get("bias", True)}
    if padding == "same":
        before, largest = max(size - stride, 0) // 2, max(size, stride)
        settings["output_padding"] = largest - size
        channels = (x.shape[1], item["filters"])
        module = nn.ConvTranspose2d(*channels, size, stride, 0, **settings)

        def crop(x):
            height, width = (
                stride * ((length - largest) // stride + 1) for length in x.shape[2:]
            )
            return x[:, :, before : before + height, before : before + width]

        return [("", module), ("", crop)]
    padding = 0 if padding == "valid" else padding
    settings["output_padding"] = item.get("more", 0)
    channels = (x.shape[1], item["filters"])
    return [("", nn.ConvTranspose2d(*channels, size, stride, padding, **settings))]


def _dense(item: Node, style: Style, x: Any) -> list[Part]:
    if item.get("way") == "conv":
        conv = nn.Conv2d(x.shape[1], item["units"], x.shape[2:])
        return [("", conv), ("", lambda x: x.flatten(1))]
    if item.get("way"):
        linear = LinearByHand(x.shape[1], item["units"])
        linear.way = item["way"]
        return [("", linear)]
    return [("", nn.Linear(x.shape[1], item["units"], item.get("bias", True)))]


def _bn(item: Node, style: Style, x: Any) -> list[Part]:
    kinds = {"by_hand": BatchNormByHand, "batch": BatchNormByBatch}
    kind = kinds.get(item.get("way"), nn.BatchNorm2d)
    if item.get("training"):
        kind = BatchNormByBatch
    settings = {"affine": item.get("affine", True)}
    if item.get("way") == "untracked":
        settings["track_running_stats"] = False
    arguments = (item.get("epsilon", 1e-5), item.get("momentum", 0.1))
    return [("", kind(x.shape[1], *arguments, **settings))]


def _ln(item: Node, style: Style, x: Any) -> list[Part]:
    channels, epsilon = x.shape[1], item.get("epsilon", 1e-5)
    if item.get("axes") == "all":
        return [("", nn.GroupNorm(1, channels, epsilon))]
    return [("", (nn.LayerNorm if x.ndim == 2 else LayerNorm2d)(channels, epsilon))]


def _gn(item: Node, style: Style, x: Any) -> list[Part]:
    if item.get("way") == "instance":
        return [("", nn.InstanceNorm2d(x.shape[1], affine=True))]
    return [("", nn.GroupNorm(item["groups"], x.shape[1], item.get("epsilon", 1e-5)))]


def _lrn(item: Node, style: Style, x: Any) -> list[Part]:
    constants = (item["beta"], item["k"])
    if item.get("way") == "by_hand":
        return [("", LocalResponseNorm(item["size"], item["alpha"], *constants))]
    alpha = item["alpha"] * item["size"]  # PyTorch divides it by the size
    return [("", nn.LocalResponseNorm(item["size"], alpha, *constants))]


def _act(item: Node, style: Style, x: Any) -> list[Part]:
    if style.activation == "function" or item.get("alone") == "function":
        return [("", function_of(item, style.in_place))]
    return [("", _activation_module(item, style.in_place))]


def _pool(item: Node, style: Style, x: Any) -> list[Part]:
    size, stride = item["size"], item.get("stride", item["size"])
    largest = item.get("function", "max") == "max"
    item = Node("", "pool", (), {"padding": "valid", **item.settings, "stride": stride})
    padding, border = _padding(item, x, size)
    ceil, count = item.get("ceil", False), item.get("count", item["padding"] != "same")
    if largest and item.get("border") == "zero" and padding:
        padding, border = 0, sides(padding)
    if not largest and any(border) and not count:
        return [("", lambda x: _mean_without_padding(x, size, stride, border))]
    value = -np.inf if largest and item.get("border") != "zero" else 0.0
    before = _border(border, style, value)
    if style.steps == "function":
        if largest:
            pool = lambda x: F.max_pool2d(  # noqa: E731
                x, size, stride, padding, ceil_mode=ceil
            )
        else:
            pool = lambda x: F.avg_pool2d(  # noqa: E731
                x, size, stride, padding, ceil, count
            )
        return [*before, ("", pool)]
    if largest:
        return [*before, ("", nn.MaxPool2d(size, stride, padding, ceil_mode=ceil))]
    return [*before, ("", nn.AvgPool2d(size, stride, padding, ceil, count))]


def _mean_without_padding(x, size, stride, border):
    ones = F.pad(torch.ones_like(x), border)
    total = F.avg_pool2d(F.pad(x, border), size, stride)
    return total / F.avg_pool2d(ones, size, stride)


def _global(item: Node, style: Style, x: Any) -> list[Part]:
    largest = item.get("function", "mean") == "max"
    if item.get("way") == "keep":  # (N, C, 1, 1), for a convolution behind it
        return [("", nn.AdaptiveAvgPool2d(1))]
    if style.steps == "function":
        return [("", lambda x: x.amax((2, 3)) if largest else x.mean((2, 3)))]
    pool = nn.AdaptiveMaxPool2d(1) if largest else nn.AdaptiveAvgPool2d(1)
    return [("", pool), ("flat", nn.Flatten())]


def _flatten(item: Node, style: Style, x: Any) -> list[Part]:
    if item.get("way") == "keep":  # for a convolution behind it
        return [("", lambda x: x)]
    if item.get("order", "chw") == "hwc":
        return [("", lambda x: x.permute(0, 2, 3, 1).flatten(1))]
    if style.steps == "function":
        if item.get("way") == "view":
            return [("", lambda x: x.reshape(x.shape[0], -1))]
        return [("", lambda x: torch.flatten(x, 1))]
    return [("", nn.Flatten())]


def _reshape(item: Node, style: Style, x: Any) -> list[Part]:
    height, width, channels = item["shape"]
    if item.get("order", "hwc") == "chw":
        return [("", lambda x: x.view(-1, channels, height, width))]
    return [("", lambda x: x.view(-1, height, width, channels).permute(0, 3, 1, 2))]


def _dropout(item: Node, style: Style, x: Any) -> list[Part]:
    if item.get("active"):
        return [("", lambda x: F.dropout(x, item["rate"]))]
    if style.steps == "function":
        module = nn.Dropout(item["rate"])
        return [("", module)]
    return [("", nn.Dropout(item["rate"]))]


def _merge(item: Node, style: Style, x: Any) -> list[Part]:
    functions = {
        "add": lambda a, b: a + b,
        "multiply": lambda a, b: a * b,
        "mean": lambda a, b: (a + b) / 2,
        "maximum": torch.maximum,
        "subtract": lambda a, b: a - b,
        "concat": lambda *x: torch.cat(x, 1),
    }
    function = functions[item["function"]]
    if item.get("way") == "stack":
        function = _stacked(item["function"])
    return [("", Lambda(function) if item.get("way") == "module" else function)]


def _stacked(function: str) -> Callable:
    reduce = {"add": torch.sum, "mean": torch.mean}[function]
    return lambda *x: reduce(torch.stack(x), 0)


def _pad(item: Node, style: Style, x: Any) -> list[Part]:
    border, mode = sides(item["pixels"]), item.get("mode", "constant")
    value = item.get("value", 0.0)
    if style.steps == "layer" and mode == "constant" and value == 0:
        return [("", nn.ZeroPad2d(border))]
    if mode == "constant":
        return [("", lambda x: F.pad(x, border, value=value))]
    return [("", lambda x: F.pad(x, border, mode=mode))]


def _scale(item: Node, style: Style, x: Any) -> list[Part]:
    factor, offset = item.get("factor", 1.0), item.get("offset", 0.0)
    if offset:
        return [("", lambda x: x * factor + offset)]
    return [("", lambda x: x * factor)]


def _upsample(item: Node, style: Style, x: Any) -> list[Part]:
    factor, method = item["factor"], item.get("method", "nearest")
    align = {"align_corners": item["align"]} if "align" in item.settings else {}
    if style.steps == "function":
        settings = {"scale_factor": factor, "mode": method, **align}
        return [("", lambda x: F.interpolate(x, **settings))]
    return [("", nn.Upsample(scale_factor=factor, mode=method, **align))]


def _resize(item: Node, style: Style, x: Any) -> list[Part]:
    settings = {"size": tuple(item["size"]), "mode": item.get("method", "bilinear")}
    if settings["mode"] != "nearest":
        settings["align_corners"] = item.get("align", False)
        settings["antialias"] = item.get("antialias", False)
    return [("", lambda x: F.interpolate(x, **settings))]


def _space(item: Node, style: Style, x: Any) -> list[Part]:
    if item.get("order", "channels_last") != "channels_last":
        return [("", nn.PixelShuffle(2))]

    def spread(x, r=2):
        count, channels, height, width = x.shape
        depth = channels // r**2
        x = x.view(count, r, r, depth, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(count, depth, height * r, width * r)

    return [("", spread)]


def _shuffle(item: Node, style: Style, x: Any) -> list[Part]:
    def shuffle(x):
        count, channels, height, width = x.shape
        groups = item["groups"]
        if item.get("order", "groups") != "groups":
            groups = channels // groups
        x = x.view(count, groups, channels // groups, height, width)
        return x.transpose(1, 2).reshape(count, channels, height, width)

    return [("", shuffle)]


def _gate(item: Node, style: Style, x: Any) -> list[Part]:
    return [("", lambda x: x[:, :, None, None])]


def _op(item: Node, style: Style, x: Any) -> list[Part]:
    factor = item.get("factor", 1.0)
    functions = {
        "square": torch.square,
        "abs": torch.abs,
        "flip": lambda x: x.flip(3),
        "roll": lambda x: x.roll(1, 3),
        "normalize": lambda x: x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-6),
        "center": lambda x: x - x.mean(1, keepdim=True),
        "sqrt": torch.sqrt,
        "log": torch.log,
        "log1p": torch.log1p,
        "exp": torch.exp,
        "stop": lambda x: x.detach(),
        "scale_gradient": lambda x: x * factor + (x * (1 - factor)).detach(),
        "identity": lambda x: x * 1,
    }
    return [("", functions[item["function"]])]

"""What each kind of node is in Keras."""

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.frameworks import keras
from keras_impl.layers import BatchNormalization
from parity.faults.keras_formulas import (
    Bilinear,
    LocalResponseNorm,
    MonteCarloDropout,
    TensorFlowLRN,
    activation_argument,
    function_of,
    keras_axis,
)
from parity.faults.spec import Node, Style
from parity.spec.padding import ceil_padding

layers, ops = keras.layers, keras.ops

# A part is a suffix of a name and what makes a layer, or a function of tensors.
Part = tuple[str, Callable[..., Any], bool]


def _activation_layer(item: Node) -> Callable:
    name = item["function"]
    makers = {
        "relu": layers.ReLU,
        "relu6": lambda **k: layers.ReLU(6.0, **k),
        "leaky_relu": lambda **k: layers.LeakyReLU(item["slope"], **k),
        "elu": lambda **k: layers.ELU(item.get("alpha", 1.0), **k),
        "softmax": lambda **k: layers.Softmax(keras_axis(item, None), **k),
    }
    if name in makers:
        return makers[name]
    return lambda **k: layers.Activation(activation_argument(item), **k)


def parts(item: Node, style: Style, activation: Node | None) -> list[Part]:
    """Returns the layers and functions that a node is, in order."""
    make = globals().get(f"_{item.kind}")
    return make(item, style, activation and activation_argument(activation))


def _layer(make: Callable, *arguments: Any, suffix: str = "", **settings: Any) -> Part:
    return suffix, lambda **name: make(*arguments, **settings, **name), True


def _function(function: Callable) -> Part:
    return "", function, False


def sides(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns ((top, bottom), (left, right)) of one, two or four numbers of pixels."""
    if isinstance(padding, int):
        padding = (padding, padding)
    if len(padding) == 2:
        padding = (padding[0], padding[0], padding[1], padding[1])
    top, bottom, left, right = padding
    return (top, bottom), (left, right)


def _border(padding: Any, style: Style, value: float = 0.0) -> list[Part]:
    """Returns what puts pixels around images, if any."""
    border = sides(padding)
    if not any(map(any, border)):
        return []
    if style.steps == "layer" and value == 0:
        return [_layer(layers.ZeroPadding2D, border, suffix="pad")]
    pads = [(0, 0), *border, (0, 0)]
    return [_function(lambda x: ops.pad(x, pads, constant_values=value))]


def _conv(item: Node, style: Style, activation: object) -> list[Part]:
    padding = item.get("padding", "same")
    settings = {
        "strides": item.get("stride", 1),
        "padding": padding if isinstance(padding, str) else "valid",
        "dilation_rate": item.get("dilation", 1),
        "use_bias": item.get("bias", True),
        "activation": activation,
    }
    before = [] if isinstance(padding, str) else _border(padding, style)
    if penalty := item.get("l2"):
        settings["kernel_regularizer"] = keras.regularizers.L2(penalty)
    if item.get("depthwise"):
        return [*before, _layer(layers.DepthwiseConv2D, item["kernel"], **settings)]
    settings["groups"] = item.get("groups", 1)
    make = _layer(layers.Conv2D, item["filters"], item["kernel"], **settings)
    return [*before, make]


def _conv_transpose(item: Node, style: Style, activation: object) -> list[Part]:
    padding = item.get("padding", "same")
    settings = {"strides": item["stride"], "use_bias": item.get("bias", True)}
    settings["padding"] = padding if isinstance(padding, str) else "valid"
    make = layers.Conv2DTranspose
    part = _layer(make, item["filters"], item["kernel"], **settings)
    if isinstance(padding, str):
        return [part]
    crop = ((padding, padding - item.get("more", 0)),) * 2
    return [part, _layer(layers.Cropping2D, crop, suffix="crop")]


def _dense(item: Node, style: Style, activation: object) -> list[Part]:
    settings = {"use_bias": item.get("bias", True), "activation": activation}
    if penalty := item.get("l2"):
        settings["kernel_regularizer"] = keras.regularizers.L2(penalty)
    return [_layer(layers.Dense, item["units"], **settings)]


def _bn(item: Node, style: Style, activation: object) -> list[Part]:
    make = BatchNormalization if item.get("unbiased") else layers.BatchNormalization
    settings = {
        "epsilon": item.get("epsilon", 1e-5),
        "momentum": 1 - item.get("momentum", 0.1),
        "center": item.get("affine", True),
        "scale": item.get("affine", True) and item.get("scale", True),
    }
    return [_layer(make, **settings)]


def _ln(item: Node, style: Style, activation: object) -> list[Part]:
    settings = {"epsilon": item.get("epsilon", 1e-5)}
    if item.get("axes") == "all":
        return [_layer(layers.GroupNormalization, 1, **settings)]
    return [_layer(layers.LayerNormalization, **settings)]


def _gn(item: Node, style: Style, activation: object) -> list[Part]:
    settings = {"epsilon": item.get("epsilon", 1e-5)}
    return [_layer(layers.GroupNormalization, item["groups"], **settings)]


def _lrn(item: Node, style: Style, activation: object) -> list[Part]:
    make = TensorFlowLRN if item.get("way") == "tensorflow" else LocalResponseNorm
    return [_layer(make, item["size"], item["alpha"], item["beta"], item["k"])]


def _act(item: Node, style: Style, activation: object) -> list[Part]:
    by_hand = item["function"].endswith("by_hand")
    if by_hand or style.activation == "function" or item.get("alone") == "function":
        return [_function(function_of(item))]
    make = _activation_layer(item)
    return [("", make, True)]


def _pool(item: Node, style: Style, activation: object) -> list[Part]:
    size, padding = item["size"], item.get("padding", "valid")
    stride, largest = item.get("stride", size), item.get("function", "max") == "max"
    before = []
    if isinstance(padding, int) and padding:
        value = -np.inf if largest and item.get("border") != "zero" else 0.0
        before = _border(padding, style, value)
    if item.get("ceil"):
        before = [_function(lambda x: _padded_to_end(x, size, stride, padding))]
    name = padding if isinstance(padding, str) else "valid"
    if not largest and before and not item.get("count", True):
        return [_function(lambda x: _mean_without_padding(x, size, stride, padding))]
    if style.steps == "function":
        pool = ops.max_pool if largest else ops.average_pool
        return [*before, _function(lambda x: pool(x, size, stride, name))]
    make = layers.MaxPooling2D if largest else layers.AveragePooling2D
    return [*before, _layer(make, size, stride, name)]


def _padded_to_end(x, size: int, stride: int, padding: Any):
    """Returns images with as much -inf behind them as a last window needs."""
    padding = padding if isinstance(padding, int) else 0
    pads = [(0, 0), (0, 0), (0, 0), (0, 0)]
    for axis in (1, 2):
        behind = ceil_padding(x.shape[axis], size, stride, padding)
        pads[axis] = (padding, padding + behind)
    return ops.pad(x, pads, constant_values=-np.inf)


def _mean_without_padding(x, size: int, stride: int, padding: int):
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    ones = ops.pad(ops.ones_like(x), pads)
    total = ops.average_pool(ops.pad(x, pads), size, stride, "valid")
    return total / ops.average_pool(ones, size, stride, "valid")


def _global(item: Node, style: Style, activation: object) -> list[Part]:
    largest = item.get("function", "mean") == "max"
    if style.steps == "function":
        reduce = ops.max if largest else ops.mean
        return [_function(lambda x: reduce(x, (1, 2)))]
    mean, maximum = layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D
    return [_layer(maximum if largest else mean)]


def _flatten(item: Node, style: Style, activation: object) -> list[Part]:
    if item.get("order", "hwc") == "chw":
        return [
            _layer(layers.Permute, (3, 1, 2), suffix="permute"),
            _layer(layers.Flatten),
        ]
    if style.steps == "function":
        return [_function(lambda x: ops.reshape(x, (-1, int(np.prod(x.shape[1:])))))]
    return [_layer(layers.Flatten)]


def _reshape(item: Node, style: Style, activation: object) -> list[Part]:
    return [_layer(layers.Reshape, item["shape"])]  # (H, W, C)


def _dropout(item: Node, style: Style, activation: object) -> list[Part]:
    if item.get("active"):
        return [_layer(MonteCarloDropout, item["rate"])]
    return [_layer(layers.Dropout, item["rate"])]


def _merge(item: Node, style: Style, activation: object) -> list[Part]:
    function = item["function"]
    names = {"add": layers.Add, "multiply": layers.Multiply, "mean": layers.Average}
    names |= {"maximum": layers.Maximum, "subtract": layers.Subtract}
    if style.steps == "layer":
        make = layers.Concatenate if function == "concat" else names[function]
        return [_layer(make)]
    functions = {
        "add": lambda a, b: a + b,
        "multiply": lambda a, b: a * b,
        "mean": lambda a, b: (a + b) / 2,
        "maximum": ops.maximum,
        "subtract": lambda a, b: a - b,
        "concat": lambda *x: ops.concatenate(x, -1),
    }
    return [_function(functions[function])]


def _pad(item: Node, style: Style, activation: object) -> list[Part]:
    mode, value = item.get("mode", "constant"), item.get("value", 0.0)
    if mode == "constant" and value == 0:
        return [(("", *part[1:])) for part in _border(item["pixels"], style)]
    pads = [(0, 0), *sides(item["pixels"]), (0, 0)]
    if mode == "constant":
        return [_function(lambda x: ops.pad(x, pads, constant_values=value))]
    mode = {"replicate": "symmetric"}.get(mode, mode)  # the same for one pixel
    return [_function(lambda x: ops.pad(x, pads, mode))]


def _scale(item: Node, style: Style, activation: object) -> list[Part]:
    factor, offset = item.get("factor", 1.0), item.get("offset", 0.0)
    if style.steps == "layer" and item.get("way") != "function":
        return [_layer(layers.Rescaling, factor, offset)]
    if offset:
        return [_function(lambda x: x * factor + offset)]
    return [_function(lambda x: x * factor)]


def _upsample(item: Node, style: Style, activation: object) -> list[Part]:
    method = item.get("method", "nearest")
    return [_layer(layers.UpSampling2D, item["factor"], interpolation=method)]


def _resize(item: Node, style: Style, activation: object) -> list[Part]:
    size, method = item["size"], item.get("method", "bilinear")
    if item.get("way") == "by_hand":
        return [_layer(Bilinear, size)]
    antialias = item.get("antialias", False)
    if style.steps == "function" or antialias:
        return [
            _function(
                lambda x: ops.image.resize(
                    x, size, interpolation=method, antialias=antialias
                )
            )
        ]
    return [_layer(layers.Resizing, *size, interpolation=method)]


def _space(item: Node, style: Style, activation: object) -> list[Part]:
    """Depth to space: channels hold (row, column, channel), or the channel first."""

    def spread(x, r=2):
        _, height, width, channels = x.shape
        depth = channels // r**2
        if item.get("order", "channels_last") == "channels_last":
            x = ops.reshape(x, (-1, height, width, r, r, depth))
            x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        else:
            x = ops.reshape(x, (-1, height, width, depth, r, r))
            x = ops.transpose(x, (0, 1, 4, 2, 5, 3))
        return ops.reshape(x, (-1, height * r, width * r, depth))

    return [_function(spread)]


def _shuffle(item: Node, style: Style, activation: object) -> list[Part]:
    def shuffle(x):
        _, height, width, channels = x.shape
        groups = item["groups"]
        if item.get("order", "groups") != "groups":
            groups = channels // groups
        x = ops.reshape(x, (-1, height, width, groups, channels // groups))
        x = ops.transpose(x, (0, 1, 2, 4, 3))
        return ops.reshape(x, (-1, height, width, channels))

    return [_function(shuffle)]


def _gate(item: Node, style: Style, activation: object) -> list[Part]:
    """Lets a vector (N, C) scale images (N, 1, 1, C)."""
    if style.steps == "layer":
        return [_layer(layers.Reshape, (1, 1, item["channels"]))]
    return [_function(lambda x: ops.reshape(x, (-1, 1, 1, item["channels"])))]


def _op(item: Node, style: Style, activation: object) -> list[Part]:
    """Any operation that has no kind of its own."""
    factor = item.get("factor", 1.0)
    functions = {
        "square": ops.square,
        "abs": ops.abs,
        "flip": lambda x: ops.flip(x, 2),
        "roll": lambda x: ops.roll(x, 1, 2),
        "normalize": lambda x: x / ops.sqrt(ops.sum(x * x, -1, keepdims=True) + 1e-6),
        "center": lambda x: x - ops.mean(x, -1, keepdims=True),
        "sqrt": ops.sqrt,
        "log": ops.log,
        "log1p": ops.log1p,
        "exp": ops.exp,
        "stop": ops.stop_gradient,
        "scale_gradient": lambda x: x * factor + ops.stop_gradient(x * (1 - factor)),
        "identity": lambda x: x * 1,
    }
    return [_function(functions[item["function"]])]

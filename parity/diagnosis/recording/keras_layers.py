"""Reads Keras's own layers as the operations of `operations.py`."""

import math
from collections.abc import Callable

from parity.frameworks import keras, torch
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.constants import Unknown, dense, einsum, spread
from parity.diagnosis.recording.graph import View
from parity.diagnosis.recording.keras_attention import Array, read_multi_head

layers = keras.layers
Tensor = torch.Tensor

# Keras's activation -> the function of `operations.py`.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh",
    "gelu": "gelu", "silu": "silu", "swish": "silu", "mish": "mish", "selu": "selu",
    "softplus": "softplus", "softsign": "softsign", "hard_silu": "hard_swish",
    "hard_swish": "hard_swish", "hard_sigmoid": "hard_sigmoid", "exponential": "exp",
}  # fmt: skip
MERGES = {
    "Add": "add", "Subtract": "subtract", "Multiply": "multiply",
    "Average": "average", "Maximum": "maximum", "Minimum": "minimum",
}  # fmt: skip


def read_activation(function: Callable, view: View) -> tuple[str | None, dict]:
    """Returns the kind and parameters of an activation function, (None, {}) if unknown.

    The kind is "linear" where it does nothing.
    """
    if isinstance(function, keras.Layer):
        read = _read(None, function, [0], {}, None)
        return (read[0][0], read[0][2]) if read and read != "reshape" else (None, {})
    if not str(getattr(function, "__module__", "")).startswith("keras.src.activations"):
        return None, {}
    name = function.__name__
    if name == "linear":
        return "linear", {}
    if name in ("softmax", "log_softmax"):
        axis = view.axes[-1]
        return "softmax", {"axis": axis, "log": name == "log_softmax"}
    if name == "leaky_relu":
        return "activation", {"function": name, "slope": 0.2}
    if name == "elu":
        return "activation", {"function": name, "slope": 1.0}
    if name in ACTIVATIONS:
        return "activation", {"function": ACTIVATIONS[name]}
    return None, {}


def read_layer(recorder, layer: keras.Layer, numbers: list[int], kwargs, output):
    """Returns a layer's steps as (kind, inputs, parameters, output), or None.

    "reshape" stands for a layer that only moves pixels about. Inputs of None are those
    of the layer, an output of None is the layer's.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    return _read(recorder, layer, numbers, kwargs, output)


def _read(recorder, layer, numbers, kwargs, output):
    for kind, reader in READERS.items():
        if isinstance(layer, kind):
            return reader(recorder, layer, numbers, kwargs, output)
    reader = READERS_BY_NAME.get(type(layer).__name__)
    return reader(recorder, layer, numbers, kwargs, output) if reader else None


def _one(kind: str, parameters: dict) -> list:
    return [(kind, None, parameters, None)]


def _sizes(recorder, number: int) -> tuple[int, ...]:
    return recorder.natural_shape(number)[2:]


def _window(recorder, number, padding, size, stride, dilation=(1, 1)) -> tuple:
    if padding == "same":
        sizes = _sizes(recorder, number)
        return operations.same_padding(sizes, size, stride, dilation)
    return ((0, 0), (0, 0))


def _bias(recorder, layer) -> Tensor | None:
    return recorder.tensor(layer.bias) if layer.use_bias else None


def _conv(recorder, layer, numbers, kwargs, output):
    weight = recorder.tensor(layer.kernel, (3, 2, 0, 1))
    padding = _window(
        recorder,
        numbers[0],
        layer.padding,
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
    )
    if hasattr(layer, "pixels"):  # ours, which pads as PyTorch does
        padding = ((layer.pixels, layer.pixels),) * 2
    parameters = {
        "weight": weight,
        "bias": _bias(recorder, layer),
        "stride": tuple(layer.strides),
        "padding": padding,
        "dilation": tuple(layer.dilation_rate),
        "groups": layer.groups,
    }
    return _one("conv", parameters)


def _depthwise_kernel(recorder, variable) -> Tensor:
    kernel = recorder.tensor(variable)
    height, width, channels, multiplier = kernel.shape
    weight = kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return recorder.named(weight.contiguous(), recorder.constants[id(kernel)])


def _depthwise(recorder, layer, numbers, kwargs, output):
    weight = _depthwise_kernel(recorder, layer.kernel)
    padding = _window(
        recorder,
        numbers[0],
        layer.padding,
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
    )
    parameters = {
        "weight": weight,
        "bias": _bias(recorder, layer),
        "stride": tuple(layer.strides),
        "padding": padding,
        "dilation": tuple(layer.dilation_rate),
        "groups": recorder.natural_shape(numbers[0])[1],
    }
    return _one("conv", parameters)


def _separable(recorder, layer, numbers, kwargs, output):
    first = _depthwise_kernel(recorder, layer.depthwise_kernel)
    channels = recorder.natural_shape(numbers[0])[1]
    stride, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    depthwise = {
        "weight": first,
        "bias": None,
        "stride": stride,
        "padding": _window(
            recorder, numbers[0], layer.padding, layer.kernel_size, stride, dilation
        ),
        "dilation": dilation,
        "groups": channels,
    }
    pointwise = {
        "weight": recorder.tensor(layer.pointwise_kernel, (3, 2, 0, 1)),
        "bias": _bias(recorder, layer),
        "stride": (1, 1),
        "padding": ((0, 0), (0, 0)),
        "dilation": (1, 1),
        "groups": 1,
    }
    value = operations.run("conv", depthwise, [recorder.graph.values[numbers[0]]])
    between = recorder.inner_array(Array(value.permute(0, 2, 3, 1).numpy()))
    return [
        ("conv", None, depthwise, between),
        ("conv", [between], pointwise, None),
    ]


def _conv_transpose(recorder, layer, numbers, kwargs, output):
    weight = recorder.tensor(layer.kernel, (3, 2, 0, 1))
    crop = []
    for size, made, kernel, step, apart in zip(
        _sizes(recorder, numbers[0]),
        output.shape[1:3],
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
        strict=True,
    ):
        reach = (kernel - 1) * apart + 1
        whole = (size - 1) * step + reach
        before = max(reach - step, 0) // 2 if layer.padding == "same" else 0
        crop.append((before, whole - before - int(made)))
    parameters = {
        "weight": weight,
        "bias": _bias(recorder, layer),
        "stride": tuple(layer.strides),
        "crop": tuple(crop),
        "dilation": tuple(layer.dilation_rate),
        "groups": 1,
    }
    return _one("conv_transpose", parameters)


def _dense(recorder, layer, numbers, kwargs, output):
    weight = recorder.tensor(layer.kernel, (1, 0))
    kind, _, parameters = dense(recorder, numbers[0], weight, _bias(recorder, layer))
    return _one(kind, parameters)


def _einsum_dense(recorder, layer, numbers, kwargs, output):
    kernel, bias = recorder.tensor(layer.kernel), recorder.tensor(layer.bias)
    try:
        if bias is not None and bias.dim() != 1:
            return None
        read = einsum(recorder, layer.equation, numbers[0], kernel, bias)
    except Unknown:
        return None
    return _one(read[0], read[2])


def _batch_norm(recorder, layer, numbers, kwargs, output):
    rank = len(recorder.graph.shapes[numbers[0]])
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis % rank != rank - 1:
        return None
    parameters = {
        "gamma": recorder.tensor(layer.gamma) if layer.scale else None,
        "beta": recorder.tensor(layer.beta) if layer.center else None,
        "mean": recorder.tensor(layer.moving_mean),
        "variance": recorder.tensor(layer.moving_variance),
        "epsilon": float(layer.epsilon),
        "training": bool(kwargs.get("training")) and layer.trainable,
    }
    return _one("batch_norm", parameters)


def _layer_norm(recorder, layer, numbers, kwargs, output):
    view = recorder.graph.views[numbers[0]]
    rank = len(recorder.graph.shapes[numbers[0]])
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    axes = [axis % rank for axis in axes]
    if view.pixels or getattr(layer, "rms_scaling", False):
        return None
    parameters = {
        "epsilon": float(layer.epsilon),
        "axes": tuple(sorted(view.axes[axis] for axis in axes)),
    }
    for name, used in (("gamma", layer.scale), ("beta", layer.center)):
        vector = recorder.tensor(getattr(layer, name)) if used else None
        parameters[name] = spread(recorder, vector, view, axes)
    return _one("layer_norm", parameters)


def _group_norm(recorder, layer, numbers, kwargs, output):
    if layer.axis not in (-1, 3):
        return None
    groups = layer.groups
    parameters = {
        "gamma": recorder.tensor(layer.gamma) if layer.scale else None,
        "beta": recorder.tensor(layer.beta) if layer.center else None,
        "epsilon": float(layer.epsilon),
        "groups": recorder.natural_shape(numbers[0])[1] if groups == -1 else groups,
    }
    return _one("group_norm", parameters)


def _pool(recorder, layer, numbers, kwargs, output):
    average = "Average" in type(layer).__name__
    size, stride = tuple(layer.pool_size), tuple(layer.strides)
    parameters = {
        "mode": "average" if average else "max",
        "size": size,
        "stride": stride,
        "padding": _window(recorder, numbers[0], layer.padding, size, stride),
        "border": -math.inf,
        "count_padding": False,
        "ceil": False,
    }
    return _one("pool", parameters)


def _global_pool(recorder, layer, numbers, kwargs, output):
    mode = "mean" if "Average" in type(layer).__name__ else "max"
    axes = recorder.graph.views[numbers[0]].axes
    return _one("reduce", {"mode": mode, "axes": tuple(sorted(axes[1:3]))})


def _adaptive_pool(recorder, layer, numbers, kwargs, output):
    mode = "average" if "Average" in type(layer).__name__ else "max"
    size = getattr(layer, "output_size", None) or layer.size  # ours says size
    size = (size, size) if isinstance(size, int) else tuple(size)
    if size == (1, 1):
        return _one(
            "reduce", {"mode": "mean" if "a" in mode[0] else mode, "axes": (2, 3)}
        )
    return _one("adaptive_pool", {"mode": mode, "size": size})


def _zero_padding(recorder, layer, numbers, kwargs, output):
    return _one("pad", {"padding": layer.padding, "mode": "constant", "value": 0.0})


def _cropping(recorder, layer, numbers, kwargs, output):
    sides = tuple((-before, -after) for before, after in layer.cropping)
    return _one("pad", {"padding": sides, "mode": "constant", "value": 0.0})


def _activation(recorder, layer, numbers, kwargs, output):
    view = recorder.graph.views[numbers[0]]
    kind, parameters = read_activation(layer.activation, view)
    return "reshape" if kind == "linear" else (_one(kind, parameters) if kind else None)


def _relu(recorder, layer, numbers, kwargs, output):
    slope, threshold = float(layer.negative_slope or 0), float(layer.threshold or 0)
    if threshold or (slope and layer.max_value is not None):
        return None
    if layer.max_value is not None and layer.max_value != 6:
        return None
    if slope:
        return _one("activation", {"function": "leaky_relu", "slope": slope})
    function = "relu" if layer.max_value is None else "relu6"
    return _one("activation", {"function": function})


def _leaky(recorder, layer, numbers, kwargs, output):
    slope = float(layer.negative_slope)
    return _one("activation", {"function": "leaky_relu", "slope": slope})


def _elu(recorder, layer, numbers, kwargs, output):
    return _one("activation", {"function": "elu", "slope": float(layer.alpha)})


def _prelu(recorder, layer, numbers, kwargs, output):
    slope = recorder.tensor(layer.alpha)
    if slope.numel() != slope.shape[-1]:
        return None
    slope = recorder.named(slope.flatten(), recorder.constants[id(slope)])
    return _one("activation", {"function": "leaky_relu", "slope": slope})


def _softmax(recorder, layer, numbers, kwargs, output):
    if not isinstance(layer.axis, int) or recorder is None:
        return None
    view = recorder.graph.views[numbers[0]]
    axis = view.axes[layer.axis % len(view.axes)]
    return _one("softmax", {"axis": axis, "log": False})


def _reshape(recorder, layer, numbers, kwargs, output):
    return "reshape"


def _merge(recorder, layer, numbers, kwargs, output):
    views = [recorder.graph.views[number] for number in numbers]
    if len(set(views)) > 1:
        return None
    return _one("merge", {"mode": MERGES[type(layer).__name__]})


def _concatenate(recorder, layer, numbers, kwargs, output):
    views = [recorder.graph.views[number] for number in numbers]
    if len(set(views)) > 1 or views[0].flattened_order:
        return None
    axis = views[0].axes[layer.axis % len(views[0].axes)]
    return _one("merge", {"mode": "concatenate", "axis": axis})


def _dropout(recorder, layer, numbers, kwargs, output):
    given = recorder.graph.values[numbers[0]]
    made = recorder.graph.views[numbers[0]].value(recorder.to_tensor(output))
    active = not torch.equal(given, made)  # whatever flag it was called with
    return _one("dropout", {"rate": float(layer.rate), "active": active})


def _rescaling(recorder, layer, numbers, kwargs, output):
    numbers = torch.tensor(layer.scale), torch.tensor(layer.offset)
    scale, shift = (number.double() for number in numbers)
    return _one("scale", {"scale": scale, "shift": shift})


def _normalization(recorder, layer, numbers, kwargs, output):
    mean, variance = (
        recorder.to_tensor(array).flatten() for array in (layer.mean, layer.variance)
    )
    deviation = variance.sqrt().clamp(min=keras.backend.epsilon())
    if layer.invert:
        return _one("scale", {"scale": deviation, "shift": mean})
    return _one("scale", {"scale": 1 / deviation, "shift": -mean / deviation})


def _resizing(recorder, layer, numbers, kwargs, output):
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        return None
    parameters = {
        "size": (layer.height, layer.width),
        "method": layer.interpolation,
        "grid": "half_pixel",
        "antialias": bool(layer.antialias),
    }
    return _one("resize", parameters)


def _upsampling(recorder, layer, numbers, kwargs, output):
    size = tuple(
        pixels * times
        for pixels, times in zip(_sizes(recorder, numbers[0]), layer.size, strict=True)
    )
    method = layer.interpolation
    grid = "origin" if method == "nearest" else "half_pixel"
    parameters = {"size": size, "method": method, "grid": grid, "antialias": False}
    return _one("resize", parameters)


def _lrn(recorder, layer, numbers, kwargs, output):
    names = ("size", "alpha", "beta", "k")
    if not all(hasattr(layer, name) for name in names):
        return None
    parameters = {name: float(getattr(layer, name)) for name in names}
    parameters["size"] = int(layer.size)
    return _one("lrn", parameters)


READERS = {
    layers.MultiHeadAttention: read_multi_head,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.Conv2DTranspose: _conv_transpose,
    layers.Conv2D: _conv,
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.BatchNormalization: _batch_norm,
    layers.LayerNormalization: _layer_norm,
    layers.GroupNormalization: _group_norm,
    layers.MaxPooling2D: _pool,
    layers.AveragePooling2D: _pool,
    layers.GlobalAveragePooling2D: _global_pool,
    layers.GlobalMaxPooling2D: _global_pool,
    layers.ZeroPadding2D: _zero_padding,
    layers.Cropping2D: _cropping,
    layers.Activation: _activation,
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky,
    layers.ELU: _elu,
    layers.PReLU: _prelu,
    layers.Softmax: _softmax,
    layers.Flatten: _reshape,
    layers.Reshape: _reshape,
    layers.Permute: _reshape,
    layers.Identity: _reshape,
    layers.Add: _merge,
    layers.Subtract: _merge,
    layers.Multiply: _merge,
    layers.Average: _merge,
    layers.Maximum: _merge,
    layers.Minimum: _merge,
    layers.Concatenate: _concatenate,
    layers.Dropout: _dropout,
    layers.SpatialDropout2D: _dropout,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.Resizing: _resizing,
    layers.UpSampling2D: _upsampling,
}
# Ours, and those of the same name that others have written.
READERS_BY_NAME = {
    "LocalResponseNorm": _lrn,
    "AdaptiveAveragePooling2D": _adaptive_pool,
    "AdaptiveMaxPooling2D": _adaptive_pool,
}

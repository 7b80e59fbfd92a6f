"""Reads TensorFlow's own operations as those of `operations.py`."""

import math

import numpy as np

from parity.diagnosis.recording import operations
from parity.diagnosis.recording.constants import (
    Unknown,
    dense,
    einsum,
    join,
    scale_by_constant,
)

ACTIVATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Selu": "selu", "Softplus": "softplus", "Softsign": "softsign", "Exp": "exp",
    "Abs": "abs", "Square": "square",
}  # fmt: skip
MERGES = {
    "AddV2": "add", "Add": "add", "Sub": "subtract", "Mul": "multiply",
    "RealDiv": "divide", "Div": "divide", "Maximum": "maximum", "Minimum": "minimum",
}  # fmt: skip


def read_operation(recorder, kind: str, inputs: list, attributes: dict, outputs: list):
    """Returns an operation's (kind, inputs, parameters), None where no reader fits.

    Args:
        recorder: which knows the values.
        kind: TensorFlow's name of the operation.
        inputs: its eager tensors.
        attributes: by TensorFlow's names.
        outputs: its eager tensors.
    """
    reader = READERS.get(kind)
    if kind in ACTIVATIONS:
        reader = _activation
    elif kind in MERGES:
        reader = _merge
    if reader is None or attributes.get("data_format", "NHWC") != "NHWC":
        return None
    try:
        return reader(recorder, kind, inputs, attributes, outputs)
    except Unknown:
        return None


def _numbers(recorder, inputs: list) -> list[int]:
    numbers = [recorder.number_of(tensor) for tensor in inputs]
    if None in numbers:
        raise Unknown
    return numbers


def _constant(recorder, tensor) -> np.ndarray:
    if recorder.number_of(tensor) is not None:
        raise Unknown
    return np.asarray(tensor)


def _padding(attributes: dict, sizes, size, stride, dilation=(1, 1)) -> tuple:
    padding = attributes["padding"]
    if padding == "SAME":
        return operations.same_padding(sizes, size, stride, dilation)
    if padding == "EXPLICIT":
        sides = list(attributes["explicit_paddings"])
        return (tuple(sides[2:4]), tuple(sides[4:6]))
    return ((0, 0), (0, 0))


def _conv(recorder, kind, inputs, attributes, outputs):
    number = recorder.number_of(inputs[0])
    if number is None or recorder.number_of(inputs[1]) is not None:
        raise Unknown
    shape = recorder.natural_shape(number)
    kernel = recorder.tensor(inputs[1])
    stride = tuple(attributes["strides"][1:3])
    dilation = tuple((attributes.get("dilations") or [1, 1, 1, 1])[1:3])
    height, width, channels, filters = kernel.shape
    if kind == "Conv2D":
        weight, groups = kernel.permute(3, 2, 0, 1), shape[1] // channels
    else:
        weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, height, width)
        groups = channels
    weight = recorder.named(weight.contiguous(), recorder.constants.get(id(kernel)))
    size = (height, width)
    parameters = {
        "weight": weight,
        "bias": None,
        "stride": stride,
        "padding": _padding(attributes, shape[2:], size, stride, dilation),
        "dilation": dilation,
        "groups": groups,
    }
    return "conv", [number], parameters


def _product(recorder, kind, inputs, attributes, outputs):
    number = recorder.number_of(inputs[0])
    if number is None or recorder.number_of(inputs[1]) is not None:
        raise Unknown
    if any(attributes.get(name) for name in ("transpose_a", "transpose_b")):
        raise Unknown
    weight = recorder.tensor(inputs[1], (1, 0))
    return dense(recorder, number, weight, None)


def _einsum(recorder, kind, inputs, attributes, outputs):
    numbers = [recorder.number_of(tensor) for tensor in inputs]
    if len(inputs) != 2 or (numbers[0] is None) == (numbers[1] is None):
        raise Unknown
    place = 1 if numbers[0] is None else 0
    weight = recorder.tensor(inputs[1 - place])
    equation = attributes["equation"]
    return einsum(recorder, equation, numbers[place], weight, None, place == 1)


def _activation(recorder, kind, inputs, attributes, outputs):
    return "activation", _numbers(recorder, inputs), {"function": ACTIVATIONS[kind]}


def _leaky(recorder, kind, inputs, attributes, outputs):
    parameters = {"function": "leaky_relu", "slope": float(attributes["alpha"])}
    return "activation", _numbers(recorder, inputs), parameters


def _elu(recorder, kind, inputs, attributes, outputs):
    parameters = {"function": "elu", "slope": 1.0}
    return "activation", _numbers(recorder, inputs), parameters


def _softmax(recorder, kind, inputs, attributes, outputs):
    (number,) = _numbers(recorder, inputs)
    axis = recorder.graph.views[number].axes[-1]
    return "softmax", [number], {"axis": axis, "log": kind == "LogSoftmax"}


def _bias_add(recorder, kind, inputs, attributes, outputs):
    return _merge(recorder, "AddV2", inputs, attributes, outputs)


def _merge(recorder, kind, inputs, attributes, outputs):
    numbers = [recorder.number_of(tensor) for tensor in inputs]
    mode = MERGES[kind]
    if None not in numbers:
        views = [recorder.graph.views[number] for number in numbers]
        if views[0] != views[1]:
            raise Unknown
        return "merge", numbers, {"mode": mode}
    if mode in ("maximum", "minimum"):
        number = next(n for n in numbers if n is not None)
        constant = np.asarray(inputs[0 if numbers[0] is None else 1])
        if mode == "maximum" and not constant.any():
            return "activation", [number], {"function": "relu"}
        raise Unknown
    operands = [
        recorder.tensor(tensor) if number is None else tensor
        for tensor, number in zip(inputs, numbers, strict=True)
    ]
    return scale_by_constant(recorder, mode, *operands, numbers)


def _add_many(recorder, kind, inputs, attributes, outputs):
    numbers = _numbers(recorder, inputs)
    if len({recorder.graph.views[number] for number in numbers}) > 1:
        raise Unknown
    return "merge", numbers, {"mode": "add"}


def _pool(recorder, kind, inputs, attributes, outputs):
    (number,) = _numbers(recorder, inputs[:1])
    size, stride = tuple(attributes["ksize"][1:3]), tuple(attributes["strides"][1:3])
    sizes = recorder.natural_shape(number)[2:]
    parameters = {
        "mode": "max" if kind.startswith("Max") else "average",
        "size": size,
        "stride": stride,
        "padding": _padding(attributes, sizes, size, stride),
        "border": -math.inf,
        "count_padding": False,
        "ceil": False,
    }
    return "pool", [number], parameters


def _reduce(recorder, kind, inputs, attributes, outputs):
    (number,) = _numbers(recorder, inputs[:1])
    view = recorder.graph.views[number]
    if view.pixels:
        raise Unknown
    rank = len(recorder.graph.shapes[number])
    dims = np.atleast_1d(_constant(recorder, inputs[1]))
    axes = tuple(sorted(view.axes[dim % rank] for dim in dims))
    return "reduce", [number], {"mode": kind.lower(), "axes": axes}


def _lrn(recorder, kind, inputs, attributes, outputs):
    parameters = {
        "size": 2 * int(attributes["depth_radius"]) + 1,
        "alpha": float(attributes["alpha"]),
        "beta": float(attributes["beta"]),
        "k": float(attributes["bias"]),
    }
    return "lrn", _numbers(recorder, inputs), parameters


def _pad(recorder, kind, inputs, attributes, outputs):
    (number,) = _numbers(recorder, inputs[:1])
    sides = _constant(recorder, inputs[1]).tolist()
    if len(sides) != 4 or any(sides[0] + sides[3]):
        raise Unknown
    value = float(_constant(recorder, inputs[2])) if kind == "PadV2" else 0.0
    mode = "constant"
    if kind == "MirrorPad":
        if attributes["mode"] != "REFLECT":
            raise Unknown
        mode = "reflect"
    parameters = {
        "padding": (tuple(sides[1]), tuple(sides[2])),
        "mode": mode,
        "value": value,
    }
    return "pad", [number], parameters


def _concatenate(recorder, kind, inputs, attributes, outputs):
    numbers = [recorder.number_of(tensor) for tensor in inputs[:-1]]
    if None in numbers:
        tensors = [
            recorder.tensor(tensor) if number is None else tensor
            for tensor, number in zip(inputs, numbers, strict=False)
        ]
        return join(recorder, tensors, numbers, int(_constant(recorder, inputs[-1])))
    views = {recorder.graph.views[number] for number in numbers}
    if len(views) > 1 or next(iter(views)).flattened_order:
        raise Unknown
    axis = int(_constant(recorder, inputs[-1]))
    axes = next(iter(views)).axes
    return "merge", numbers, {"mode": "concatenate", "axis": axes[axis % len(axes)]}


def _resize(recorder, kind, inputs, attributes, outputs):
    (number,) = _numbers(recorder, inputs[:1])
    size = tuple(int(pixels) for pixels in _constant(recorder, inputs[1]))
    grid = "origin"
    if attributes.get("half_pixel_centers"):
        grid = "half_pixel"
    elif attributes.get("align_corners"):
        grid = "corners"
    method = {"ResizeBilinear": "bilinear", "ResizeNearestNeighbor": "nearest"}[kind]
    parameters = {"size": size, "method": method, "grid": grid, "antialias": False}
    return "resize", [number], parameters


READERS = {
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _conv,
    "Einsum": _einsum,
    "MatMul": _product,
    "BatchMatMulV2": _product,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "BiasAdd": _bias_add,
    "AddN": _add_many,
    "MaxPool": _pool,
    "AvgPool": _pool,
    "Mean": _reduce,
    "Sum": _reduce,
    "Max": _reduce,
    "LRN": _lrn,
    "Pad": _pad,
    "PadV2": _pad,
    "MirrorPad": _pad,
    "ConcatV2": _concatenate,
    "ResizeBilinear": _resize,
    "ResizeNearestNeighbor": _resize,
}

"""Reads PyTorch's functions and methods as the operations of `operations.py`."""

import math

from parity.frameworks import torch
from parity.diagnosis.recording import operations
from parity.diagnosis.recording.constants import (
    Unknown,
    dense,
    einsum,
    join,
    scale_by_constant,
    spread,
)
from parity.diagnosis.recording.graph import Recorder, Tensor

F = torch.nn.functional
ACTIVATIONS = {
    "relu": "relu", "relu_": "relu", "relu6": "relu6", "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid", "tanh": "tanh", "tanh_": "tanh", "silu": "silu",
    "mish": "mish", "selu": "selu", "softsign": "softsign", "hardswish": "hard_swish",
    "hardsigmoid": "hard_sigmoid", "exp": "exp", "abs": "abs", "square": "square",
}  # fmt: skip
MERGES = {
    "add": "add", "__add__": "add", "__radd__": "add", "add_": "add",
    "__iadd__": "add", "sub": "subtract", "__sub__": "subtract",
    "sub_": "subtract", "__isub__": "subtract", "__rsub__": "subtract",
    "mul": "multiply", "__mul__": "multiply", "__rmul__": "multiply",
    "mul_": "multiply", "__imul__": "multiply", "multiply": "multiply",
    "div": "divide", "__truediv__": "divide", "__rtruediv__": "divide",
    "true_divide": "divide", "div_": "divide", "__itruediv__": "divide",
    "maximum": "maximum", "minimum": "minimum", "subtract": "subtract",
    "divide": "divide", "rsub": "subtract",
}  # fmt: skip
REVERSED = {"__rsub__", "__rtruediv__", "rsub"}


def read_function(
    recorder: Recorder, name: str, args: tuple, kwargs: dict
) -> tuple[str, list[int], dict] | None:
    """Returns a call's (kind, inputs, parameters), None where no reader fits.

    Args:
        recorder: which knows the values.
        name: of the function or method.
        args: of the call.
        kwargs: of the call.
    """
    reader = READERS.get(name)
    if name in ACTIVATIONS:
        reader = _read_activation
    elif name in MERGES:
        reader = _read_merge
    try:
        return reader(recorder, name, args, kwargs) if reader else None
    except Unknown:
        return None


def bound(names: str, args: tuple, kwargs: dict, **defaults) -> dict:
    """Returns the arguments by name."""
    names = names.split()
    if len(args) > len(names) or set(kwargs) - set(names):
        raise Unknown
    return defaults | dict(zip(names, args, strict=False)) | kwargs


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    if len(value) != 2:
        raise Unknown
    return tuple(value)


def _even(padding: object) -> tuple:
    return tuple((pixels, pixels) for pixels in _pair(padding))


def _read_conv(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input weight bias stride padding dilation groups",
        args,
        kwargs,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
    )
    number, weight = recorder.number_of(a["input"]), a["weight"]
    if recorder.number_of(weight) is not None or a["input"].dim() != 4:
        raise Unknown
    stride, dilation = _pair(a["stride"]), _pair(a["dilation"])
    padding = a["padding"]
    if padding == "valid":
        padding = ((0, 0), (0, 0))
    elif padding == "same":
        sizes = a["input"].shape[2:]
        padding = operations.same_padding(sizes, weight.shape[2:], stride, dilation)
    else:
        padding = _even(padding)
    parameters = {
        "weight": weight,
        "bias": a["bias"],
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": a["groups"],
    }
    return "conv", [number], parameters


def _read_conv_transpose(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input weight bias stride padding output_padding groups dilation",
        args,
        kwargs,
        bias=None,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
    )
    crop = tuple(
        (before, before - more)
        for before, more in zip(
            _pair(a["padding"]), _pair(a["output_padding"]), strict=True
        )
    )
    parameters = {
        "weight": a["weight"],
        "bias": a["bias"],
        "stride": _pair(a["stride"]),
        "crop": crop,
        "dilation": _pair(a["dilation"]),
        "groups": a["groups"],
    }
    return "conv_transpose", [recorder.number_of(a["input"])], parameters


def _read_linear(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input weight bias", args, kwargs, bias=None)
    number = recorder.number_of(a["input"])
    if recorder.number_of(a["weight"]) is not None:
        raise Unknown
    return dense(recorder, number, a["weight"], a["bias"])


def _read_product(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    """Reads x @ W, and b + x @ W, for a dense layer."""
    bias, (x, weight) = (args[0], args[1:3]) if name == "addmm" else (None, args[:2])
    number = recorder.number_of(x)
    if kwargs or number is None or recorder.number_of(weight) is not None:
        raise Unknown
    if weight.dim() != 2 or (bias is not None and bias.dim() != 1):
        raise Unknown
    turned = recorder.named(weight.t(), recorder.constants.get(id(weight)))
    return dense(recorder, number, turned, bias)


def _read_einsum(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    equation, *operands = args
    operands = operands[0] if isinstance(operands[0], list | tuple) else operands
    if kwargs or len(operands) != 2:
        raise Unknown
    numbers = [recorder.number_of(tensor) for tensor in operands]
    if (numbers[0] is None) == (numbers[1] is None):
        raise Unknown
    place = 1 if numbers[0] is None else 0
    weight = operands[1 - place]
    return einsum(recorder, equation, numbers[place], weight, None, place == 1)


def _read_batch_norm(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input running_mean running_var weight bias training momentum eps",
        args,
        kwargs,
        weight=None,
        bias=None,
        training=False,
        momentum=0.1,
        eps=1e-5,
    )
    parameters = {
        "gamma": a["weight"],
        "beta": a["bias"],
        "mean": a["running_mean"],
        "variance": a["running_var"],
        "epsilon": float(a["eps"]),
        "training": bool(a["training"]) or a["running_mean"] is None,
    }
    return "batch_norm", [recorder.number_of(a["input"])], parameters


def _read_layer_norm(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input normalized_shape weight bias eps",
        args,
        kwargs,
        weight=None,
        bias=None,
        eps=1e-5,
    )
    number = recorder.number_of(a["input"])
    view = recorder.graph.views[number]
    if view.pixels:
        raise Unknown
    rank = len(view.axes)
    last = range(rank - len(a["normalized_shape"]), rank)
    axes = tuple(sorted(view.axes[axis] for axis in last))
    parameters = {"epsilon": float(a["eps"]), "axes": axes}
    for key, value in (("gamma", a["weight"]), ("beta", a["bias"])):
        parameters[key] = spread(recorder, value, view, last)
    return "layer_norm", [number], parameters


def _read_group_norm(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input num_groups weight bias eps",
        args,
        kwargs,
        weight=None,
        bias=None,
        eps=1e-5,
    )
    parameters = {
        "gamma": a["weight"],
        "beta": a["bias"],
        "epsilon": float(a["eps"]),
        "groups": a["num_groups"],
    }
    return "group_norm", [recorder.number_of(a["input"])], parameters


def _read_lrn(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input size alpha beta k", args, kwargs, alpha=1e-4, beta=0.75, k=1.0)
    parameters = {
        "size": a["size"],
        "alpha": a["alpha"] / a["size"],
        "beta": float(a["beta"]),
        "k": float(a["k"]),
    }
    return "lrn", [recorder.number_of(a["input"])], parameters


def _read_max_pool(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input kernel_size stride padding dilation ceil_mode return_indices",
        args,
        kwargs,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
    )
    if _pair(a["dilation"]) != (1, 1) or a["input"].dim() != 4:
        raise Unknown
    size = _pair(a["kernel_size"])
    parameters = {
        "mode": "max",
        "size": size,
        "stride": _pair(a["stride"]) if a["stride"] else size,
        "padding": _even(a["padding"]),
        "border": -math.inf,
        "count_padding": False,
        "ceil": bool(a["ceil_mode"]),
    }
    return "pool", [recorder.number_of(a["input"])], parameters


def _read_average_pool(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
        args,
        kwargs,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    if a["divisor_override"] or a["input"].dim() != 4:
        raise Unknown
    size = _pair(a["kernel_size"])
    parameters = {
        "mode": "average",
        "size": size,
        "stride": _pair(a["stride"]) if a["stride"] else size,
        "padding": _even(a["padding"]),
        "border": -math.inf,
        "count_padding": bool(a["count_include_pad"]),
        "ceil": bool(a["ceil_mode"]),
    }
    return "pool", [recorder.number_of(a["input"])], parameters


def _read_adaptive(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input output_size return_indices", args, kwargs)
    mode = "average" if "avg" in name else "max"
    sizes = a["input"].shape[2:]
    size = a["output_size"]
    size = (size, size) if isinstance(size, int) or size is None else tuple(size)
    size = tuple(
        s if wanted is None else wanted for s, wanted in zip(sizes, size, strict=True)
    )
    number = recorder.number_of(a["input"])
    if size == (1, 1):
        mode = "mean" if mode == "average" else "max"
        axes = recorder.graph.views[number].axes
        return "reduce", [number], {"mode": mode, "axes": tuple(sorted(axes[2:]))}
    return "adaptive_pool", [number], {"mode": mode, "size": size}


def _read_reduce(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input dim keepdim", args, kwargs, dim=None, keepdim=False)
    number = recorder.number_of(a["input"])
    view, rank = recorder.graph.views[number], a["input"].dim()
    dims = a["dim"]
    if dims is None or view.pixels:
        raise Unknown
    dims = (dims,) if isinstance(dims, int) else dims
    axes = tuple(sorted(view.axes[dim % rank] for dim in dims))
    mode = {"mean": "mean", "sum": "sum", "amax": "max"}[name]
    return "reduce", [number], {"mode": mode, "axes": axes}


def _read_crop(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    """Reads x[:, :, a:b, c:d] as a border that is cut off."""
    x, index = args
    index = index if isinstance(index, tuple) else (index,)
    number = recorder.number_of(x)
    view = recorder.graph.views.get(number)
    if view is None or x.dim() != 4:
        raise Unknown
    index = (*index, *[slice(None)] * (4 - len(index)))
    if not all(isinstance(part, slice) for part in index) or len(index) != 4:
        raise Unknown
    ends = [part.indices(size) for part, size in zip(index, x.shape, strict=True)]
    if any(end[2] != 1 for end in ends) or any(
        (start, stop) != (0, size)
        for (start, stop, _), size in zip(ends[:2], x.shape, strict=False)
    ):
        raise Unknown
    sides = tuple(
        (-start, stop - size)
        for (start, stop, _), size in zip(ends[2:], x.shape[2:], strict=True)
    )
    return "pad", [number], {"padding": sides, "mode": "constant", "value": 0.0}


def _read_pad(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input pad mode value", args, kwargs, mode="constant", value=None)
    number = recorder.number_of(a["input"])
    sides = list(a["pad"])
    rank = a["input"].dim()
    if rank != 4 or len(sides) > 4:
        raise Unknown
    sides += [0] * (4 - len(sides))
    left, right, top, bottom = sides
    parameters = {
        "padding": ((top, bottom), (left, right)),
        "mode": a["mode"],
        "value": float(a["value"] or 0),
    }
    return "pad", [number], parameters


def _read_activation(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    number = recorder.number_of(args[0] if args else kwargs["input"])
    return "activation", [number], {"function": ACTIVATIONS[name]}


def _read_gelu(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input approximate", args, kwargs, approximate="none")
    function = "gelu" if a["approximate"] == "none" else "gelu_tanh"
    return "activation", [recorder.number_of(a["input"])], {"function": function}


def _read_leaky(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    elu = name.startswith("elu")
    first = "alpha" if elu else "negative_slope"
    a = bound(f"input {first} inplace", args, kwargs, **{first: 1.0 if elu else 0.01})
    function = "elu" if elu else "leaky_relu"
    parameters = {"function": function, "slope": float(a[first])}
    return "activation", [recorder.number_of(a["input"])], parameters


def _read_prelu(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input weight", args, kwargs)
    parameters = {"function": "leaky_relu", "slope": a["weight"]}
    return "activation", [recorder.number_of(a["input"])], parameters


def _read_softplus(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input beta threshold", args, kwargs, beta=1, threshold=20)
    if a["beta"] != 1:
        raise Unknown
    return "activation", [recorder.number_of(a["input"])], {"function": "softplus"}


def _read_clamp(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    name = "min_val max_val inplace" if name.startswith("hardtanh") else "min max"
    a = bound(f"input {name}", args, kwargs)
    low = a.get("min", a.get("min_val", -1.0))
    high = a.get("max", a.get("max_val", None if "min" in a else 1.0))
    functions = {(0, None): "relu", (0, 6): "relu6"}
    if (low, high) not in functions:
        raise Unknown
    function = functions[low, high]
    return "activation", [recorder.number_of(a["input"])], {"function": function}


def _read_softmax(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input dim _stacklevel dtype", args, kwargs, dim=None, dtype=None)
    number, rank = recorder.number_of(a["input"]), a["input"].dim()
    if a["dim"] is None:
        a["dim"] = 0 if rank in (0, 1, 3) else 1  # F.softmax's old rule
    view = recorder.graph.views[number]
    axis = view.axes[a["dim"] % rank]
    return "softmax", [number], {"axis": axis, "log": "log" in name}


def _read_dropout(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("input p training inplace", args, kwargs, p=0.5, training=True)
    active = bool(a["training"]) and a["p"] > 0
    parameters = {"rate": float(a["p"]), "active": active}
    return "dropout", [recorder.number_of(a["input"])], parameters


def _read_interpolate(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound(
        "input size scale_factor mode align_corners recompute_scale_factor antialias",
        args,
        kwargs,
        size=None,
        scale_factor=None,
        mode="nearest",
        align_corners=None,
        antialias=False,
    )
    size = a["size"]
    if size is None:
        factors = a["scale_factor"]
        factors = (factors, factors) if isinstance(factors, int | float) else factors
        size = [
            math.floor(s * f)
            for s, f in zip(a["input"].shape[2:], factors, strict=True)
        ]
    mode = a["mode"]
    grid = "corners" if a["align_corners"] else "half_pixel"
    if mode == "nearest":
        grid = "origin"
    parameters = {
        "size": _pair(size if isinstance(size, int) else tuple(size)),
        "method": "nearest" if mode == "nearest-exact" else mode,
        "grid": grid,
        "antialias": bool(a["antialias"]),
    }
    return "resize", [recorder.number_of(a["input"])], parameters


def _read_concatenate(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    a = bound("tensors dim", args, kwargs, dim=0)
    numbers = [recorder.number_of(tensor) for tensor in a["tensors"]]
    if None in numbers:
        return join(recorder, a["tensors"], numbers, a["dim"])
    views = {recorder.graph.views[number] for number in numbers}
    rank = a["tensors"][0].dim()
    if len(views) > 1 or next(iter(views)).flattened_order:
        raise Unknown
    axis = next(iter(views)).axes[a["dim"] % rank]
    return "merge", numbers, {"mode": "concatenate", "axis": axis}


def _read_merge(recorder: Recorder, name: str, args: tuple, kwargs: dict):
    if (
        len(args) != 2
        or set(kwargs) - {"alpha", "inplace"}
        or kwargs.get("alpha", 1) != 1
    ):
        raise Unknown
    first, second = args[::-1] if name in REVERSED else args
    numbers = [
        recorder.number_of(x) if isinstance(x, Tensor) else None
        for x in (first, second)
    ]
    mode = MERGES[name]
    if None not in numbers:
        views = [recorder.graph.views[number] for number in numbers]
        if views[0] != views[1]:
            raise Unknown
        return "merge", numbers, {"mode": mode}
    return scale_by_constant(recorder, mode, first, second, numbers)


READERS = {
    "matmul": _read_product, "__matmul__": _read_product, "mm": _read_product,
    "addmm": _read_product, "einsum": _read_einsum,
    "__getitem__": _read_crop,
    "conv2d": _read_conv, "conv_transpose2d": _read_conv_transpose,
    "linear": _read_linear, "batch_norm": _read_batch_norm,
    "layer_norm": _read_layer_norm, "group_norm": _read_group_norm,
    "local_response_norm": _read_lrn, "max_pool2d": _read_max_pool,
    "boolean_dispatch": _read_max_pool, "avg_pool2d": _read_average_pool,
    "adaptive_avg_pool2d": _read_adaptive, "adaptive_max_pool2d": _read_adaptive,
    "mean": _read_reduce, "sum": _read_reduce, "amax": _read_reduce, "pad": _read_pad,
    "gelu": _read_gelu, "leaky_relu": _read_leaky, "leaky_relu_": _read_leaky,
    "elu": _read_leaky, "elu_": _read_leaky, "prelu": _read_prelu,
    "softplus": _read_softplus, "softmax": _read_softmax, "hardtanh": _read_clamp,
    "clamp": _read_clamp, "clamp_": _read_clamp, "clip": _read_clamp,
    "log_softmax": _read_softmax, "dropout": _read_dropout, "dropout2d": _read_dropout,
    "feature_dropout": _read_dropout, "interpolate": _read_interpolate,
    "cat": _read_concatenate, "concat": _read_concatenate,
    "concatenate": _read_concatenate,
}  # fmt: skip

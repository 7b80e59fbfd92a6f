"""A step of PyTorch's side as the code that a user would write."""

import math
from collections.abc import Callable

from parity.diagnosis.recording.graph import Step, Tensor, same_size
from parity.diagnosis.repro.attention_code import torch_attention, torch_join
from parity.diagnosis.repro.code import Arrays, call, number, uniform

FUNCTIONS = {
    "relu": "F.relu({})",
    "relu6": "F.relu6({})",
    "sigmoid": "torch.sigmoid({})",
    "tanh": "torch.tanh({})",
    "gelu": "F.gelu({})",
    "gelu_tanh": "F.gelu({}, approximate='tanh')",
    "silu": "F.silu({})",
    "mish": "F.mish({})",
    "selu": "F.selu({})",
    "softplus": "F.softplus({})",
    "softsign": "F.softsign({})",
    "hard_swish": "F.hardswish({})",
    "hard_sigmoid": "F.hardsigmoid({})",
    "hard_sigmoid_keras2": "(0.2 * {} + 0.5).clamp(0, 1)",
    "exp": "torch.exp({})",
    "abs": "torch.abs({})",
    "square": "torch.square({})",
    "gelu_quick": "{0} * torch.sigmoid(1.702 * {0})",
}
OPERATORS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
Lines = list[str]


def torch_code(
    step: Step, inputs: list[str], shapes: list[tuple], output: str, arrays: Arrays
) -> Lines:
    """Returns the lines that compute a step.

    Args:
        step: of a kind that is no "opaque" one.
        inputs: the variables that come in.
        shapes: what shapes they have.
        output: the variable that goes out.
        arrays: is given the weights.

    Raises:
        KeyError: the kind has no code.
    """
    lines = []
    names = list(inputs)
    if step.kind == "dense" and len(shapes[0]) == 4:
        if step.parameters.get("axis"):
            return _dense_of_map(step, inputs[0], output, arrays)
        if step.view and step.view.flattened_order:
            return _dense_of_flattened(step, inputs[0], output, arrays)
    for i, (shape, wanted) in enumerate(zip(shapes, step.shapes, strict=True)):
        if tuple(shape) == tuple(wanted) or not same_size(shape, wanted):
            continue
        names[i] = output if len(names) == 1 else f"{output}{i + 1}"
        if len(wanted) == 2:
            lines.append(f"{names[i]} = torch.flatten({inputs[i]}, 1)")
        else:
            lines.append(f"{names[i]} = {inputs[i]}.reshape({tuple(wanted)})")
    return lines + WRITERS[step.kind](step, names, output, arrays)


def _given(arrays: Arrays, name: str, tensor: Tensor | None) -> str:
    return "None" if tensor is None else arrays.add(name, tensor)


def _pad(x: str, padding, mode="constant", value=0.0) -> str:
    (top, bottom), (left, right) = padding
    sides = (left, right, top, bottom)
    named = {} if mode == "constant" and not value else {"value": number(value)}
    if mode != "constant":
        named = {"mode": repr(mode)}
    return call("", "F.pad", x, sides, **named)


def _conv(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x, lines = inputs[0], []
    padding = uniform(p["padding"])
    mode, value = p.get("mode", "constant"), p.get("value", 0.0)
    if padding is None or mode != "constant" or value:
        lines.append(f"{output} = {_pad(x, p['padding'], mode, value)}")
        x, padding = output, (0, 0)
    named = {"stride": p["stride"], "padding": padding}
    if tuple(p["dilation"]) != (1, 1):
        named["dilation"] = p["dilation"]
    if p["groups"] != 1:
        named["groups"] = p["groups"]
    weights = [_given(arrays, name, p[name]) for name in ("weight", "bias")]
    return [*lines, call(output, "F.conv2d", x, *weights, **named)]


def _conv_transpose(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    weight, bias = (_given(arrays, name, p[name]) for name in ("weight", "bias"))
    more = {"groups": p["groups"] if p["groups"] != 1 else None}
    more["dilation"] = p["dilation"] if tuple(p["dilation"]) != (1, 1) else None
    padding = tuple(before for before, _ in p["crop"])
    behind = tuple(before - after for before, after in p["crop"])
    limits = zip(behind, p["stride"], p["dilation"], strict=True)
    if min(padding) >= 0 and all(0 <= x < max(limit) for x, *limit in limits):
        named = {"stride": p["stride"], "padding": padding}
        named["output_padding"] = behind if any(behind) else None
        function = "F.conv_transpose2d"
        return [call(output, function, inputs[0], weight, bias, **named, **more)]
    crop = tuple((-before, -after) for before, after in p["crop"])
    lines = [
        call(
            output, "F.conv_transpose2d", inputs[0], weight, stride=p["stride"], **more
        ),
        f"{output} = {_pad(output, crop)}  # less than 0 cuts",
    ]
    if bias != "None":
        lines.append(f"{output} = {output} + {bias}.reshape(1, -1, 1, 1)")
    return lines


def _dense(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    written = arrays.add("weight", p["weight"]), _given(arrays, "bias", p["bias"])
    return [call(output, "F.linear", inputs[0], *written)]


def _dense_of_flattened(step, x, output, arrays) -> Lines:
    """Writes a dense layer whose input is flattened in another order."""
    p, view = step.parameters, step.view
    order = [1 + axis for axis in view.flattened_order]
    split = p["weight"].reshape(len(p["weight"]), *view.pixels).permute(0, *order)
    weight = arrays.add("weight", split.reshape(p["weight"].shape))
    axes = ", ".join(map(str, (0, *order)))
    return [
        f"{output} = {x}.permute({axes}).flatten(1)",
        call(output, "F.linear", output, weight, _given(arrays, "bias", p["bias"])),
    ]


def _dense_of_map(step, x, output, arrays) -> Lines:
    p = step.parameters
    written = arrays.add("weight", p["weight"]), _given(arrays, "bias", p["bias"])
    return [
        call(output, "F.linear", f"{x}.movedim({p['axis']}, -1)", *written),
        f"{output} = {output}.movedim(-1, {p['axis']})",
    ]


def _batch_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    training = p.get("training", False)
    names = ("mean", "variance", "gamma", "beta")
    weights = [
        "None" if training and name in names[:2] else _given(arrays, name, p[name])
        for name in names
    ]
    named = {"training": training, "eps": p["epsilon"]}
    return [call(output, "F.batch_norm", inputs[0], *weights, **named)]


def by_channel(step: Step) -> bool:
    """Returns whether a layer norm of whole maps has a weight for each channel."""
    wanted = (1, step.shapes[0][1], 1, 1)
    given = [step.parameters[name] for name in ("gamma", "beta")]
    shapes = {tuple(tensor.shape) for tensor in given if tensor is not None}
    return tuple(step.parameters["axes"]) == (1, 2, 3) and shapes == {wanted}


def _layer_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    rank = len(step.shapes[0])
    axes = tuple(sorted(axis % rank for axis in p["axes"]))
    shape = tuple(step.shapes[0][axis] for axis in axes)
    weights = []
    if by_channel(step):
        weights = [
            _given(arrays, name, None if p[name] is None else p[name].flatten())
            for name in ("gamma", "beta")
        ]
        return [call(output, "F.group_norm", inputs[0], 1, *weights, p["epsilon"])]
    for name in ("gamma", "beta"):
        tensor = p[name]
        if tensor is not None and tensor.numel() != math.prod(shape):
            raise KeyError(step.kind)
        tensor = None if tensor is None else tensor.reshape(shape)
        weights.append(_given(arrays, name, tensor))
    trailing = axes == tuple(range(rank - len(axes), rank))
    if not trailing and not (rank == 4 and axes == (1,)):
        raise KeyError(step.kind)
    x = inputs[0] if trailing else f"{inputs[0]}.permute(0, 2, 3, 1)"
    lines = [call(output, "F.layer_norm", x, shape, *weights, p["epsilon"])]
    return lines if trailing else [*lines, f"{output} = {output}.permute(0, 3, 1, 2)"]


def _group_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    weights = [_given(arrays, name, p[name]) for name in ("gamma", "beta")]
    arguments = (inputs[0], p["groups"], *weights, p["epsilon"])
    return [call(output, "F.group_norm", *arguments)]


def _lrn(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    named = {"alpha": f"{p['alpha']} * {p['size']}", "beta": p["beta"], "k": p["k"]}
    arguments = inputs[0], p["size"]
    return [call(output, "F.local_response_norm", *arguments, **named)]


def _pool(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x, lines = inputs[0], []
    padding = uniform(p["padding"])
    fits = padding is not None and all(
        2 * pixels <= size for pixels, size in zip(padding, p["size"], strict=True)
    )
    named = {"ceil_mode": True if p["ceil"] else None}
    if p["mode"] == "max":
        if any(map(any, p["padding"])) and not (fits and p["border"] == -float("inf")):
            lines = [f"{output} = {_pad(x, p['padding'], value=p['border'])}"]
            x, padding = output, (0, 0)
        named = {"padding": padding if any(padding) else None, **named}
        return [
            *lines,
            call(output, "F.max_pool2d", x, p["size"], p["stride"], **named),
        ]
    factor = f" * {math.prod(p['size'])}" if p["mode"] == "sum" else ""
    if p["mode"] == "sum" and not p["count_padding"]:
        raise KeyError(step.kind)
    if fits:
        if any(padding):
            named |= {"padding": padding, "count_include_pad": p["count_padding"]}
        pooled = call("", "F.avg_pool2d", x, p["size"], p["stride"], **named)
        return [f"{output} = {pooled}{factor}"]
    if p["count_padding"]:
        lines = [f"{output} = {_pad(x, p['padding'])}"]
        pooled = call("", "F.avg_pool2d", output, p["size"], p["stride"], **named)
        return [*lines, f"{output} = {pooled}{factor}"]
    window = f"{p['size']}, {p['stride']}"
    return [
        f"inside = {_pad(f'torch.ones_like({x})', p['padding'])}",
        f"{output} = {_pad(x, p['padding'])}",
        f"{output} = F.avg_pool2d({output}, {window})",
        f"{output} = {output} / F.avg_pool2d(inside, {window})  # of real pixels",
    ]


def _reduce(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    function = {"max": "amax", "mean": "mean", "sum": "sum"}[p["mode"]]
    return [f"{output} = {inputs[0]}.{function}({p['axes']})"]


def _adaptive_pool(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    short = "avg" if p["mode"] == "average" else "max"
    return [call(output, f"F.adaptive_{short}_pool2d", inputs[0], p["size"])]


def _padding(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    mode, value = p.get("mode", "constant"), p.get("value", 0.0)
    return [f"{output} = {_pad(inputs[0], p['padding'], mode, value)}"]


def channels(tensor: Tensor, rank: int) -> tuple[int, ...] | None:
    """Returns the shape that one number for each channel is given, None for others."""
    return (1, -1, *[1] * (rank - 2)) if tensor.dim() == 1 else None


def _activation(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x = inputs[0]
    if p["function"] in FUNCTIONS:
        return [f"{output} = {FUNCTIONS[p['function']].format(x)}"]
    slope = p["slope"]
    if isinstance(slope, Tensor):
        written = arrays.add("slope", slope)
        shape = channels(slope, len(step.shapes[0]))
        written = f"{written}.reshape{shape}" if shape else written
        if p["function"] == "leaky_relu":
            return [f"{output} = torch.where({x} >= 0, {x}, {written} * {x})"]
        return [f"{output} = torch.where({x} > 0, {x}, {written} * torch.expm1({x}))"]
    name = {"leaky_relu": "F.leaky_relu", "elu": "F.elu"}[p["function"]]
    return [f"{output} = {name}({x}, {number(slope)})"]


def _softmax(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    function = "torch.log_softmax" if p.get("log") else "torch.softmax"
    return [f"{output} = {function}({inputs[0]}, {p['axis']})"]


def _scale(step, inputs, output, arrays) -> Lines:
    written = []
    for name in ("scale", "shift"):
        tensor = step.parameters[name]
        expression = arrays.add(name, tensor)
        shape = channels(tensor, len(step.shapes[0]))
        written.append(f"{expression}.reshape{shape}" if shape else expression)
    return [f"{output} = {inputs[0]} * {written[0]} + {written[1]}"]


def _merge(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    if p["mode"] == "concatenate":
        return [f"{output} = torch.cat([{', '.join(inputs)}], {p['axis']})"]
    if p["mode"] in OPERATORS:
        sign = f" {OPERATORS[p['mode']]} "
        return [f"{output} = {sign.join(inputs)}"]
    if p["mode"] == "average":
        return [f"{output} = ({' + '.join(inputs)}) / {len(inputs)}"]
    function = {"maximum": "torch.maximum", "minimum": "torch.minimum"}[p["mode"]]
    whole = inputs[0]
    for name in inputs[1:]:
        whole = f"{function}({whole}, {name})"
    return [f"{output} = {whole}"]


def _resize(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    method, grid = p["method"], p["grid"]
    named = {"size": tuple(p["size"])}
    if method == "nearest":
        named["mode"] = repr("nearest-exact" if grid == "half_pixel" else "nearest")
    elif grid == "origin":
        raise KeyError(step.kind)
    else:
        named |= {"mode": repr(method), "align_corners": grid == "corners"}
        named["antialias"] = True if p.get("antialias") else None
    return [call(output, "F.interpolate", inputs[0], **named)]


def _dropout(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    if not p.get("active") or p.get("mask") is None:
        return [f"{output} = F.dropout({inputs[0]}, {p['rate']}, training=False)"]
    mask = arrays.add("mask", p["mask"])
    return [
        f"# F.dropout({inputs[0]}, {p['rate']}, training=True), with what it drew.",
        f"{output} = {inputs[0]} * {mask}",
    ]


WRITERS: dict[str, Callable[..., Lines]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "lrn": _lrn,
    "pool": _pool,
    "reduce": _reduce,
    "adaptive_pool": _adaptive_pool,
    "pad": _padding,
    "activation": _activation,
    "softmax": _softmax,
    "scale": _scale,
    "merge": _merge,
    "resize": _resize,
    "dropout": _dropout,
    "attention": torch_attention,
    "join": torch_join,
}

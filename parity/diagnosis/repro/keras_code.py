"""A step of Keras's side as the code that a user would write.

The values that go in and out stand as in PyTorch, (N, C, H, W); what Keras computes on
maps, it computes in (N, H, W, C).
"""

import math
from collections.abc import Callable

from parity.diagnosis.recording.graph import Step, Tensor, same_size
from parity.diagnosis.recording.operations import same_padding
from parity.diagnosis.repro.attention_code import keras_attention, keras_join
from parity.diagnosis.repro.code import Arrays, call, number
from parity.diagnosis.repro.torch_code import OPERATORS, by_channel, channels
from parity.spec import padding as windows

FUNCTIONS = {
    "relu": "keras.ops.relu({})",
    "relu6": "keras.ops.relu6({})",
    "sigmoid": "keras.ops.sigmoid({})",
    "tanh": "keras.ops.tanh({})",
    "gelu": "keras.ops.gelu({}, approximate=False)",
    "gelu_tanh": "keras.ops.gelu({}, approximate=True)",
    "silu": "keras.ops.silu({})",
    "mish": "keras.activations.mish({})",
    "selu": "keras.ops.selu({})",
    "softplus": "keras.ops.softplus({})",
    "softsign": "keras.ops.softsign({})",
    "hard_swish": "keras.ops.hard_swish({})",
    "hard_sigmoid": "keras.ops.hard_sigmoid({})",
    "hard_sigmoid_keras2": "keras.ops.clip(0.2 * {} + 0.5, 0, 1)",
    "exp": "keras.ops.exp({})",
    "abs": "keras.ops.abs({})",
    "square": "keras.ops.square({})",
    "gelu_quick": "{0} * keras.ops.sigmoid(1.702 * {0})",
}
PAD_MODES = {"reflect": "reflect"}
NO_PIXELS = ((0, 0), (0, 0))
LAST = "(0, 2, 3, 1)"
FIRST = "(0, 3, 1, 2)"
AXES = {0: 0, 1: 3, 2: 1, 3: 2}  # of (N, C, H, W) -> of (N, H, W, C)
Lines = list[str]


def keras_code(
    step: Step, inputs: list[str], shapes: list[tuple], output: str, arrays: Arrays
) -> Lines:
    """Returns the lines that compute a step.

    Args:
        step: of a kind that is no "opaque" one.
        inputs: the variables that come in, channels first.
        shapes: what shapes they have.
        output: the variable that goes out, channels first.
        arrays: is given the weights.

    Raises:
        KeyError: the kind has no code.
    """
    if step.kind == "dense" and len(shapes[0]) == 4 and len(step.shapes[0]) == 2:
        return _dense_of_flattened(step, inputs[0], shapes[0], output, arrays)
    lines, names = [], list(inputs)
    maps = step.kind != "scale" or step.parameters["scale"].dim() <= 1
    for i, (shape, wanted) in enumerate(zip(shapes, step.shapes, strict=True)):
        name = output if len(names) == 1 else f"{output}{i + 1}"
        if tuple(shape) != tuple(wanted) and same_size(shape, wanted):
            lines.append(f"{name} = keras.ops.reshape({names[i]}, {tuple(wanted)})")
            names[i] = name
        if len(wanted) == 4 and maps:
            lines.append(f"{name} = keras.ops.transpose({names[i]}, {LAST})")
            names[i] = name
    lines += WRITERS[step.kind](step, names, output, arrays)
    if len(step.shapes[0]) == 4 and maps and step.kind != "reduce":
        lines.append(f"{output} = keras.ops.transpose({output}, {FIRST})")
    return lines


def _layer(output: str, x: str, name: str, weights: list[str], *arguments, **named):
    lines = [call("layer", f"keras.layers.{name}", *arguments, **named)]
    if not weights:
        return [*lines, f"{output} = layer({x})"]
    listed = [f"    {weight}," for weight in weights]
    return [
        *lines,
        f"layer.build({x}.shape)",
        "\n".join(["layer.set_weights([", *listed, "])"]),
        f"{output} = layer({x})",
    ]


def _pad(x: str, output: str, padding, mode="constant", value=0.0) -> Lines:
    if mode == "constant" and value == 0:
        lines = []
        added = tuple(tuple(max(pixels, 0) for pixels in axis) for axis in padding)
        cut = tuple(tuple(max(-pixels, 0) for pixels in axis) for axis in padding)
        for name, sides in (("ZeroPadding2D", added), ("Cropping2D", cut)):
            if any(map(any, sides)):
                lines.append(f"{output} = keras.layers.{name}({sides})({x})")
                x = output
        return lines
    sides = ((0, 0), *padding, (0, 0))
    named = {"mode": repr(PAD_MODES[mode])} if mode != "constant" else {}
    if mode == "constant":
        named["constant_values"] = number(value)
    return [call(output, "keras.ops.pad", x, sides, **named)]


def _tuples(sides) -> tuple:
    return tuple(tuple(int(pixels) for pixels in axis) for axis in sides)


def _conv(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x, lines, word = inputs[0], [], "valid"
    weight, padding = p["weight"], _tuples(p["padding"])
    size = tuple(weight.shape[2:])
    mode, value = p.get("mode", "constant"), p.get("value", 0.0)
    plain = mode == "constant" and not value
    same = same_padding(step.shapes[0][2:], size, p["stride"], p["dilation"])
    if plain and padding != NO_PIXELS and padding == _tuples(same):
        word = "same"
    elif padding != NO_PIXELS:
        lines = _pad(x, output, padding, mode, value)
        x = output
    in_channels = step.shapes[0][1]
    depthwise = p["groups"] == in_channels > 1 and p["stride"][0] == p["stride"][1]
    written = arrays.add("weight", weight)
    named = {"strides": p["stride"], "padding": repr(word)}
    if tuple(p["dilation"]) != (1, 1):
        named["dilation_rate"] = p["dilation"]
    named["use_bias"] = p["bias"] is not None
    if depthwise:
        shape = (in_channels, len(weight) // in_channels, *size)
        name, arguments = "DepthwiseConv2D", [size]
        named["depth_multiplier"] = shape[1] if shape[1] > 1 else None
        kernel = f"{written}.reshape{shape}.transpose(2, 3, 0, 1)"
    else:
        name, arguments = "Conv2D", [len(weight), size]
        named["groups"] = p["groups"] if p["groups"] > 1 else None
        kernel = f"{written}.transpose(2, 3, 1, 0)"
    weights = [kernel]
    if p["bias"] is not None:
        weights.append(arrays.add("bias", p["bias"]))
    return [*lines, *_layer(output, x, name, weights, *arguments, **named)]


def _conv_transpose(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    if p["groups"] != 1:
        raise KeyError(step.kind)
    weight = p["weight"]
    size, word, crop = tuple(weight.shape[2:]), "valid", []
    reaches = [(k - 1) * d + 1 for k, d in zip(size, p["dilation"], strict=True)]
    sides = list(zip(reaches, p["stride"], strict=True))
    spare = [max(reach - stride, 0) for reach, stride in sides]
    ends = [min(reach - stride, 0) for reach, stride in sides]
    same = [(x // 2, x - x // 2 + end) for x, end in zip(spare, ends, strict=True)]
    if _tuples(p["crop"]) == tuple(same):
        word = "same"
    else:
        ends = [(0, end) for end in ends]  # 'valid' fills the last stride
        pairs = zip(p["crop"], ends, strict=True)
        crop = [(a[0], a[1] - b[1]) for a, b in pairs]
    weights = [f"{arrays.add('weight', weight)}.transpose(2, 3, 1, 0)"]
    if p["bias"] is not None:
        weights.append(arrays.add("bias", p["bias"]))
    named = {"strides": p["stride"], "padding": repr(word)}
    if tuple(p["dilation"]) != (1, 1):
        named["dilation_rate"] = p["dilation"]
    named["use_bias"] = p["bias"] is not None
    arguments = (weight.shape[1], size)
    lines = _layer(output, inputs[0], "Conv2DTranspose", weights, *arguments, **named)
    return lines + _pad(output, output, tuple((-a, -b) for a, b in crop))


def _dense(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    weights = [f"{arrays.add('weight', p['weight'])}.T"]
    if p["bias"] is not None:
        weights.append(arrays.add("bias", p["bias"]))
    use = p["bias"] is not None
    return _layer(output, inputs[0], "Dense", weights, len(p["weight"]), use_bias=use)


def _dense_of_flattened(step, x, shape, output, arrays) -> Lines:
    """Writes a dense layer behind a Flatten of (H, W, C), or of another order."""
    p = step.parameters
    order = (1, 2, 0)
    if step.view and step.view.pixels == tuple(shape[1:]):
        order = step.view.order
    axes = tuple(1 + axis for axis in order)
    split = (len(p["weight"]), *shape[1:])
    turned = (*axes, 0)
    written = arrays.add("weight", p["weight"])
    weights = [f"{written}.reshape{split}.transpose{turned}.reshape(-1, {split[0]})"]
    if p["bias"] is not None:
        weights.append(arrays.add("bias", p["bias"]))
    use = p["bias"] is not None
    return [
        f"{output} = keras.ops.transpose({x}, {(0, *axes)})",
        f"{output} = keras.layers.Flatten()({output})",
        *_layer(output, output, "Dense", weights, split[0], use_bias=use),
    ]


def _batch_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    axis = 1 if len(step.shapes[0]) == 3 else -1
    names = [name for name in ("gamma", "beta") if p[name] is not None]
    weights = [arrays.add(name, p[name]) for name in (*names, "mean", "variance")]
    named = {"axis": axis, "epsilon": p["epsilon"]}
    named |= {"scale": None if "gamma" in names else False}
    named |= {"center": None if "beta" in names else False}
    lines = _layer(output, inputs[0], "BatchNormalization", weights, **named)
    training = bool(p.get("training"))
    return [*lines[:-1], f"{output} = layer({inputs[0]}, training={training})"]


def _layer_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    rank = len(step.shapes[0])
    axes = sorted(axis % rank for axis in p["axes"])
    if by_channel(step):
        return _group_norm(step, inputs, output, arrays)
    if rank == 4:
        axes = sorted(AXES[axis] for axis in axes)
    sizes = [step.shapes[0][(0, 2, 3, 1)[axis] if rank == 4 else axis] for axis in axes]
    weights, named = [], {"axis": tuple(axes), "epsilon": p["epsilon"]}
    for name, flag in (("gamma", "scale"), ("beta", "center")):
        tensor = p[name]
        if tensor is None:
            named[flag] = False
            continue
        if tensor.numel() != math.prod(sizes):
            raise KeyError(step.kind)
        written = arrays.add(name, tensor)
        if len(axes) > 1 and rank == 4:
            whole = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
            written += f".reshape{whole}.transpose{LAST}"
        weights.append(f"{written}.reshape{tuple(sizes)}")
    name = "LayerNormalization"
    return _layer(output, inputs[0], name, weights, **named)


def _group_norm(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    named = {"axis": -1, "epsilon": p["epsilon"]}
    names = [name for name in ("gamma", "beta") if p[name] is not None]
    named |= {"scale": None if "gamma" in names else False}
    named |= {"center": None if "beta" in names else False}
    weights = [arrays.add(name, p[name].flatten()) for name in names]
    arguments = inputs[0], "GroupNormalization", weights, p.get("groups", 1)
    return _layer(output, *arguments, **named)


def _lrn(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x, size = inputs[0], p["size"]
    before = size // 2
    sides = ((0, 0), (0, 0), (0, 0), (before, size - 1 - before))
    width = step.shapes[0][1]
    return [
        "# tf.nn.local_response_normalization, which has no float64.",
        f"squares = keras.ops.pad(keras.ops.square({x}), {sides})",
        f"total = sum(squares[..., i : i + {width}] for i in range({size}))",
        f"{output} = {x} / ({p['k']} + {p['alpha']} * total) ** {p['beta']}",
    ]


def _pool(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x, lines, word = inputs[0], [], "valid"
    if p["ceil"]:
        raise KeyError(step.kind)
    padding, size, stride = _tuples(p["padding"]), tuple(p["size"]), tuple(p["stride"])
    same = _tuples(map(windows.same_padding, step.shapes[0][2:], size, stride))
    ignored = p["border"] == -math.inf if p["mode"] == "max" else not p["count_padding"]
    padded = padding != NO_PIXELS
    arguments = (size, stride)
    if padded and ignored and padding == same:
        word = "same"
    elif padded and p["mode"] == "max":
        lines = _pad(x, output, padding, value=p["border"])
        x = output
    elif padded and ignored:
        layer = f"keras.layers.AveragePooling2D({size}, {stride})"
        return [
            f"inside = keras.ops.ones_like({x})",
            *_pad("inside", "inside", padding),
            *_pad(x, output, padding),
            f"layer = {layer}",
            f"{output} = layer({output}) / layer(inside)  # of real pixels",
        ]
    elif padded:
        lines = _pad(x, output, padding)
        x = output
    name = "MaxPooling2D" if p["mode"] == "max" else "AveragePooling2D"
    lines += _layer(output, x, name, [], *arguments, padding=repr(word))
    if p["mode"] == "sum":
        if padded and ignored:
            raise KeyError(step.kind)
        lines.append(f"{output} = {output} * {math.prod(size)}")
    return lines


def _reduce(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    rank = len(step.shapes[0])
    axes = tuple(sorted(axis % rank for axis in p["axes"]))
    names = {"mean": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}
    if rank == 4 and axes == (2, 3) and p["mode"] in names:
        return [f"{output} = keras.layers.{names[p['mode']]}()({inputs[0]})"]
    own = tuple(sorted(AXES[axis] for axis in axes)) if rank == 4 else axes
    lines = [f"{output} = keras.ops.{p['mode']}({inputs[0]}, axis={own})"]
    if rank != 4:
        return lines
    left = [axis for axis in (0, 2, 3, 1) if axis not in axes]
    order = tuple(left.index(axis) for axis in sorted(left))
    if order != tuple(range(len(order))):
        lines.append(f"{output} = keras.ops.transpose({output}, {order})")
    return lines


def _adaptive_pool(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    word = "Average" if p["mode"] == "average" else "Max"
    size = tuple(p["size"])
    return _layer(output, inputs[0], f"Adaptive{word}Pooling2D", [], size)


def _padding(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    mode, value = p.get("mode", "constant"), p.get("value", 0.0)
    lines = _pad(inputs[0], output, _tuples(p["padding"]), mode, value)
    return lines or [f"{output} = {inputs[0]}"]


def _by_channel(arrays: Arrays, name: str, tensor: Tensor, rank: int) -> str:
    written = arrays.add(name, tensor)
    shape = channels(tensor, rank)
    # Of a map in (N, H, W, C), the channels are the last axis anyway.
    return f"{written}.reshape{shape}" if shape and rank == 3 else written


def _activation(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    x = inputs[0]
    if p["function"] in FUNCTIONS:
        return [f"{output} = {FUNCTIONS[p['function']].format(x)}"]
    slope = p["slope"]
    if not isinstance(slope, Tensor):
        name = p["function"]
        return [f"{output} = keras.ops.{name}({x}, {number(slope)})"]
    written = _by_channel(arrays, "slope", slope, len(step.shapes[0]))
    below = f"{written} * {x}"
    if p["function"] == "elu":
        below = f"{written} * keras.ops.expm1({x})"
    return [f"{output} = keras.ops.where({x} > 0, {x}, {below})"]


def _softmax(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    rank = len(step.shapes[0])
    axis = p["axis"] % rank
    axis = AXES[axis] if rank == 4 else axis
    function = "log_softmax" if p.get("log") else "softmax"
    return [f"{output} = keras.ops.{function}({inputs[0]}, axis={axis})"]


def _scale(step, inputs, output, arrays) -> Lines:
    rank = len(step.shapes[0])
    scale, shift = (
        _by_channel(arrays, name, step.parameters[name], rank)
        for name in ("scale", "shift")
    )
    return [f"{output} = {inputs[0]} * {scale} + {shift}"]


def _merge(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    rank = len(step.shapes[0])
    listed = f"[{', '.join(inputs)}]"
    if p["mode"] == "concatenate":
        axis = p["axis"] % rank
        axis = AXES[axis] if rank == 4 else axis
        return [f"{output} = keras.ops.concatenate({listed}, axis={axis})"]
    if p["mode"] in OPERATORS:
        sign = f" {OPERATORS[p['mode']]} "
        return [f"{output} = {sign.join(inputs)}"]
    return [f"{output} = keras.layers.{p['mode'].capitalize()}()({listed})"]


def _resize(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    method, grid, size = p["method"], p["grid"], tuple(p["size"])
    times = [new / old for new, old in zip(size, step.shapes[0][2:], strict=True)]
    whole = all(factor == int(factor) for factor in times)
    if method == "nearest" and grid == "origin" and whole:
        factors = tuple(map(int, times))
        return [f"{output} = keras.layers.UpSampling2D({factors})({inputs[0]})"]
    if grid != "half_pixel":
        raise KeyError(step.kind)
    named = {"interpolation": repr(method)}
    named["antialias"] = True if p.get("antialias") else None
    return [call(output, "keras.ops.image.resize", inputs[0], size, **named)]


def _dropout(step, inputs, output, arrays) -> Lines:
    p = step.parameters
    layer = f"keras.layers.Dropout({p['rate']})"
    if not p.get("active") or p.get("mask") is None:
        return [f"{output} = {layer}({inputs[0]}, training=False)"]
    mask = arrays.add("mask", p["mask"])
    turned = f".transpose{LAST}" if p["mask"].dim() == 4 else ""
    return [
        f"# {layer}({inputs[0]}, training=True), with what it drew.",
        f"{output} = {inputs[0]} * {mask}{turned}",
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
    "attention": keras_attention,
    "join": keras_join,
}

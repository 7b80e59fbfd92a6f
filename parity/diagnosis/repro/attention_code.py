"""Attention, and tokens that a weight is put before, as either side's code."""

from parity.diagnosis.recording.graph import Step
from parity.diagnosis.recording.operations import TOKENS
from parity.diagnosis.repro.code import Arrays, call, number

Lines = list[str]
NAMES = ("query", "key", "value")
AXES = {"keys": 3, "queries": 2, "heads": 1}


def torch_attention(
    step: Step, inputs: list[str], output: str, arrays: Arrays
) -> Lines:
    """Returns the lines that compute an attention in PyTorch, channels first."""
    p = step.parameters
    axis, over = p["axis"], p["over"]
    places, _ = _sizes(step, 0, axis)

    def heads(index: int, name: str) -> Lines:
        _, whole = _sizes(step, index, axis)
        tokens = f"{name} = {inputs[index]}.movedim({axis}, -1).reshape({whole})"
        return [f"{tokens}.transpose(1, 2)" if p["split"] == TOKENS else tokens]

    lines = [line for index, name in enumerate(NAMES) for line in heads(index, name)]
    if over == "keys":
        named = {"scale": number(p["scale"]), "is_causal": p["causal"] or None}
        arguments = ("query", "key", "value")
        lines.append(
            call(output, "F.scaled_dot_product_attention", *arguments, **named)
        )
    else:
        lines.append(f"products = query @ key.transpose(2, 3) * {number(p['scale'])}")
        lines.append(f"{output} = products.softmax({AXES[over]}) @ value")
    if p["joined"] == TOKENS:
        lines.append(f"{output} = {output}.transpose(1, 2)")
    return [*lines, f"{output} = {output}.reshape({places}).movedim(-1, {axis})"]


def keras_attention(
    step: Step, inputs: list[str], output: str, arrays: Arrays
) -> Lines:
    """Returns the lines that compute an attention in Keras, of maps channels last."""
    p = step.parameters
    axis = p["axis"] if len(step.shapes[0]) == 3 else len(step.shapes[0]) - 1
    places, _ = _sizes(step, 0, p["axis"])

    def heads(index: int, name: str) -> Lines:
        _, whole = _sizes(step, index, p["axis"])
        tokens, last = inputs[index], len(step.shapes[index]) - 1
        if axis != last:
            tokens = f"keras.ops.moveaxis({tokens}, {axis}, {last})"
        lines = [f"{name} = keras.ops.reshape({tokens}, {whole})"]
        if p["split"] == TOKENS:
            lines.append(f"{name} = keras.ops.transpose({name}, (0, 2, 1, 3))")
        return lines

    lines = [line for index, name in enumerate(NAMES) for line in heads(index, name)]
    turned = "keras.ops.transpose(key, (0, 1, 3, 2))"
    lines.append(f"products = keras.ops.matmul(query, {turned}) * {number(p['scale'])}")
    if p["causal"]:
        lines.append("behind = np.triu(np.ones(products.shape[2:], bool), 1)")
        lines.append("products = keras.ops.where(behind, -np.inf, products)")
    lines.append(f"products = keras.ops.softmax(products, {AXES[p['over']]})")
    lines.append(f"{output} = keras.ops.matmul(products, value)")
    if p["joined"] == TOKENS:
        lines.append(f"{output} = keras.ops.transpose({output}, (0, 2, 1, 3))")
    lines.append(f"{output} = keras.ops.reshape({output}, {places})")
    if axis != len(step.shapes[0]) - 1:
        lines.append(f"{output} = keras.ops.moveaxis({output}, -1, {axis})")
    return lines


def _sizes(step: Step, index: int, axis: int) -> tuple[tuple, tuple]:
    """Returns the shapes of an input, features last: in places, and in heads."""
    shape = step.shapes[index]
    images, *places = [size for i, size in enumerate(shape) if i != axis % len(shape)]
    count = step.parameters["heads"]
    width = shape[axis] // count
    heads = (images, -1, count, width)
    if step.parameters["split"] != TOKENS:
        heads = (images, count, -1, width)
    return (images, *places, -1), heads


def torch_join(step: Step, inputs: list[str], output: str, arrays: Arrays) -> Lines:
    """Returns the line that puts a weight before or behind a value, in PyTorch."""
    p, x = step.parameters, inputs[0]
    rest = ", -1" * (p["weight"].dim() - 1)
    weight = f"{arrays.add('weight', p['weight'])}.expand(len({x}){rest})"
    both = (weight, x) if p["first"] else (x, weight)
    return [f"{output} = torch.cat([{', '.join(both)}], {p['axis']})"]


def keras_join(step: Step, inputs: list[str], output: str, arrays: Arrays) -> Lines:
    """Returns the line that puts a weight before or behind a value, in Keras.

    Raises:
        KeyError: the value is a map.
    """
    p, x = step.parameters, inputs[0]
    if len(step.shapes[0]) == 4:
        raise KeyError(step.kind)
    weight = arrays.add("weight", p["weight"])
    weight = f"keras.ops.repeat({weight}, {step.shapes[0][0]}, 0)"
    both = (weight, x) if p["first"] else (x, weight)
    return [f"{output} = keras.ops.concatenate([{', '.join(both)}], {p['axis']})"]

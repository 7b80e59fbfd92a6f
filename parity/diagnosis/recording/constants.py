"""Operations with a constant or a weight, which both sides' readers meet."""

from parity.frameworks import torch
from parity.diagnosis.recording.graph import Recorder, Tensor, View


class Unknown(Exception):
    """An operation is called in a way that its reader does not know."""


# What is computed of a weight, by the words before its name.
EXACT = {
    "": lambda weight: weight,
    "negative": lambda weight: -weight,
    "reciprocal": lambda weight: 1 / weight,
}


def computed(word: str, name: str | None) -> str | None:
    """Returns the name of what a function computes of a weight."""
    return name and f"{word} of {name}"


def split_computed(name: str) -> tuple[str, str]:
    """Returns the functions before a weight's name, and the name."""
    functions, _, weight = name.rpartition(" of ")
    return functions, weight


def dense(recorder: Recorder, number: int, weight: Tensor, bias: Tensor | None):
    """Returns a dense step on a flattened map, or on the last axis of an array.

    Args:
        recorder: which knows the values.
        number: of the input.
        weight: (outputs, inputs), in the order in which the framework's array is.
        bias: (outputs,), or None.
    """
    view = recorder.graph.views[number]
    if view.flattened_order:  # a row of weights is as a flattened map
        name = recorder.constants.get(id(weight))
        weight = recorder.named(view.value(weight).contiguous(), name)
    parameters = {"weight": weight, "bias": bias}
    if len(view.axes) > 2:
        parameters["axis"] = view.axes[-1]
    return "dense", [number], parameters


def einsum(
    recorder: Recorder,
    equation: str,
    number: int,
    weight: Tensor,
    bias: Tensor | None = None,
    weight_first: bool = False,
):
    """Returns the dense step that a sum over one axis of a value and a weight is.

    Args:
        recorder: which knows the values.
        equation: such as "nhwc,co->nhwo".
        number: of the value.
        weight: of the two letters that the value and the output do not share.
        bias: (outputs,), or None.
        weight_first: whether the equation names the weight before the value.
    """
    view = recorder.graph.views[number]
    terms, _, made = equation.replace(" ", "").partition("->")
    value, _, letters = terms.partition(",")
    if weight_first:
        value, letters = letters, value
    rank = len(view.axes)
    value, made = (_without_dots(term, rank) for term in (value, made))
    old = [letter for letter in letters if letter not in made]
    new = [letter for letter in letters if letter not in value]
    if view.pixels or len(letters) != 2 or len(old) != 1 or len(new) != 1:
        raise Unknown
    if len(value) != rank or value.replace(old[0], new[0]) != made:
        raise Unknown
    name = recorder.constants.get(id(weight))
    weight = weight if letters.startswith(new[0]) else weight.t().contiguous()
    parameters = {"weight": recorder.named(weight, name), "bias": bias}
    if rank > 2:
        parameters["axis"] = view.axes[value.index(old[0])]
    return "dense", [number], parameters


def _without_dots(term: str, rank: int) -> str:
    """Returns a term of an equation with letters in the place of its three dots."""
    count = rank - len(term.replace("...", ""))
    return term.replace("...", "ABCDEFGH"[: max(count, 0)])


def spread(
    recorder: Recorder, vector: Tensor | None, view: View, axes: list[int]
) -> Tensor | None:
    """Returns a parameter of some array axes shaped so that it fits the value's."""
    if vector is None:
        return None
    shape = [1] * len(view.axes)
    for axis, size in zip(sorted(axes), vector.shape, strict=True):
        shape[axis] = size
    name = recorder.constants.get(id(vector))
    return recorder.named(view.value(vector.reshape(shape)).contiguous(), name)


def scale_by_constant(recorder: Recorder, mode: str, first, second, numbers: list):
    """Returns the step that a merge with a constant is: a product and a sum.

    The constant is a number or one for each channel.
    """
    number = numbers[0] if numbers[1] is None else numbers[1]
    constant = second if numbers[1] is None else first
    vector = _channel_vector(recorder, constant, number)
    one, zero = torch.ones_like(vector), torch.zeros_like(vector)
    first_is_constant = numbers[0] is None
    if mode == "add":
        pair = {"scale": one, "shift": vector}
    elif mode == "multiply":
        pair = {"scale": vector, "shift": zero}
    elif mode == "subtract" and first_is_constant:
        pair = {"scale": -one, "shift": vector}
    elif mode == "subtract":
        pair = {"scale": one, "shift": -vector}
    elif mode == "divide" and not first_is_constant:
        pair = {"scale": 1 / vector, "shift": zero}
    else:
        raise Unknown
    weight = recorder.constants.get(id(constant))
    if weight:
        name = "shift" if mode in ("add", "subtract") else "scale"
        if mode == "divide":
            weight = computed("reciprocal", weight)
        elif mode == "subtract" and not first_is_constant:
            weight = computed("negative", weight)
        recorder.named(pair[name], weight)
    return "scale", [number], pair


def join(recorder: Recorder, tensors: list, numbers: list[int | None], axis: int):
    """Returns the step that concatenates one value and one constant, if it is that.

    Args:
        recorder: which knows the values.
        tensors: two arrays, PyTorch's or those that a recorder has made tensors of.
        numbers: of their values.
        axis: of the arrays.
    """
    if len(tensors) != 2 or (numbers[0] is None) == (numbers[1] is None):
        raise Unknown
    first = numbers[0] is None
    number, constant = (numbers[1], tensors[0]) if first else (numbers[0], tensors[1])
    view = recorder.graph.views[number]
    if view.pixels or constant.dim() != len(view.axes):
        raise Unknown
    weight = view.value(recorder.to_tensor(constant))
    if not torch.equal(weight, weight[:1].expand_as(weight)):
        raise Unknown
    weight = recorder.named(
        weight[:1].contiguous(), recorder.constants.get(id(constant))
    )
    axis = view.axes[axis % len(view.axes)]
    return "join", [number], {"weight": weight, "axis": axis, "first": first}


def _channel_vector(recorder: Recorder, constant, number: int) -> Tensor:
    """Returns a constant as a number, one for each channel, or a weight as it is."""
    if not isinstance(constant, Tensor):
        return torch.tensor(float(constant), dtype=torch.float64)
    name_of = id(constant)
    constant = recorder.to_tensor(constant)
    if constant.numel() == 1:
        return constant.reshape(())
    view, rank = recorder.graph.views[number], len(recorder.graph.shapes[number])
    if view.pixels or constant.dim() > rank or rank < 2:
        raise Unknown
    whole = constant.reshape(*[1] * (rank - constant.dim()), *constant.shape)
    value = whole.permute(*(view.axes.index(axis) for axis in range(rank)))
    if value.numel() == value.shape[1]:
        return value.flatten()
    if recorder.constants.get(name_of) is None:
        raise Unknown
    return value

"""Operations with a constant or a weight, which both sides' readers meet."""

from parity.frameworks import torch
from parity.diagnosis.recording.graph import Recorder, Tensor, View


class Unknown(Exception):
    """An operation is called in a way that its reader does not know."""


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
        recorder.named(pair[name], weight)
    return "scale", [number], pair


def _channel_vector(recorder: Recorder, constant, number: int) -> Tensor:
    """Returns a constant as a number or as one number for each channel."""
    if not isinstance(constant, Tensor):
        return torch.tensor(float(constant), dtype=torch.float64)
    constant = recorder.to_tensor(constant)
    if constant.numel() == 1:
        return constant.reshape(())
    view, rank = recorder.graph.views[number], len(recorder.graph.shapes[number])
    if view.pixels or constant.dim() > rank or rank < 2:
        raise Unknown
    whole = constant.reshape(*[1] * (rank - constant.dim()), *constant.shape)
    value = whole.permute(*(view.axes.index(axis) for axis in range(rank)))
    if value.numel() != value.shape[1]:
        raise Unknown
    return value.flatten()

"""A network's table of layers: `python -m torch_impl.summary MODEL`."""

from parity.spec import cli

ARGUMENTS = cli.parse_summary("torch_impl.summary") if __name__ == "__main__" else None

import copy
import math
from dataclasses import replace

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import torch_impl
from parity.spec.fields import Field, merge
from parity.spec.recipes import Shape
from parity.spec.summary import Row, Summary
from parity.spec.tracing import Call
from torch_impl.tracing import record_calls, tensors_in
from torch_impl.weights import COUNTER

aten = torch.ops.aten


def summarize(model: nn.Module, shape: Shape) -> Summary:
    """Returns a network's layers in training mode; computes nothing.

    Args:
        model: any module of one input.
        shape: of the images.
    """
    model = _without_weights(model)
    size = (shape.in_channels, shape.height, shape.width)
    inference = {call.name for call in _trace(model.eval(), size)}
    rows = []
    for call in _trace(model.train(), size):
        output = call.outputs[0]
        again = any(row.name == call.name for row in rows)
        own = () if again else call.layer.parameters(recurse=False)
        rows.append(
            Row(
                call.name,
                type(call.layer).__name__,
                tuple(output.shape[1:]),
                sum(parameter.numel() for parameter in own),
                _kernel(call.layer),
                tuple(map(math.ceil, output.field.size)),
                call.name in inference,
            )
        )
    state = (b.numel() for n, b in model.named_buffers() if not n.endswith(COUNTER))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Summary(tuple(rows), size, parameters, sum(state), channels_last=False)


def _without_weights(model: nn.Module) -> nn.Module:
    """Returns a copy whose tensors have a shape and no memory."""
    tensors = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, tensor.requires_grad)
        tensors[id(tensor)] = empty
    return copy.deepcopy(model, tensors)


def _trace(model: nn.Module, size: tuple[int, int, int]) -> list[Call]:
    # Two images: batch normalisation of one unit each needs them.
    images = torch.empty(2, *size, device="meta")
    with record_calls(model) as calls, torch.no_grad(), _Fields(images):
        model(images)
    return calls


def _kernel(layer: nn.Module) -> int:
    kernel = isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.weight.numel() if kernel else 0


class _Fields(TorchDispatchMode):
    """Gives every tensor that comes of the images its receptive field."""

    def __init__(self, images: torch.Tensor):
        super().__init__()
        images.field = Field((1, 1), (1, 1), tuple(images.shape[2:]))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        fields = [tensor.field for tensor in tensors if hasattr(tensor, "field")]
        if fields:
            for output in tensors_in(result):
                field = _behind(function.overloadpacket, args, output, merge(fields))
                if output.dim() == 4:
                    field = replace(field, units=tuple(output.shape[2:]))
                output.field = field
        return result


def _behind(operation, args: tuple, output: torch.Tensor, field: Field) -> Field:
    if operation == aten.convolution:
        _, kernel, _, stride, _, dilation = args[:6]
        return field.window(kernel.shape[2:], stride, dilation)
    if operation in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        kernel, stride = args[1], args[2] if len(args) > 2 and args[2] else args[1]
        dilation = args[4] if operation != aten.avg_pool2d and len(args) > 4 else (1, 1)
        return field.window(*(_pair(v) for v in (kernel, stride, dilation)))
    if operation in (aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d):
        return field.adaptive(output.shape[2:])
    if operation in (aten.addmm, aten.mm, aten.linear):
        return field.whole()
    if operation == aten.mean and {axis % 4 for axis in args[1]} == {2, 3}:
        return field.whole()
    return field


def _pair(value) -> tuple[int, int]:
    return tuple(value) * 2 if len(value) == 1 else tuple(value)


def main() -> int:
    """Prints the table of the model of the command line."""
    name, shape = ARGUMENTS
    with torch.device("meta"):
        model = torch_impl.create_model(name, **shape.arguments())
    print(summarize(model, shape))
    return 0


if __name__ == "__main__":
    cli.run("torch_impl.summary", main)

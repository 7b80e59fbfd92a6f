"""A PyTorch model's modules by attribute path, and a record of their calls."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from parity.spec.tracing import Call


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns every module inside a model by its attribute path, parents first."""
    return {path: module for path, module in model.named_modules() if path}


def leaf_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the modules that hold no other module, by attribute path."""
    layers = named_layers(model)
    return {path: m for path, m in layers.items() if not list(m.children())}


@contextlib.contextmanager
def record_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Records every call of a leaf module, in execution order, while inside.

    Tensors are cloned: an operation in place would overwrite them afterwards.
    """
    calls = []
    inputs = {}

    def before(module: nn.Module, args: tuple) -> None:
        inputs[module] = _clone(args[0])

    def recording(name: str):
        def after(module: nn.Module, args: tuple, output: object) -> None:
            calls.append(Call(name, module, inputs.pop(module), _clone(output)))

        return after

    hooks = []
    try:
        for path, module in leaf_layers(model).items():
            hooks.append(module.register_forward_pre_hook(before))
            hooks.append(module.register_forward_hook(recording(path)))
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _clone(value: object) -> object:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value

"""A PyTorch model's modules by attribute path, and a record of their calls."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from parity.spec.tracing import Call


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns every module inside a model by its attribute path, parents first."""
    return {path: module for path, module in model.named_modules() if path}


def leaf_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the modules that hold no other or weights of their own, by path."""
    return {
        path: module
        for path, module in named_layers(model).items()
        if not list(module.children()) or own_variables(module)
    }


def unused_layers(model: nn.Module, calls: Iterable[Call]) -> list[str]:
    """Returns the paths of the leaf modules with weights that no call was made of."""
    used = {call.name for call in calls}
    leaves = leaf_layers(model).items()
    return [path for path, x in leaves if own_variables(x) and path not in used]


def own_variables(layer: nn.Module) -> list[torch.Tensor]:
    """Returns a module's weights, parameters and state, without its submodules'."""
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


@contextlib.contextmanager
def record_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Records every call of a leaf module, in execution order, while inside.

    Tensors are cloned: an operation in place would overwrite them afterwards.
    """
    calls = []
    waiting = []

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        waiting.append(_clone((args, kwargs)))

    def recording(name: str):
        def after(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            calls.append(Call(name, module, waiting.pop(), _clone(output)))

        return after

    hooks = []
    try:
        for path, module in leaf_layers(model).items():
            hooks += [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(recording(path), with_kwargs=True),
            ]
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _clone(value: object) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.detach().clone() for tensor in tensors_in(value))


def tensors_in(value: object) -> tuple[torch.Tensor, ...]:
    """Returns the tensors in a nested value, in order (dicts by sorted keys)."""
    if isinstance(value, torch.Tensor):
        return (value,)
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list | tuple):
        return tuple(tensor for item in value for tensor in tensors_in(item))
    return ()

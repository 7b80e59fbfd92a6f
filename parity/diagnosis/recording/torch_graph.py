"""Records the steps of any PyTorch module: modules, functions and tensor methods."""

import contextlib
import weakref
from collections.abc import Callable, Iterator

from torch.overrides import TorchFunctionMode

from parity.frameworks import torch
from parity.diagnosis.recording.graph import (
    Graph,
    Recorder,
    Step,
    Tensor,
    channels_first,
    finish,
    uncallable,
)
from parity.diagnosis.recording.torch_operations import read_function, read_multi_head
from torch_impl.tracing import tensors_in

# Operations that only move pixels about, or nothing at all.
RESHAPES = {
    "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze",
    "contiguous", "movedim", "moveaxis", "swapaxes", "view_as", "reshape_as", "__get__",
    "unflatten", "clone", "detach", "to", "double", "type", "type_as", "requires_grad_",
    "detach_", "expand", "expand_as", "channel_shuffle",
}  # fmt: skip
# What these return does not depend on the pixels.
CONSTANTS = {"ones_like", "zeros_like", "full_like", "new_ones", "new_zeros"}
DROPOUTS = {"dropout", "dropout2d", "feature_dropout", "alpha_dropout"}


class _Hearing(TorchFunctionMode):
    """Tells the recorder of every function that is called while it is on."""

    def __init__(self, recorder: "_TorchRecorder"):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self.recorder.call(function, args, kwargs or {})


class _TorchRecorder(Recorder):
    def __init__(self, model: torch.nn.Module):
        super().__init__("torch", channels_first)
        self.path = [""]
        self.modules = dict(model.named_modules())
        self.leaves = {
            path
            for path, module in self.modules.items()
            if {name for name, _ in module.named_children()} <= {"parametrizations"}
        }
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.constants[id(tensor)] = name
            self.alive.append(tensor)
        # Values that share memory, since an operation in place changes all of them.
        self.sharing: dict[int, list] = {}

    def to_tensor(self, array: Tensor) -> Tensor:
        return array.detach().to("cpu", torch.float64).clone()

    def keep(self, array: Tensor, number: int, listed: bool = True) -> None:
        super().keep(array, number, listed)
        if self.arrays is not None and array.requires_grad:
            array.retain_grad()
        place = array.untyped_storage().data_ptr()
        self.sharing.setdefault(place, []).append(weakref.ref(array))

    def layer(self, inputs: list[int]) -> tuple[str, bool]:
        """Returns the name of a step's layer, and whether it is that layer's own."""
        path = self.path[-1]
        if path and path in self.leaves:
            return path, True
        return (self.graph.names[inputs[0]] if inputs else path or "model"), False

    def call(self, function: Callable, args: tuple, kwargs: dict) -> object:
        name = getattr(function, "__name__", str(function))
        tensors = tensors_in((args, kwargs))
        known = [self.number_of(tensor) for tensor in tensors]
        changed = _changes_in_place(name, kwargs)
        result = function(*args, **kwargs)
        outputs = tensors_in(result)
        if all(number is None for number in known) or name in CONSTANTS:
            self._note_constants(tensors, outputs)
            return result
        if changed and not outputs:  # x[...] = y returns nothing
            outputs = tensors[:1]
        if outputs and outputs[0].dtype.is_floating_point:
            self._record(name, function, args, kwargs, tensors, outputs)
        elif outputs:
            self._opaque(name, function, args, kwargs, tensors, outputs)
        return result

    def _note_constants(self, tensors: tuple, outputs: tuple) -> None:
        names = {self.constants.get(id(tensor)) for tensor in tensors} - {None}
        for output in outputs:
            if id(output) not in self.constants:
                self.constants[id(output)] = names.pop() if len(names) == 1 else None
                self.alive.append(output)

    def _record(self, name, function, args, kwargs, tensors, outputs) -> None:
        numbers = [n for n in map(self.number_of, tensors) if n is not None]
        path, is_layer = self.layer(numbers)
        if name in DROPOUTS:
            _, _, dropout = read_function(self, name, args, kwargs)
            if not dropout["active"]:
                self.add_dropout(path, dropout["rate"], numbers[0])
        if name in RESHAPES or name in DROPOUTS:
            if len(outputs) == 1 and outputs[0] is tensors[0]:
                return
            if len(outputs) == 1 and (
                self.reshaped(numbers[0], outputs[0], path) is not None
            ):
                self.graph.names[self.number_of(outputs[0])] = self.graph.names[
                    numbers[0]
                ]
                return
        if name == "multi_head_attention_forward":
            steps = read_multi_head(self, args, kwargs, outputs[0])
            for kind, inputs, parameters, array in steps or ():
                inputs = [
                    x if isinstance(x, int) else self.number_of(x) for x in inputs
                ]
                array = outputs[0] if array is None else array
                self._take(name, self.path[-1], True, kind, inputs, parameters, array)
            start = 1 if steps else 0  # the weights of attention may follow
            self._opaque(name, function, args, kwargs, tensors, outputs, start)
            return
        read = read_function(self, name, args, kwargs)
        if read is None:
            self._opaque(name, function, args, kwargs, tensors, outputs)
            return
        self._take(name, path, is_layer, *read, outputs[0])

    def _take(self, name, path, is_layer, kind, inputs, parameters, output) -> None:
        """Adds the step that a reader has read."""
        inputs, view = self.viewed(kind, inputs, path, output.dim())
        weights = {
            key: self.constants[id(value)]
            for key, value in parameters.items()
            if isinstance(value, Tensor) and self.constants.get(id(value))
        }
        parameters = {
            key: self.to_tensor(value) if isinstance(value, Tensor) else value
            for key, value in parameters.items()
        }
        number = self._new(output, path, view)
        self.add(
            Step(
                kind,
                path,
                name,
                inputs,
                number,
                parameters,
                weights,
                is_layer=is_layer,
                owner=self.modules.get(path) if is_layer else None,
            )
        )

    def _new(self, array: Tensor, name: str, view) -> int:
        """Gives an array a value, and those that share its memory what they now are."""
        number = self.new_value(array, name, view)
        place = array.untyped_storage().data_ptr()
        for reference in self.sharing.get(place, []):
            other = reference()
            if other is None or other is array:
                continue
            same = other.shape == array.shape and other.stride() == array.stride()
            if same and other.data_ptr() == array.data_ptr():
                Recorder.keep(self, other, number)
        return number

    def _opaque(self, name, function, args, kwargs, tensors, outputs, start=0) -> None:
        places = [i for i, t in enumerate(tensors) if self.number_of(t) is not None]
        inputs = [self.number_of(tensors[i]) for i in places]
        views = [self.graph.views[number] for number in inputs]
        shapes = [tuple(tensors[i].shape) for i in places]
        originals = [
            tensor.new_empty(0) if i in places else tensor.detach().clone()
            for i, tensor in enumerate(tensors)
        ]
        path, is_layer = self.layer(inputs)
        for index, output in enumerate(outputs):
            if index < start or (index and output is outputs[0]):
                continue
            number = self._new(output, path, self.view_like(inputs[0], output))
            view = self.graph.views[number]

            def replay(values: list[Tensor], index=index, view=view) -> Tensor:
                given = list(originals)
                for place, value, v, shape in zip(
                    places, values, views, shapes, strict=True
                ):
                    array = v.array(value).reshape(shape).clone()
                    given[place] = array.to(originals[place].dtype)
                again, named = _filled((args, kwargs), given)
                result = function(*again, **named)
                found = tensors_in(result) or (given[0],)
                return view.value(found[index].double())

            weights = {
                str(i): self.constants[id(t)]
                for i, t in enumerate(tensors)
                if self.constants.get(id(t))
            }
            self.add(
                Step(
                    "opaque",
                    path,
                    name,
                    inputs,
                    number,
                    {},
                    weights,
                    replay,
                    is_layer,
                )
            )


def _filled(template: object, tensors: list[Tensor]) -> object:
    """Returns arguments with their tensors exchanged, in order."""
    remaining = iter(tensors)

    def fill(value: object) -> object:
        if isinstance(value, Tensor):
            return next(remaining)
        if isinstance(value, dict):
            filled = {key: fill(value[key]) for key in sorted(value)}
            return {key: filled[key] for key in value}
        if isinstance(value, list | tuple):
            items = [fill(item) for item in value]
            return type(value)(items) if type(value) in (list, tuple) else items
        return value

    return fill(template)


def _changes_in_place(name: str, kwargs: dict) -> bool:
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__")
        or bool(kwargs.get("inplace"))
    )


@contextlib.contextmanager
def _paths(model: torch.nn.Module, recorder: _TorchRecorder) -> Iterator[None]:
    """Keeps the path of the module that is running, or that failed."""

    def entering(path: str):
        return lambda module, args: recorder.path.append(path)

    def leaving(module, args, output):
        recorder.path.pop()

    hooks = []
    try:
        for path, module in model.named_modules():
            hooks.append(module.register_forward_pre_hook(entering(path), prepend=True))
            hooks.append(module.register_forward_hook(leaving))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def record(
    model: torch.nn.Module,
    images: Tensor,
    arrays: dict[int, list[Tensor]] | None = None,
) -> Graph:
    """Returns the steps of a module on images.

    Args:
        model: in float64, in the mode in which it is to be judged.
        images: float64 (N, C, H, W).
        arrays: is given PyTorch's own tensor of each value; gradients are then kept.

    Raises:
        UsageError: the model cannot be called on these images, or returns no tensor.
    """
    recorder = _TorchRecorder(model)
    recorder.arrays = arrays
    number = recorder.new_value(images, "input")
    recorder.graph.inputs.append(number)
    try:
        with (
            torch.set_grad_enabled(arrays is not None),
            _paths(model, recorder),
            _Hearing(recorder),
        ):
            outputs = model(images)
    except Exception as error:
        where = recorder.path[-1] or type(model).__name__
        raise uncallable("PyTorch", images, where, error) from None
    return finish(recorder, "PyTorch", outputs, tensors_in(outputs))

"""Records the steps of any PyTorch module: modules, functions and tensor methods."""

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator

from torch.overrides import TorchFunctionMode

from parity.frameworks import torch
from parity.diagnosis.recording.constants import computed
from parity.diagnosis.recording.graph import (
    Graph,
    Recorder,
    Step,
    Tensor,
    View,
    channels_first,
    finish,
    uncallable,
)
from parity.diagnosis.recording.torch_attention import read_multi_head
from parity.diagnosis.recording.torch_operations import MERGES, read_function
from parity.spec.errors import UsageError
from torch_impl.tracing import tensors_in

# Operations that only move pixels about, or nothing at all.
RESHAPES = {
    "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze",
    "contiguous", "movedim", "moveaxis", "swapaxes", "view_as", "reshape_as", "__get__",
    "unflatten", "clone", "detach", "to", "double", "type", "type_as", "requires_grad_",
    "detach_", "expand", "expand_as", "channel_shuffle",
}  # fmt: skip
# What these return is some of the numbers that they are given.
PARTS = {
    "__getitem__", "chunk", "split", "unbind", "narrow", "select", "flip", "roll",
    "index_select", "t", "repeat", "tile", "float", "half", "bfloat16", "cat", "stack",
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
        """Returns an array as float64; a complex number as two, on one axis more."""
        return _real(array.detach().to("cpu")).clone()

    def keep(self, array: Tensor, number: int, listed: bool = True) -> None:
        super().keep(array, number, listed and not array.is_complex())
        self.share(array)

    def view_like(self, number: int, array: Tensor) -> View | None:
        return None if array.is_complex() else super().view_like(number, array)

    def share(self, array: Tensor) -> None:
        """Notes where an array's numbers lie."""
        place = _memory(array)
        if place is not None:
            self.sharing.setdefault(place, []).append(weakref.ref(array))

    def sharers(self, array: Tensor) -> list[Tensor]:
        """Returns the other arrays that lie in the same memory."""
        references = self.sharing.get(_memory(array), [])
        others = {id(x): x for x in (reference() for reference in references)}
        return [x for x in others.values() if x is not None and x is not array]

    def holds(self, array: Tensor, number: int) -> bool:
        """Returns whether an array holds a value still."""
        value = self.graph.views[number].array(self.graph.values[number])
        return _same(self.to_tensor(array), value)

    def layer(self, inputs: list[int]) -> tuple[str, bool]:
        """Returns the name of a step's layer, and whether it is that layer's own."""
        path = self.path[-1]
        if path and path in self.leaves:
            return path, True
        return (self.graph.names[inputs[0]] if inputs else path or "model"), False

    def call(self, function: Callable, args: tuple, kwargs: dict) -> object:
        tensors = tensors_in((args, kwargs))
        known = [self.number_of(tensor) for tensor in tensors]
        if any(number is not None for number in known):
            function, args, kwargs = _in_float64(function, args, kwargs)
        name = getattr(function, "__name__", str(function))
        changed = _changes_in_place(name, kwargs)
        result = function(*args, **kwargs)
        outputs = tensors_in(result)
        if all(number is None for number in known) or name in CONSTANTS:
            self._note_constants(name, args, tensors, outputs)
            return result
        if changed and not outputs:  # x[...] = y returns nothing
            outputs = tensors[:1]
            if self._is_written_back(tensors, known):
                return result
        self._hear(name, function, args, kwargs, tensors, outputs)
        if changed and outputs:
            self._follow(outputs[0])
        return result

    def _is_written_back(self, tensors: tuple, known: list) -> bool:
        """Returns whether x[...] = y wrote what y, a part of x, had changed already."""
        return (
            None not in known
            and len(tensors) > 1
            and any(tensors[0] is other for other in self.sharers(tensors[-1]))
            and self.holds(tensors[0], known[0])
        )

    def _hear(self, name, function, args, kwargs, tensors, outputs) -> None:
        if outputs and outputs[0].dtype.is_floating_point:
            self._record(name, function, args, kwargs, tensors, outputs)
        elif outputs:
            self._opaque(name, function, args, kwargs, tensors, outputs)

    def _note_constants(self, name, args: tuple, tensors, outputs) -> None:
        names = {self.constants.get(id(tensor)) for tensor in tensors} - {None}
        if name not in RESHAPES | PARTS | CONSTANTS:
            numbers = [str(x) for x in args if isinstance(x, int | float)]
            word = " ".join([MERGES.get(name, name.strip("_").lower()), *numbers])
            names = {computed(word, weight) for weight in names}
        for output in outputs:
            if id(output) not in self.constants:
                self.constants[id(output)] = names.pop() if len(names) == 1 else None
                self.alive.append(output)
                self.share(output)

    def _record(self, name, function, args, kwargs, tensors, outputs) -> None:
        numbers = [n for n in map(self.number_of, tensors) if n is not None]
        path, is_layer = self.layer(numbers)
        if name in DROPOUTS:
            _, _, dropout = read_function(self, name, args, kwargs)
            if not dropout["active"]:
                self.add_dropout(path, dropout["rate"], numbers[0])
        if name in RESHAPES or name in DROPOUTS or _is_whole(name, args, outputs):
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
                inputs = self.numbers_of(inputs)
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
        for other in self.sharers(array):
            same = other.shape == array.shape and other.stride() == array.stride()
            if same and other.data_ptr() == array.data_ptr():
                Recorder.keep(self, other, number)
        return number

    def _follow(self, changed: Tensor) -> None:
        """Gives the other views of memory that was changed what they now hold."""
        number = self.number_of(changed)
        if self.arrays and number in self.arrays and changed._is_view():
            self.arrays[number].insert(0, None)  # autograd tells the whole, not a view
        for other in self.sharers(changed):
            known = self.number_of(other)
            if known == number or other.dtype != changed.dtype:
                continue
            if known is not None and self.holds(other, known):
                continue
            taken = _taken(changed, other)
            if not (taken >= 0).any():
                continue
            name = self.graph.names[number]
            if (taken >= 0).all() and self.reshaped(number, other, name) is not None:
                continue
            self._rewrite(changed, other, taken)

    def _rewrite(self, changed: Tensor, other: Tensor, taken: Tensor) -> None:
        """Adds the step in which part of a tensor becomes what another view holds.

        Args:
            changed: the view that was changed.
            other: one that overlaps it.
            taken: of each number in `other` where `changed` holds it, -1 where not.
        """
        before, number = self.number_of(other), self.number_of(changed)
        constant = self.to_tensor(other) if before is None else None
        inputs = [number]
        if before is not None and not (taken >= 0).all():
            inputs.insert(0, before)
        path, is_layer = self.layer(inputs)
        output = self.new_value(other, path, self.view_like(inputs[0], other))
        views = [self.graph.views[n] for n in (*inputs, output)]
        shapes = [self.graph.shapes[n] for n in inputs]

        def replay(values: list[Tensor]) -> Tensor:
            arrays = [
                view.array(value.reshape(shape))
                for value, view, shape in zip(values, views, shapes, strict=False)
            ]
            new = arrays[-1].flatten()[taken.clamp(min=0)]
            old = arrays[0] if len(arrays) == 2 else constant
            if old is not None:
                new = torch.where(taken >= 0, new, old)
            return views[-1].value(new)

        self.add(
            Step(
                "opaque",
                path,
                "__setitem__",
                inputs,
                output,
                replay=replay,
                is_layer=is_layer,
            )
        )

    def _opaque(self, name, function, args, kwargs, tensors, outputs, start=0) -> None:
        places = [i for i, t in enumerate(tensors) if self.number_of(t) is not None]
        inputs = [self.number_of(tensors[i]) for i in places]
        views = [self.graph.views[number] for number in inputs]
        shapes = [tuple(_real(tensors[i]).shape) for i in places]
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
                    if originals[place].is_complex():
                        array = torch.view_as_complex(array.contiguous())
                    given[place] = array.to(originals[place].dtype)
                again, named = _filled((args, kwargs), given)
                result = function(*again, **named)
                found = tensors_in(result) or (given[0],)
                return view.value(_real(found[index]))

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


def _memory(array: Tensor) -> int | None:
    """Returns the address of an array's memory, None where it has none of its own."""
    try:
        return array.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, or inside torch.vmap
        return None


def _real(array: Tensor) -> Tensor:
    """Returns numbers as float64; complex ones as pairs, on an axis of their own."""
    if array.is_complex():
        array = torch.view_as_real(array.resolve_conj())
    return array.double()


def _same(array: Tensor, other: Tensor) -> bool:
    """Returns whether two arrays are equal, NaN to NaN too."""
    return array.shape == other.shape and bool(
        ((array == other) | (array.isnan() & other.isnan())).all()
    )


def _taken(changed: Tensor, other: Tensor) -> Tensor:
    """Returns where one array holds the numbers of another in the same memory.

    Returns:
        int64 of the other's shape: an index of `changed`, flattened; -1 for numbers
        that it does not hold.
    """
    size = changed.untyped_storage().nbytes() // changed.element_size()

    def places(array: Tensor) -> Tensor:
        return torch.arange(size).as_strided(
            array.shape, array.stride(), array.storage_offset()
        )

    holder = torch.full((size,), -1)
    holder[places(changed)] = torch.arange(changed.numel()).reshape(changed.shape)
    return holder[places(other)]


def _in_float64(function: Callable, args: tuple, kwargs: dict) -> tuple:
    """Returns a call that casts to float64 where it would cast to float32.

    The model is in float64 while it is recorded, and what its `forward` casts to the
    type that it usually has must fit its weights.
    """

    def wide(value: object) -> object:
        return torch.float64 if value is torch.float32 else value

    if function is Tensor.float:
        function = Tensor.double
    args = tuple(wide(value) for value in args)
    return function, args, {key: wide(value) for key, value in kwargs.items()}


def _is_whole(name: str, args: tuple, outputs: tuple) -> bool:
    """Returns whether an index takes all there is, as x[:, :, None, None] does."""
    return name == "__getitem__" and outputs[0].numel() == args[0].numel()


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
    arrays: dict[int, list[Tensor | None]] | None = None,
) -> Graph:
    """Returns the steps of a module on images.

    Args:
        model: in float64, in the mode in which it is to be judged.
        images: float64 (N, C, H, W).
        arrays: is given PyTorch's own tensors of each value; gradients are then kept.
            None stands first where autograd does not tell a value's gradient.

    Raises:
        UsageError: the model cannot be called on these images, or returns no tensor.
    """
    recorder = _TorchRecorder(model)
    recorder.arrays = arrays
    with torch.set_grad_enabled(arrays is not None):
        images = images.clone()  # `forward` may change them in place
    number = recorder.new_value(images, "input")
    recorder.graph.inputs.append(number)
    try:
        with (
            torch.set_grad_enabled(arrays is not None),
            torch.compiler.set_stance("force_eager"),
            _paths(model, recorder),
            _Hearing(recorder),
        ):
            outputs = model(images)
    except Exception as error:
        where = recorder.path[-1] or type(model).__name__
        raise uncallable("PyTorch", images, where, error) from None
    # Here, since what a function with a gradient of its own returns has none before.
    for array in itertools.chain(*(arrays or {}).values()):
        if array is not None and array.requires_grad:
            array.retain_grad()
    try:
        tensors = tensors_in(outputs)
    except TypeError:
        raise UsageError(
            "the PyTorch model returns a dictionary whose keys cannot be sorted"
        ) from None
    return finish(recorder, "PyTorch", outputs, tensors)

"""A model as the steps that it really took, in one form for both frameworks.

Every array is held as PyTorch would hold it, in float64: (N, C, H, W). A `View` says
how the framework itself orders the axes; a reshape, transposition or flattening only
makes another view, so that (N, H, W, C) flattened by Keras and (N, C, H, W) flattened
by PyTorch are the same value. A step is one operation with its parameters by the names
in `operations.py`.
"""

import itertools
import math
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from parity.frameworks import torch
from parity.spec.errors import UsageError

Tensor = torch.Tensor
# Kinds of steps that take their axes in any order.
ANY_VIEW = (
    "activation", "scale", "dropout", "merge", "layer_norm", "softmax", "reduce",
    "dense", "join", "attention",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """How a framework's array holds a value.

    Attributes:
        axes: array axis i holds the value's axis axes[i].
        pixels: of a flattened map, its sizes without the batch, (C, H, W).
        order: of a flattened map, the order in which the array has those axes.
    """

    axes: tuple[int, ...]
    pixels: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None

    def value(self, array: Tensor) -> Tensor:
        """Returns the value that an array holds."""
        if self.pixels:
            split = [self.pixels[axis] for axis in self.order]
            map = array.reshape(array.shape[0], *split)
            back = [1 + self.order.index(axis) for axis in range(len(self.order))]
            return map.permute(0, *back).reshape(array.shape)
        return array.permute([self.axes.index(axis) for axis in range(array.dim())])

    def array(self, value: Tensor) -> Tensor:
        """Returns the array that holds a value."""
        if self.pixels:
            map = value.reshape(value.shape[0], *self.pixels)
            map = map.permute(0, *(1 + axis for axis in self.order))
            return map.reshape(value.shape)
        return value.permute(self.axes)

    @property
    def flattened_order(self) -> tuple[int, ...] | None:
        """The order of a flattened map, None where it is the usual one."""
        if self.pixels and self.order != tuple(range(len(self.order))):
            return self.order
        return None


def channels_first(rank: int) -> View:
    """Returns PyTorch's view of an array of some rank."""
    return View(tuple(range(rank)))


def channels_last(rank: int) -> View:
    """Returns Keras's view of an array of some rank."""
    return View((0, 2, 3, 1)) if rank == 4 else channels_first(rank)


@dataclass
class Step:
    """One operation of a model.

    Attributes:
        kind: of operation, see `operations.py`; "opaque" where none fits.
        name: the attribute path of the layer, or of the layer before.
        operation: the framework's own name, "Conv2D" or "relu".
        inputs: the numbers of the values that come in.
        output: the number of the value that goes out.
        shapes: of the inputs, as the step takes them: a flattened map has two axes.
        parameters: by the names of `operations.py`; tensors in PyTorch's layout.
        weights: the framework's name of each parameter that is a weight.
        replay: computes the output again from other inputs, for an opaque step.
        is_layer: whether `name` is the layer itself and not the one before.
        owner: the layer object, where there is one.
        view: how the framework held the first input.
        pad: the step that padded the input, where it was one of its own.
    """

    kind: str
    name: str
    operation: str
    inputs: list[int]
    output: int
    parameters: dict[str, object] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    replay: Callable[[list[Tensor]], Tensor] | None = None
    is_layer: bool = True
    owner: object = None
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    pad: "Step | None" = None
    view: View | None = None


@dataclass
class Graph:
    """All steps of one forward pass, in execution order.

    Attributes:
        side: "keras" or "torch".
        steps: in execution order.
        inputs: the numbers of the images' values.
        outputs: the numbers of what the model returned.
        values: each value by its number.
        shapes: each value's shape, also of those that are dropped.
        views: how the framework's own array holds each value.
        names: the layer that made each value.
        output_shapes: the shapes of the outputs.
        dropouts: the name, rate and input's number of each dropout that was not active.
        reshaped: the value that another one holds the pixels of, while recording.
    """

    side: str
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    reshaped: dict[int, int] = field(default_factory=dict)
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    dropouts: list[tuple[str, float, int]] = field(default_factory=list)

    def inputs_of(self, step: Step) -> list[Tensor]:
        """Returns the values that come into a step, in the shapes it takes."""
        return [
            self.values[number].reshape(shape)
            for number, shape in zip(step.inputs, step.shapes, strict=True)
        ]

    def outputs_of(self, values: dict[int, Tensor | None]) -> list[Tensor | None]:
        """Returns what the model returns, in its shapes, of values by number."""
        return [
            None if values[number] is None else values[number].reshape(shape)
            for number, shape in zip(self.outputs, self.output_shapes, strict=True)
        ]

    def drop_values(self) -> None:
        """Forgets the values that no step takes or makes."""
        used = {number for step in self.steps for number in (*step.inputs, step.output)}
        used |= {*self.inputs, *self.outputs, *(n for _, _, n in self.dropouts)}
        self.values = {n: value for n, value in self.values.items() if n in used}

    def used_outside(self, steps: list[Step], last: Step) -> bool:
        """Returns whether others use what some steps make, but for the last's."""
        inner = {step.output for step in steps if step is not last}
        if inner & set(self.outputs):
            return True
        others = [step for step in self.steps if not any(step is s for s in steps)]
        return any(number in inner for step in others for number in step.inputs)

    def producers(self) -> dict[int, Step]:
        """Returns the step that makes each value."""
        return {step.output: step for step in self.steps}


class Recorder:
    """Builds a graph while a model runs; each side's recorder adds how it hears it.

    Attributes:
        graph: what has been recorded.
    """

    def __init__(self, side: str, default_view: Callable[[int], View]):
        self.graph = Graph(side)
        self.default_view = default_view
        # id of an array -> the array, as long as it lives, and the number of its value
        self.numbers: dict[int, tuple[weakref.ref, int]] = {}
        self.alive: list[object] = []  # constants, whose ids are to stay theirs
        self.constants: dict[int, str | None] = {}  # id -> name of the weight, if one
        self.arrays: dict[int, list] | None = None  # by number, where asked for
        self.inner: set[int] = set()  # ids of arrays that no framework has made

    def number_of(self, array: object) -> int | None:
        """Returns the number of the value that an array holds, if it is known."""
        reference, number = self.numbers.get(id(array), (None, None))
        return number if reference and reference() is array else None

    def numbers_of(self, inputs: list) -> list[int | None]:
        """Returns the numbers of values, some of which are given by their arrays."""
        return [x if isinstance(x, int) else self.number_of(x) for x in inputs]

    def to_tensor(self, array: object) -> Tensor:
        """Returns an array as a float64 tensor of its own."""
        return torch.from_numpy(np.array(array, dtype=np.float64))

    def new_value(self, array: object, name: str, view: View | None = None) -> int:
        """Gives an array a new value; returns its number."""
        tensor = self.to_tensor(array)
        view = view or self.default_view(tensor.dim())
        number = len(self.graph.shapes)
        value = view.value(tensor).contiguous()
        self.graph.values[number] = value
        self.graph.shapes[number] = tuple(value.shape)
        self.graph.views[number] = view
        self.graph.names[number] = name
        self.keep(array, number)
        return number

    def keep(self, array: object, number: int, listed: bool = True) -> None:
        """Remembers that an array holds a value; its gradient too if it is listed."""
        self.numbers[id(array)] = (weakref.ref(array), number)
        if self.arrays is not None and listed and id(array) not in self.inner:
            self.arrays.setdefault(number, []).append(array)

    def inner_array(self, array: object) -> object:
        """Notes an array inside a layer, which has no gradient; returns it."""
        self.inner.add(id(array))
        self.alive.append(array)
        return array

    def reshaped(self, source: int, array: object, name: str) -> int | None:
        """Returns the value of an array that has the same pixels as another value.

        None where no order of axes explains it: then the pixels were mixed.
        """
        tensor = self.to_tensor(array)
        value = self.graph.values[source]
        if tensor.numel() != value.numel() or tensor.dim() < 1:
            return None
        views = _views(tuple(value.shape), tensor.dim(), self.default_view)
        tokens = self.view_like(source, array) if tensor.dim() == 3 else None
        if tokens and tokens != self.default_view(3):
            views = [tokens]  # else its heads or its places were mixed
        for view in views:
            try:
                same = view.value(tensor)
            except (RuntimeError, ValueError):
                continue
            # NaN stands at the same places, or the pixels are not the same.
            if np.array_equal(same.flatten(), value.flatten(), equal_nan=True):
                number = self.new_value(array, name, view)
                self.graph.reshaped[number] = source
                shape = self.graph.shapes[number]
                self.graph.values[number] = value.reshape(shape)  # not held twice
                return number
        return None

    def viewed(
        self, kind: str, inputs: list[int], path: str, rank: int
    ) -> tuple[list[int], View | None]:
        """Returns a step's inputs as it takes them, and the view of what it makes."""
        if kind not in ANY_VIEW:
            return [self.natural(number, path) for number in inputs], None
        view = self.graph.views[inputs[0]]
        if len(view.axes) != rank or kind == "reduce":
            return inputs, None
        return inputs, None if kind == "dense" and view.pixels else view

    def view_like(self, number: int, array: object) -> View | None:
        """Returns the view of a value if an array has the shape of its array.

        It is else held as the last one of its shape: tokens (N, T, C) as those
        that they are made of.
        """
        known = reversed(self.graph.views) if len(array.shape) > 2 else ()
        for other in (number, *known):
            view, shape = self.graph.views[other], self.graph.shapes[other]
            if view.pixels or len(view.axes) != len(array.shape):
                continue
            if tuple(shape[axis] for axis in view.axes) == tuple(array.shape):
                return view
        return None

    def natural_shape(self, number: int) -> tuple[int, ...]:
        """Returns a value's shape in the axes that a layer takes it to have."""
        view, shape = self.graph.views[number], self.graph.shapes[number]
        if view.pixels:
            return shape
        wanted = self.default_view(len(shape))
        array = [shape[axis] for axis in view.axes]
        return tuple(array[wanted.axes.index(axis)] for axis in range(len(shape)))

    def natural(self, number: int, name: str) -> int:
        """Returns a value in the axes that a layer takes it to have.

        After a transposition that nothing undid, a layer sees other axes than those
        of the value: then the transposition is a step of its own.
        """
        view = self.graph.views[number]
        wanted = self.default_view(len(self.graph.shapes[number]))
        if view == wanted or view.pixels:
            return number
        array = view.array(self.graph.values[number])

        def replay(inputs: list[Tensor]) -> Tensor:
            return wanted.value(view.array(inputs[0]))

        output = self.new_value(array, name, wanted)
        self.graph.steps.append(
            Step(
                "transpose",
                name,
                "transpose",
                [number],
                output,
                {"axes": view.axes},
                replay=replay,
                is_layer=False,
            )
        )
        return output

    def named(self, tensor: Tensor, name: str | None) -> Tensor:
        """Remembers the name of the weight that a tensor was made of."""
        self.constants[id(tensor)] = name
        self.alive.append(tensor)
        return tensor

    def add_dropout(self, name: str, rate: float, number: int) -> None:
        """Notes a dropout that does nothing in this pass."""
        if rate > 0:
            self.graph.dropouts.append((name, rate, number))

    def add(self, step: Step) -> None:
        """Adds a step."""
        step.view = self.graph.views[step.inputs[0]]
        self.graph.steps.append(step)


def _views(shape: tuple[int, ...], rank: int, default: Callable[[int], View]):
    """Yields the views that an array of some rank may be of a value's pixels."""
    yield default(rank)
    if rank == 2:
        sizes = shape[1:]
        if len(sizes) == 1:
            return
        for order in itertools.permutations(range(len(sizes))):
            yield View((0, 1), sizes, order)
        return
    for axes in itertools.permutations(range(1, rank)):
        yield View((0, *axes))
    if rank == 3:  # (T, N, C), as PyTorch's attention takes it
        yield View((1, 0, 2))
        yield View((2, 0, 1))


def finish(recorder: Recorder, side: str, outputs: object, tensors: tuple) -> Graph:
    """Returns the graph, with one value for all its shapes, without unused steps.

    Args:
        recorder: of the whole pass.
        side: "Keras" or "PyTorch".
        outputs: what the model returned.
        tensors: those in it.

    Raises:
        UsageError: it returned no tensor, or one that does not come of its images.
    """
    graph = recorder.graph
    for tensor in tensors:
        number = recorder.number_of(tensor)
        if number is None:
            raise UsageError(
                f"an output of the {side} model does not come of its images: "
                f"{tuple(tensor.shape)}"
            )
        graph.outputs.append(number)
    if not graph.outputs:
        raise UsageError(
            f"the {side} model returns no tensor but {type(outputs).__name__}"
        )

    def original(number: int) -> int:
        while number in graph.reshaped:
            number = graph.reshaped[number]
        return number

    for step in graph.steps:
        step.shapes = [graph.shapes[number] for number in step.inputs]
        step.inputs = [original(number) for number in step.inputs]
    graph.output_shapes = [graph.shapes[number] for number in graph.outputs]
    graph.outputs = [original(number) for number in graph.outputs]
    graph.dropouts = [(name, rate, original(n)) for name, rate, n in graph.dropouts]
    for number in graph.reshaped:
        del graph.values[number]
    _drop_unused(graph)
    return graph


def uncallable(side: str, images: object, where: str, error: Exception) -> UsageError:
    """Returns the error for a model that cannot be called on images."""
    return UsageError(
        f"the {side} model cannot be called on images {tuple(images.shape)} in "
        f"float64: {type(error).__name__} in {where}: {one_line(error)}"
    )


def one_line(error: Exception) -> str:
    """Returns what an error says, without colours or new lines, the first 300 signs."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:300]


def _drop_unused(graph: Graph) -> None:
    needed = set(graph.outputs)
    kept = []
    for step in reversed(graph.steps):
        if step.output in needed:
            needed.update(step.inputs)
            kept.append(step)
    graph.steps[:] = reversed(kept)


def same_size(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Returns whether two shapes hold as many numbers for each image."""
    return math.prod(shape) == math.prod(other) and shape[:1] == other[:1]

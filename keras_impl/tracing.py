"""A Keras model's layers by attribute path, and a record of their calls."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import keras

from parity.spec.errors import UsageError
from parity.spec.tracing import Call

Map = tuple[int, int, int]


def named_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns every layer inside a model by its attribute path, parents first.

    A layer in a list or in a `Sequential` is named by its index, one in a functional
    model by its own name: `layer1.0.conv1`.
    """
    layers = {}
    seen = {id(model)}

    def add(prefix: str, children: Iterable[tuple[str, object]]) -> None:
        for name, child in children:
            path = f"{prefix}{name}"
            if isinstance(child, list | tuple):
                add(f"{path}.", ((str(i), item) for i, item in enumerate(child)))
            elif isinstance(child, dict):
                add(f"{path}.", child.items())
            elif isinstance(child, keras.Layer) and id(child) not in seen:
                seen.add(id(child))
                layers[path] = child
                add(f"{path}.", _children(child))

    add("", _children(model))
    return layers


def _children(layer: keras.Layer) -> Iterable[tuple[str, object]]:
    if isinstance(layer, keras.Sequential):
        return ((str(i), child) for i, child in enumerate(layer.layers))
    if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):  # functional
        return ((child.name, child) for child in layer.layers)
    return ((n, child) for n, child in vars(layer).items() if not n.startswith("_"))


def leaf_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers that hold no other layer, by attribute path."""
    layers = named_layers(model)
    parents = {path.rsplit(".", 1)[0] for path in layers if "." in path}
    return {path: layer for path, layer in layers.items() if path not in parents}


def input_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Returns the shape (None, H, W, C) that a model was built for.

    Raises:
        UsageError: the model has not been built.
    """
    shape = getattr(model, "input_shape", None)  # functional and Sequential models
    if shape is None and model.built:
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise UsageError(f"model {model.name!r} is not built: call it on images first")
    return tuple(shape)


def flattened_maps(calls: list[Call]) -> list[tuple[Map | None, Map | None]]:
    """Returns, for each call, which map its input and its output are the pixels of.

    A tensor (N, H * W * C) that came of a map (N, H, W, C) stays that map's pixels
    until a layer with weights mixes them; (H, W, C) stands for it, None for all else.
    PyTorch has the same pixels in the order (C, H, W).
    """
    maps = []
    flattened = None
    previous = None
    for call in calls:
        inputs, output = call.inputs.shape, call.output.shape
        if previous is not None and _is_flattened(previous, inputs):
            flattened = tuple(previous[1:])
        before = flattened if len(inputs) == 2 else None
        if call.layer.weights or len(output) == 4:
            flattened = None
        elif _is_flattened(inputs, output):
            flattened = tuple(inputs[1:])
        maps.append((before, flattened))
        previous = output
    return maps


def _is_flattened(before: tuple, after: tuple) -> bool:
    return (
        len(before) == 4
        and len(after) == 2
        and math.prod(before[1:]) == after[1]
        and before[3] != after[1]
    )


@contextlib.contextmanager
def record_calls(model: keras.Model) -> Iterator[list[Call]]:
    """Records every call of a leaf layer, in execution order, while inside."""
    calls = []

    def recording(name: str, layer: keras.Layer):
        call = layer.call

        def wrapped(inputs, *args, **kwargs):
            output = call(inputs, *args, **kwargs)
            calls.append(Call(name, layer, inputs, output))
            return output

        return wrapped

    layers = leaf_layers(model)
    own_calls = {path: vars(layer).get("call") for path, layer in layers.items()}
    try:
        for path, layer in layers.items():
            object.__setattr__(layer, "call", recording(path, layer))
        yield calls
    finally:
        for path, layer in layers.items():
            object.__delattr__(layer, "call")
            if own_calls[path] is not None:
                object.__setattr__(layer, "call", own_calls[path])

"""A Keras model's layers by attribute path, and a record of their calls."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import keras

from parity.spec.errors import UsageError
from parity.spec.tracing import Call

Map = tuple[int, int, int]
# Where Keras, TensorFlow and PyTorch keep what a layer has as attributes, too.
LISTS = ("_layers", "_modules", "_self_")


def named_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns every layer inside a model by its attribute path, parents first.

    A layer in a list or in a `Sequential` is named by its index, one in a functional
    model by its own name: `layer1.0.conv1`.
    """
    return {path: layer for path, layer, _ in _walk(model)}


def leaf_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers that hold no other layer or weights of their own, by path."""
    parents = {id(parent) for _, _, parent in _walk(model)}
    return {
        path: layer
        for path, layer in named_layers(model).items()
        if id(layer) not in parents or own_variables(layer)
    }


def unused_layers(model: keras.Model, calls: Iterable[Call]) -> list[str]:
    """Returns the paths of the leaf layers with weights that no call was made of."""
    used = {call.name for call in calls}
    leaves = leaf_layers(model).items()
    return [path for path, layer in leaves if layer.weights and path not in used]


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns a layer's weights, parameters and state, without its sublayers'."""
    return layer._trainable_variables + layer._non_trainable_variables


def _walk(
    model: keras.Model,
) -> Iterator[tuple[str, keras.Layer, keras.Layer]]:
    """Yields (path, layer, layer that holds it), every layer once."""
    seen = {id(model)}

    def walk(parent: keras.Layer, prefix: str, children: Iterable) -> Iterator:
        for name, child in children:
            path = f"{prefix}{name}"
            if isinstance(child, list | tuple):
                items = ((str(i), item) for i, item in enumerate(child))
                yield from walk(parent, f"{path}.", items)
            elif isinstance(child, dict):
                yield from walk(parent, f"{path}.", child.items())
            elif isinstance(child, keras.Layer) and id(child) not in seen:
                seen.add(id(child))
                yield path, child, parent
                yield from walk(child, f"{path}.", _children(child))

    yield from walk(model, "", _children(model))


def _children(layer: keras.Layer) -> Iterable[tuple[str, object]]:
    if isinstance(layer, keras.Sequential):
        return ((str(i), child) for i, child in enumerate(layer.layers))
    if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):  # functional
        return ((child.name, child) for child in layer.layers)
    # On the torch backend a layer is a module, which keeps its modules apart.
    attributes = {**vars(layer), **getattr(layer, "_modules", {})}
    public = [(n, child) for n, child in attributes.items() if not n.startswith("_")]
    if type(layer).__module__.startswith("keras."):
        return public
    private = [(n, child) for n, child in attributes.items() if n.startswith("_")]
    return public + [(n, child) for n, child in private if not n.startswith(LISTS)]


def input_shape(model: keras.Model) -> tuple[int | None, ...]:
    """Returns the shape (None, H, W, C) that a model was built for.

    Raises:
        UsageError: the model has not been built or has several inputs.
    """
    shape = getattr(model, "input_shape", None)  # functional and Sequential models
    if shape is None and model.built:
        built_for = (model.get_build_config() or {}).get("input_shape")
        shape = built_for and (None, *built_for[1:])
    if shape is None:
        raise UsageError(f"model {model.name!r} is not built: call it on images first")
    if not all(size is None or isinstance(size, int) for size in shape):
        raise UsageError(f"model {model.name!r} has several inputs: {shape}")
    return tuple(shape)


def flattened_maps(
    calls: list[Call],
) -> list[tuple[tuple[Map | None, ...], tuple[Map | None, ...]]]:
    """Returns which maps each call's inputs and outputs are the pixels of.

    A tensor (N, H * W * C) that came of a map (N, H, W, C) stays that map's pixels
    until a dense layer mixes them; (H, W, C) stands for it, None for all else.
    PyTorch has the same pixels in the order (C, H, W). A tensor that an operation
    made, and not a layer, is taken for the last one seen of its size.
    """
    maps: dict[int, Map | None] = {}
    seen = []
    found = []
    for call in calls:
        for tensor in call.inputs:
            if id(tensor) not in maps:
                maps[id(tensor)] = _origin(tensor, seen, maps)
                seen.append(tensor)
        for tensor in call.outputs:
            if id(tensor) not in maps:
                mixed = isinstance(call.layer, keras.layers.Dense)
                maps[id(tensor)] = None if mixed else _origin(tensor, call.inputs, maps)
                seen.append(tensor)
        sides = (call.inputs, call.outputs)
        found.append(tuple(tuple(maps[id(t)] for t in side) for side in sides))
    return found


def _origin(tensor: object, earlier: Iterable, maps: dict) -> Map | None:
    if len(tensor.shape) != 2:
        return None
    for other in reversed(list(earlier)):
        if math.prod(other.shape[1:]) == tensor.shape[1]:
            if len(other.shape) == 4 and other.shape[3] != tensor.shape[1]:
                return tuple(other.shape[1:])
            if len(other.shape) == 2:
                return maps[id(other)]
    return None


@contextlib.contextmanager
def record_calls(model: keras.Model) -> Iterator[list[Call]]:
    """Records every call of a leaf layer, in execution order, while inside."""
    calls = []

    def recording(name: str, layer: keras.Layer):
        call = layer.call

        def wrapped(*args, **kwargs):
            result = call(*args, **kwargs)
            calls.append(
                Call(name, layer, tensors_in((args, kwargs)), tensors_in(result))
            )
            return result

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


def tensors_in(value: object) -> tuple[object, ...]:
    """Returns the tensors in a nested value, in order (dicts by sorted keys)."""
    return tuple(
        item for item in keras.tree.flatten(value) if keras.ops.is_tensor(item)
    )

"""A Keras model's weights in the common form: PyTorch's names and layout."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_impl.tracing import (
    flattened_maps,
    input_shape,
    named_layers,
    own_variables,
    record_calls,
    unused_layers,
)
from parity.spec import layouts
from parity.spec.errors import WeightMismatch


class Weight(NamedTuple):
    """One variable and its layout in the common form."""

    variable: keras.Variable
    layout: layouts.Layout

    def read(self) -> np.ndarray:
        """Returns the values, read-only and, on the CPU, without copying them.

        On the torch backend a copy: there a step changes the tensor itself.
        """
        tensor = ops.convert_to_tensor(self.variable)
        copied = keras.backend.backend() == "torch"
        array = ops.convert_to_numpy(tensor) if copied else np.asarray(tensor)
        return array if array.dtype.kind == "f" else array.astype(np.float32)


def named_weights(model: keras.Model) -> list[Weight]:
    """Returns every weight of a model, parameters and state alike.

    Raises:
        WeightMismatch: a weight has no layout rule or hangs on no attribute.
        UsageError: the model is not built.
    """
    flattened = flattened_shapes(model)
    weights = []
    for path, layer in named_layers(model).items():
        for variable in own_variables(layer):
            layout = layouts.find(
                path,
                type(layer).__name__,
                variable.name,
                tuple(variable.shape),
                flattened.get(path),
            )
            weights.append(Weight(variable, layout))
    found = {id(weight.variable) for weight in weights}
    lost = [variable.path for variable in model.weights if id(variable) not in found]
    if lost:
        raise WeightMismatch(f"weights that hang on no layer attribute: {lost}")
    return weights


def flattened_shapes(model: keras.Model) -> dict[str, tuple[int, int, int]]:
    """Returns (H, W, C) of the map that was flattened into a layer, by path.

    Found by running the model on one blank image. Where layers with weights run in
    training only, it is run as if in training too, on a symbol, which changes nothing.
    """
    sizes = [size or 32 for size in input_shape(model)[1:]]
    with record_calls(model) as calls:
        model(np.zeros((1, *sizes), model.compute_dtype), training=False)
        if unused_layers(model, calls):
            model(keras.Input(sizes), training=True)
    maps = (before for before, _ in flattened_maps(calls))
    return {
        call.name: before[0]
        for call, before in zip(calls, maps, strict=True)
        if any(before)
    }


def state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns every weight in the common form; the arrays may be read-only views."""
    return to_common(named_weights(model))


def to_common(weights: list[Weight]) -> dict[str, np.ndarray]:
    """Returns weights in the common form."""
    return {
        weight.layout.name: weight.layout.to_torch(weight.read()) for weight in weights
    }


def load_state_dict(
    model: keras.Model, tensors: dict[str, np.ndarray], source: str
) -> list[layouts.Layout]:
    """Copies weights in the common form into a model, all of them or none.

    Args:
        model: a built model.
        tensors: name to array.
        source: what to call the tensors' origin in an error.

    Returns:
        The layout of each tensor, in the model's order.

    Raises:
        WeightMismatch: lists what is missing, left over or misshapen; the model is
            as it was.
    """
    weights = named_weights(model)
    wanted = {weight.layout.name: weight.layout.torch_shape for weight in weights}
    layouts.check(wanted, {k: tuple(t.shape) for k, t in tensors.items()}, source)
    for weight in weights:
        array = tensors[weight.layout.name]
        weight.variable.assign(weight.layout.to_keras(array, ops))
    return [weight.layout for weight in weights]

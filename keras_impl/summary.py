"""A network's table of layers: `python -m keras_impl.summary MODEL`."""

from parity.spec import cli

ARGUMENTS = cli.parse_summary("keras_impl.summary") if __name__ == "__main__" else None

import math
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

import keras_impl
from keras_impl.devices import select_device
from keras_impl.tracing import named_layers, record_calls
from parity.spec.fields import Field, merge
from parity.spec.recipes import Shape
from parity.spec.summary import KINDS, Row, Summary
from parity.spec.tracing import Call

KERNELS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def summarize(model: keras.Model, shape: Shape) -> Summary:
    """Returns a network's layers in training mode; computes nothing.

    Args:
        model: a built model of one input.
        shape: of the images.
    """
    size = (shape.height, shape.width, shape.in_channels)
    inference = {call.name for call in _trace(model, size, training=False)[0]}
    calls, graph = _trace(model, size, training=True)
    fields = _fields(graph, calls)
    rows = []
    for call in calls:
        output = call.outputs[0]
        channels = output.shape[-1]
        again = any(row.name == call.name for row in rows)
        rows.append(
            Row(
                call.name,
                KINDS.get(type(call.layer).__name__, type(call.layer).__name__),
                (channels, *output.shape[1:-1]),
                0 if again else _count(call.layer._trainable_variables),
                _kernel(call.layer),
                tuple(map(math.ceil, fields[output.name].size)),
                call.name in inference,
            )
        )
    layers = named_layers(model).values()
    parameters = sum(_count(layer._trainable_variables) for layer in layers)
    state = sum(_count(layer._non_trainable_variables) for layer in layers)
    image = (size[2], *size[:2])
    return Summary(tuple(rows), image, parameters, state, channels_last=True)


def _trace(
    model: keras.Model, size: tuple[int, int, int], training: bool
) -> tuple[list[Call], tf.Graph]:
    images = tf.TensorSpec((None, *size), model.compute_dtype)
    call = tf.function(lambda x: model(x, training=training), autograph=False)
    with record_calls(model) as calls:
        graph = call.get_concrete_function(images).graph
    return calls, graph


def _count(variables: list[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _kernel(layer: keras.Layer) -> int:
    kernel = isinstance(layer, (*KERNELS, keras.layers.Dense))
    return math.prod(layer.kernel.shape) if kernel else 0


def _fields(graph: tf.Graph, calls: list[Call]) -> dict[str, Field]:
    """Returns the receptive field of every tensor that comes of the images, by name."""
    images = graph.inputs[0]
    fields = {images.name: Field((1, 1), (1, 1), tuple(images.shape[1:3]))}
    # Without an Identity, which hands on the tensor that another layer made.
    made = {
        call.outputs[0].name: call
        for call in calls
        if call.inputs[0].name != call.outputs[0].name
    }
    for operation in graph.get_operations():
        inputs = [fields[x.name] for x in operation.inputs if x.name in fields]
        for output in operation.outputs if inputs else ():
            field = _behind(operation, merge(inputs))
            if call := made.get(output.name):
                field = _behind_layer(call, fields[call.inputs[0].name]) or field
            if field and output.dtype.is_floating:
                if output.shape.rank == 4 and None not in output.shape[1:3]:
                    field = replace(field, units=tuple(output.shape[1:3]))
                fields[output.name] = field
    return fields


def _behind_layer(call: Call, field: Field) -> Field | None:
    """Returns the field where the layer's operations would not tell it."""
    layer = call.layer
    if isinstance(layer, KERNELS):  # groups hide in a function, dilation in reshapes
        return field.window(layer.kernel_size, layer.strides, layer.dilation_rate)
    if type(layer).__name__ == "AdaptiveAveragePooling2D":
        return field.adaptive(call.outputs[0].shape[1:3])
    if type(layer).__name__ == "LocalResponseNorm":  # a product over the channels
        return field
    return None


def _behind(operation: tf.Operation, field: Field) -> Field | None:
    if operation.type in ("MaxPool", "AvgPool"):
        return field.window(
            operation.get_attr("ksize")[1:3], operation.get_attr("strides")[1:3]
        )
    if operation.type == "MatMul":
        return field.whole()
    if operation.type in ("Mean", "Max", "Sum"):
        axes = tf.get_static_value(operation.inputs[1])
        axes = {axis % operation.inputs[0].shape.rank for axis in np.ravel(axes)}
        if 0 in axes:  # a statistic of the batch
            return None
        return field.whole() if axes == {1, 2} else field
    return field


def main() -> int:
    """Prints the table of the model of the command line."""
    name, shape = ARGUMENTS
    with tf.device(select_device("cpu")):
        model = keras_impl.create_model(name, **shape.arguments())
    print(summarize(model, shape))
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.summary", main)

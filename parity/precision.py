"""Runs any model in another floating-point type or on another device, and undoes it.

Where Keras has no public way to a layer's variables or to a variable's tensor, its
private attributes are used here and in `keras_impl/tracing.py`, and nowhere else.
"""

import contextlib
from collections.abc import Iterator

from parity.frameworks import keras, tf, torch
from keras_impl.devices import select_device as select_keras_device
from torch_impl.devices import select_device as select_torch_device


@contextlib.contextmanager
def keras_as(model: keras.Model, dtype: str, device: str) -> Iterator[keras.Model]:
    """Turns a Keras model into one of another type and device while inside.

    The model itself is changed and put back, since one that is subclassed cannot be
    copied in general: its variables are exchanged for others, its layers' policies
    and the default floating-point type likewise. TensorFloat-32 is off while inside.

    Args:
        model: a built model on the TensorFlow backend.
        dtype: "float32" or "float64".
        device: "cpu" or "gpu".
    """
    undo = []

    def put(owner: object, attribute: str, value: object) -> None:
        undo.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, value)

    floatx = keras.config.floatx()
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        with tf.device(select_keras_device(device)):
            keras.config.set_floatx(dtype)
            for variable in model.variables:
                value = variable.value
                if value.dtype.is_floating:
                    value = tf.cast(value, dtype)
                    put(variable, "_dtype", dtype)
                value = tf.Variable(value, trainable=variable.trainable)
                put(variable, "_value", value)
            for layer in model._flatten_layers():
                if keras.backend.is_float_dtype(layer.compute_dtype):
                    put(layer, "dtype_policy", keras.DTypePolicy(dtype))
                if isinstance(layer, keras.layers.InputLayer):
                    put(layer, "_dtype", dtype)  # a Sequential casts to its own
                if isinstance(layer, keras.Model):
                    for tensor in getattr(layer, "inputs", None) or []:
                        put(tensor, "_dtype", dtype)
            yield model
    finally:
        keras.config.set_floatx(floatx)
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        for owner, attribute, value in reversed(undo):
            setattr(owner, attribute, value)


@contextlib.contextmanager
def torch_as(
    model: torch.nn.Module, dtype: str, device: str
) -> Iterator[torch.nn.Module]:
    """Turns a PyTorch model into one of another type and device while inside.

    Put back as it was, like the Keras model: a copy would lose a forward function
    that its owner has replaced. TensorFloat-32 is off while inside.

    Args:
        model: any module.
        dtype: "float32" or "float64".
        device: "cpu" or "gpu".
    """
    tf32 = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    parameters = [(p, p.data, p.grad) for p in model.parameters()]
    attributes = [(m, _attributes(m)) for m in model.modules()]
    try:
        target = select_torch_device(device)
        for parameter, data, _ in parameters:
            parameter.grad = None
            parameter.data = data.clone()
        for module, _ in attributes:
            for name, buffer in dict(module.named_buffers(recurse=False)).items():
                setattr(module, name, buffer.clone())
        yield model.to(target, getattr(torch, dtype))
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        for parameter, data, gradient in parameters:
            parameter.grad = None
            parameter.data = data
            parameter.grad = gradient
        for module, saved in attributes:  # mode, buffers, what `forward` has set
            for name, (kept, content) in saved.items():
                vars(module)[name] = kept
                if content is not None:
                    kept.clear()
                    kept.update(content)
            for name in set(vars(module)) - set(saved):
                del vars(module)[name]


def _attributes(module: torch.nn.Module) -> dict[str, tuple]:
    """Returns a module's attributes, and what its dictionaries of tensors hold."""
    held = ("_parameters", "_buffers", "_modules")
    return {
        name: (value, dict(value) if name in held else None)
        for name, value in vars(module).items()
    }

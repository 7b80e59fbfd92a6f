"""Runs any model in another floating-point type or on another device, and undoes it.

Where Keras has no public way to a layer's variables or to a variable's tensor, its
private attributes are used here and in `keras_impl/tracing.py`, and nowhere else.
"""

import collections
import contextlib
import operator
import random
from collections.abc import Iterable, Iterator

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl.devices import select_device as select_keras_device
from parity.spec.errors import UsageError
from torch_impl.devices import select_device as select_torch_device


@contextlib.contextmanager
def keras_as(model: keras.Model, dtype: str, device: str) -> Iterator[keras.Model]:
    """Turns a Keras model into one of another type and device while inside.

    The model itself is changed and put back, since one that is subclassed cannot be
    copied in general: its variables are exchanged for others, its layers' policies
    and the default floating-point type likewise. What `call` sets on the layers is
    undone, too. TensorFloat-32 is off while inside.

    Args:
        model: a built model on the TensorFlow backend.
        dtype: "float32" or "float64".
        device: "cpu" or "gpu".
    """
    layers = model._flatten_layers()
    inputs = [
        tensor
        for layer in layers
        if isinstance(layer, keras.Model)
        for tensor in getattr(layer, "inputs", None) or []
    ]
    trackers = [layer._tracker for layer in layers]
    floatx = keras.config.floatx()
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    with restored([*layers, *trackers, *model.variables, *inputs]):
        try:
            with tf.device(select_keras_device(device)):
                keras.config.set_floatx(dtype)
                for variable in model.variables:
                    if variable.value.dtype.is_floating:
                        variable._dtype = dtype
                    value = _exchanged(variable.value, variable.trainable, dtype)
                    variable._value = value
                for layer in layers:
                    _cast_layer(layer, dtype)
                for tensor in inputs:
                    tensor._dtype = dtype
                yield model
        finally:
            keras.config.set_floatx(floatx)
            tf.config.experimental.enable_tensor_float_32_execution(tf32)


def _cast_layer(layer: keras.Layer, dtype: str) -> None:
    if keras.backend.is_float_dtype(layer.compute_dtype):
        layer.dtype_policy = keras.DTypePolicy(dtype)
    if isinstance(layer, keras.layers.InputLayer):
        layer._dtype = dtype  # a Sequential casts to its own
    for name, value in list(vars(layer).items()):
        if isinstance(value, tf.Variable):  # one that Keras does not track
            vars(layer)[name] = _exchanged(value, value.trainable, dtype)


def _exchanged(value: tf.Variable, trainable: bool, dtype: str) -> tf.Variable:
    """Returns a copy of a variable, in another type if it holds floats."""
    value = tf.convert_to_tensor(value)
    if value.dtype.is_floating:
        value = tf.cast(value, dtype)
    return tf.Variable(value, trainable=trainable)


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

    Raises:
        UsageError: a parameter or buffer holds no values.
    """
    _check_values(model)
    tf32 = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    parameters = [
        (parameter, parameter.data, parameter.grad, parameter.requires_grad)
        for parameter in model.parameters()
    ]
    modules = list(model.modules())
    with restored([*modules, *model.parameters()]):
        try:
            target = select_torch_device(device)
            for parameter, data, *_ in parameters:
                parameter.grad = None
                parameter.data = data.clone()
            for module in modules:
                _clone_tensors(module, target, dtype)
            yield model._apply(lambda tensor: _cast(tensor, target, dtype))
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = (
                tf32
            )
            for parameter, data, gradient, learned in parameters:
                parameter.grad = None
                parameter.data = data
                parameter.requires_grad_(learned)
                parameter.grad = gradient


def _check_values(model: torch.nn.Module) -> None:
    """Refuses a model of which a parameter or buffer holds no values yet."""
    for word, named in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
    ):
        for name, tensor in named:
            if torch.nn.parameter.is_lazy(tensor):
                raise UsageError(
                    f"{word} {name!r} of the PyTorch model has no shape yet; call the "
                    "model once on images, so that its lazy modules have weights"
                )
            if tensor.is_meta:
                raise UsageError(
                    f"{word} {name!r} of the PyTorch model is on the meta device and "
                    "has no values; load its weights first (to_empty, then "
                    "load_state_dict)"
                )


def _cast(tensor: torch.Tensor, device: torch.device, dtype: str) -> torch.Tensor:
    """Returns a tensor on a device, in a type if it holds floats, complex ones too."""
    wanted = getattr(torch, dtype)
    if tensor.is_complex():
        wanted = wanted.to_complex()
    elif not tensor.is_floating_point():
        wanted = tensor.dtype
    return tensor.to(device, wanted)


def _clone_tensors(module: torch.nn.Module, device: torch.device, dtype: str) -> None:
    """Gives a module copies of its buffers and of tensors that are plain attributes."""
    for name, buffer in dict(module.named_buffers(recurse=False)).items():
        setattr(module, name, buffer.clone())
    for name, value in list(vars(module).items()):
        if isinstance(value, torch.Tensor) and not value.is_meta:
            vars(module)[name] = _cast(value.detach().clone(), device, dtype)


@contextlib.contextmanager
def restored(owners: Iterable[object]) -> Iterator[None]:
    """Puts back objects' attributes, and what the lists and the like in them hold."""
    saved = [(owner, dict(vars(owner))) for owner in owners]
    held: dict[int, tuple[object, type, object]] = {}
    for _, attributes in saved:
        for value in attributes.values():
            _note_content(value, held)
    try:
        yield
    finally:
        for owner, attributes in saved:
            for name in set(vars(owner)) - set(attributes):
                del vars(owner)[name]
            vars(owner).update(attributes)
        for container, kind, content in held.values():
            _put_content(container, kind, content)


KINDS = (collections.OrderedDict, dict, list, set, collections.deque)


def _note_content(value: object, held: dict[int, tuple]) -> None:
    """Notes what a container or array holds, and the containers inside it."""
    if id(value) in held:
        return
    if isinstance(value, np.ndarray):
        held[id(value)] = (value, np.ndarray, value.copy())
        return
    kind = next((kind for kind in KINDS if issubclass(type(value), kind)), None)
    if kind:
        held[id(value)] = (value, kind, _content(value))
    elif not isinstance(value, tuple):
        return
    for item in _content(value):
        _note_content(item, held)


def _content(container: object) -> list:
    """Returns what a container holds; of a dictionary the keys, then the values."""
    values = container.values() if isinstance(container, dict) else ()
    return [*container, *values]


def _put_content(container: object, kind: type, content: object) -> None:
    """Fills a container again, past the methods of a subclass that watches it."""
    if kind is np.ndarray:
        if container.flags.writeable:
            container[...] = content
        return
    now = _content(container)
    if len(now) == len(content) and all(map(operator.is_, now, content)):
        return
    kind.clear(container)
    if issubclass(kind, dict):
        half = len(content) // 2
        content = dict(zip(content[:half], content[half:], strict=True))
    add = kind.extend if kind in (list, collections.deque) else kind.update
    add(container, content)


@contextlib.contextmanager
def untouched_state() -> Iterator[None]:
    """Puts the random states of Python, NumPy and both frameworks back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    pytorch = torch.random.get_rng_state()
    try:
        with _untouched_tensorflow():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.random.set_rng_state(pytorch)


@contextlib.contextmanager
def _untouched_tensorflow() -> Iterator[None]:
    """Puts back TensorFlow's seed and generator, and Keras's.

    What `tf.random.set_seed` seeds is a state of each operation, which cannot be put
    back: while inside, operations get other seeds than those that come next.
    """
    from tensorflow.python.eager import context  # not before parity.frameworks

    eager, states = context.context(), keras.src.backend.common.global_state
    seed, seeds = eager._seed, getattr(eager, "_rng", None)
    if seeds:
        eager._rng = random.Random("parity")
    generators = [tf.random.get_global_generator()]
    own = states.get_global_attribute("global_seed_generator")
    generators += [own] if own else []
    counters = [generator.state.numpy() for generator in generators]
    try:
        yield
    finally:
        eager._seed = seed
        if seeds:
            eager._rng = seeds
        states.set_global_attribute("global_seed_generator", own)
        for generator, counter in zip(generators, counters, strict=True):
            generator.state.assign(counter)

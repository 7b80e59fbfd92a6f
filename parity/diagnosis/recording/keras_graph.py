"""Records the steps of any Keras model: its layers, and TensorFlow's operations.

A layer of Keras's own is one step (two with an activation inside). Everything else,
what a layer of the user's does and what stands between layers, is heard as TensorFlow's
own operations, through the callback that TensorFlow's debugger uses.
"""

import contextlib
import inspect
import math
from collections.abc import Iterator

import numpy as np
from tensorflow.python.framework import op_callbacks

from parity.frameworks import keras, tf, torch
from keras_impl.tracing import (
    leaf_layers,
    named_layers,
    own_variables,
    tensors_in,
)
from parity.diagnosis.recording.constants import computed
from parity.diagnosis.recording.graph import (
    Graph,
    Recorder,
    Step,
    View,
    channels_last,
    finish,
    uncallable,
)
from parity.diagnosis.recording.keras_layers import (
    READERS_BY_NAME,
    read_activation,
    read_layer,
)
from parity.diagnosis.recording.keras_operations import MERGES, read_operation
from parity.spec.errors import UsageError

# Operations that hand on what they are given.
SAME = {
    "Identity",
    "Cast",
    "StopGradient",
    "Snapshot",
    "PreventGradient",
    "EnsureShape",
}
RESHAPES = {"Reshape", "Transpose", "Squeeze", "ExpandDims"}
# What these return is some of the numbers that they are given.
PARTS = {
    "ReadVariableOp", "StridedSlice", "Split", "SplitV", "Unpack", "Pack", "Slice",
    "GatherV2", "ResourceGather", "ReverseV2", "Roll", "Tile", "BroadcastTo",
    "ConcatV2",
}  # fmt: skip
# What these return does not depend on the pixels.
SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}


def variables_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns a model's variables by attribute path.

    Those of a layer that another one hides are named as they are in that one.
    """
    found, known = {}, set()
    layers = {"": model, **named_layers(model)}
    for path, layer in layers.items():
        for variable in own_variables(layer):
            found[f"{path}.{variable.name}" if path else variable.name] = variable
            known.add(id(variable))
    for path, layer in reversed(layers.items()):
        for variable in layer.weights:
            if id(variable) not in known:
                known.add(id(variable))
                inner = ".".join(variable.path.split("/")[-2:])
                found[f"{path}.{inner}" if path else inner] = variable
    return found


class _KerasRecorder(Recorder):
    def __init__(self, model: keras.Model):
        super().__init__("keras", channels_last)
        self.path = [""]
        self.inside = 0  # of a layer that is one step
        self.refused: str | None = None  # why the model cannot be recorded
        self.leaves = leaf_layers(model)
        self.handles = {}
        for name, variable in variables_of(model).items():
            self.handles[id(variable._value.handle)] = name
            self.alive.append(variable._value.handle)

    def to_tensor(self, array: object) -> torch.Tensor:
        """Returns an array as float64; a complex number as two, on one axis more."""
        array = np.asarray(array)
        if np.iscomplexobj(array):
            array = np.stack([array.real, array.imag], -1)
        return super().to_tensor(array)

    def keep(self, array: object, number: int, listed: bool = True) -> None:
        super().keep(array, number, listed and not _is_complex(array))

    def view_like(self, number: int, array: object) -> View | None:
        return None if _is_complex(array) else super().view_like(number, array)

    def hear(self, kind, inputs, attributes, outputs, op_name=None, graph=None) -> None:
        """Is TensorFlow's callback: is told of every operation after it ran."""
        if self.inside or graph is not None or not outputs:
            return
        self.inside += 1  # what is computed here is not the model's
        try:
            kind = kind.decode() if isinstance(kind, bytes) else kind
            self._hear(kind, list(inputs), _attributes(attributes), list(outputs))
        finally:
            self.inside -= 1

    def _hear(self, kind: str, inputs: list, attributes: dict, outputs: list) -> None:
        known = [self.number_of(tensor) for tensor in inputs]
        if all(number is None for number in known) or kind in SHAPES:
            names = {self.handles.get(id(t), self.constants.get(id(t))) for t in inputs}
            names.discard(None)
            if kind not in SAME | RESHAPES | PARTS | SHAPES:
                word = " ".join(
                    [MERGES.get(kind, kind.lower()), *self._numbers(inputs)]
                )
                names = {computed(word, weight) for weight in names}
            for output in outputs:
                self.constants[id(output)] = names.pop() if len(names) == 1 else None
                self.alive.append(output)
            return
        numbers = [number for number in known if number is not None]
        path, is_layer = self.layer(numbers)
        if outputs[0].dtype in (tf.string, tf.resource, tf.variant):
            return
        function = kind.startswith("__") or "PartitionedCall" in kind
        held = any(tensor.dtype == tf.resource for tensor in inputs)
        if function and held and self.arrays is None:
            self.refused = (
                f"{path} of the Keras model runs a saved graph with weights inside, "
                "and what it does cannot be heard: give the model that was saved"
            )
            raise UsageError(self.refused)
        if kind in SAME and outputs[0].dtype.is_floating:
            self.keep(outputs[0], numbers[0], listed=kind != "StopGradient")
            return
        if kind == "IdentityN":  # of a function with a gradient of its own
            for given, made in zip(inputs, outputs, strict=True):
                if self.number_of(given) is not None:
                    self.keep(made, self.number_of(given))
            return
        whole = math.prod(inputs[0].shape) == math.prod(outputs[0].shape)
        if kind in RESHAPES or (kind == "StridedSlice" and whole):
            number = self.reshaped(numbers[0], outputs[0], path)
            if number is not None:
                self.graph.names[number] = self.graph.names[numbers[0]]
                return
        read = read_operation(self, kind, inputs, attributes, outputs)
        if read is None:
            for output in outputs:
                view = self.view_like(numbers[0], output)
                number = self.new_value(output, path, view)
                self.add(Step("opaque", path, kind, numbers, number, is_layer=is_layer))
            return
        self.take(kind, path, is_layer, None, *read, outputs[0])

    def _numbers(self, inputs: list) -> list[str]:
        """Returns the single numbers among the inputs that are no weights."""
        return [
            str(tensor.numpy().item())
            for tensor in inputs
            if id(tensor) not in self.handles
            and tensor.dtype.is_floating
            and not self.constants.get(id(tensor))
            and tensor.shape.num_elements() == 1
        ]

    def layer(self, inputs: list[int]) -> tuple[str, bool]:
        """Returns the name of a step's layer, and whether it is that layer's own."""
        path = self.path[-1]
        if path in self.leaves:
            return path, True
        return (self.graph.names[inputs[0]] if inputs else path or "model"), False

    def take(
        self, operation, path, is_layer, owner, kind, inputs, parameters, output
    ) -> None:
        """Adds the step that a reader has read."""
        inputs, view = self.viewed(kind, inputs, path, len(output.shape))
        number = self.new_value(output, path, view)
        weights = {
            key: self.constants[id(value)]
            for key, value in parameters.items()
            if isinstance(value, torch.Tensor) and self.constants.get(id(value))
        }
        self.add(
            Step(
                kind,
                path,
                operation,
                inputs,
                number,
                parameters,
                weights,
                is_layer=is_layer,
                owner=owner,
            )
        )

    def tensor(self, value: object, axes: tuple | None = None) -> torch.Tensor | None:
        """Returns a weight or constant as a tensor, and remembers its name."""
        if value is None:
            return None
        name = self.constants.get(id(value))
        if isinstance(value, keras.Variable):
            name = self.handles.get(id(value._value.handle))
            value = value._value
        tensor = self.to_tensor(value)
        if axes:
            tensor = tensor.permute(*axes).contiguous()
        return self.named(tensor, name)

    def run_layer(self, path: str, layer: keras.Layer, call, args, kwargs):
        """Runs a layer that is one step, and records it."""
        inputs = tensors_in((args, kwargs))
        numbers = [self.number_of(tensor) for tensor in inputs]
        self.inside += 1
        try:
            with _activation_of(layer) as activation:
                result = call(*args, **kwargs)
            outputs = tensors_in(result)
            numbers = [number for number in numbers if number is not None]
            if numbers and outputs:
                self._layer(path, layer, numbers, kwargs, outputs, activation)
        finally:
            self.inside -= 1
        return result

    def _layer(self, path, layer, numbers, kwargs, outputs, activation) -> None:
        output = outputs[0]
        operation = type(layer).__name__
        if isinstance(layer, keras.layers.Activation):
            operation = "activation"
        if len(outputs) == 1 and self.number_of(output) is not None:
            if hasattr(layer, "rate"):
                self.add_dropout(path, float(layer.rate), numbers[0])
            return  # handed on as it is
        before = activation.get("before", output)
        read = read_layer(self, layer, numbers, kwargs, before)
        if read == "reshape":
            if self.reshaped(numbers[0], output, path) is not None:
                return
            read = None
        if read is None:
            for other in outputs:
                view = self.view_like(numbers[0], other)
                number = self.new_value(other, path, view)
                self.add(Step("opaque", path, operation, numbers, number))
            return
        for kind, inputs, parameters, made in read:
            made = before if made is None else made
            inputs = self.numbers_of(numbers if inputs is None else inputs)
            self.take(operation, path, True, layer, kind, inputs, parameters, made)
        if "before" in activation:
            number = self.number_of(before)
            view = self.graph.views[number]
            kind, parameters = read_activation(activation["function"], view)
            if kind == "linear":
                self.keep(output, number)  # the same array, or a copy
            elif kind is None:
                out = self.new_value(output, path, view)
                self.add(Step("opaque", path, "activation", [number], out))
            else:
                name = parameters.get("function", kind)
                self.take(name, path, True, None, kind, [number], parameters, output)


def _is_complex(array: object) -> bool:
    return tf.is_tensor(array) and array.dtype.is_complex


@contextlib.contextmanager
def _activation_of(layer: keras.Layer) -> Iterator[dict]:
    """Notes what the activation inside a layer is given."""
    seen = {}
    own = vars(layer).get("activation")
    if own is None or isinstance(layer, keras.layers.Activation):
        yield seen
        return

    def noting(x, *args, **kwargs):
        seen["before"] = x
        return own(x, *args, **kwargs)

    seen["function"] = own
    object.__setattr__(layer, "activation", noting)
    try:
        yield seen
    finally:
        object.__setattr__(layer, "activation", own)
        if "before" not in seen:
            seen.clear()


def _attributes(flat: tuple) -> dict[str, object]:
    found = {}
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        key = key.decode() if isinstance(key, bytes) else key
        found[key] = (
            value.decode(errors="replace") if isinstance(value, bytes) else value
        )
    return found


def _is_one_step(layer: keras.Layer) -> bool:
    """Returns whether a layer is one of Keras's own, or ours, without others inside."""
    return (
        type(layer).__name__ in READERS_BY_NAME
        or any(
            kind.__module__.startswith(("keras.src.layers", "keras.layers"))
            and kind not in (keras.Layer, keras.layers.Lambda)
            and not kind.__module__.endswith("layers.layer")
            for kind in type(layer).__mro__
        )
        and not isinstance(layer, keras.Model | keras.layers.TorchModuleWrapper)
    )


def _augments(layer: keras.Layer) -> bool:
    """Returns whether a layer is one of Keras's that change images at random.

    They alone do so in a call without a flag for training, and not in `predict`.
    """
    kind = type(layer)
    if isinstance(layer, keras.layers.Pipeline):
        return True  # it hands the flag on
    return "image_preprocessing" in kind.__module__ and "training" in (
        inspect.signature(kind.call).parameters
    )


@contextlib.contextmanager
def _listening(model: keras.Model, recorder: _KerasRecorder) -> Iterator[None]:
    layers = named_layers(model)
    own = {path: vars(layer).get("call") for path, layer in layers.items()}

    def wrapped(path: str, layer: keras.Layer, one_step: bool):
        call = layer.call

        def run(*args, **kwargs):
            if _augments(layer):
                kwargs["training"] = False
            if recorder.inside:
                return call(*args, **kwargs)
            if one_step:
                return recorder.run_layer(path, layer, call, args, kwargs)
            recorder.path.append(path)
            result = call(*args, **kwargs)
            recorder.path.pop()
            return result

        return run

    try:
        for path, layer in layers.items():
            one_step = path in recorder.leaves and _is_one_step(layer)
            object.__setattr__(layer, "call", wrapped(path, layer, one_step))
        op_callbacks.add_op_callback(recorder.hear)
        yield
    finally:
        with contextlib.suppress(KeyError):
            op_callbacks.remove_op_callback(recorder.hear)
        for path, layer in layers.items():
            if "call" in vars(layer):
                object.__delattr__(layer, "call")
            if own[path] is not None:
                object.__setattr__(layer, "call", own[path])


@contextlib.contextmanager
def _eagerly(recorder: _KerasRecorder) -> Iterator[None]:
    """Runs what `tf.function` decorates step by step, so that its steps are heard.

    Not so functions of TensorFlow's own, some of which need a graph; nor Keras's where
    gradients are asked for, since a grouped convolution has none on a CPU otherwise.
    """
    kind = type(tf.function(lambda: None))
    original = kind.__call__
    libraries = ("tensorflow.", "keras.")[: 1 if recorder.arrays is None else 2]

    def call(function, *args, **kwargs):
        python = function.python_function
        module = getattr(python, "__module__", None) or ""
        if recorder.inside or module.startswith(libraries):
            return original(function, *args, **kwargs)
        return python(*args, **kwargs)

    kind.__call__ = call
    try:
        yield
    finally:
        kind.__call__ = original


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow from warning that it traces anew, which float64 needs."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _float64_lrn(recorder: _KerasRecorder) -> Iterator[None]:
    """Gives TensorFlow's local response normalisation, which has none, a float64."""
    original = tf.nn.local_response_normalization

    def lrn(input, depth_radius=5, bias=1, alpha=1, beta=0.5, name=None):
        if input.dtype != tf.float64:
            return original(input, depth_radius, bias, alpha, beta, name)
        parameters = {
            "size": 2 * depth_radius + 1,
            "alpha": float(alpha),
            "beta": float(beta),
            "k": float(bias),
        }
        number = recorder.number_of(input)
        recorder.inside += 1
        border = [(0, 0), (0, 0), (0, 0), (depth_radius, depth_radius)]
        squares = tf.pad(tf.square(input), border)
        channels = input.shape[-1]
        shifted = [squares[..., i : i + channels] for i in range(2 * depth_radius + 1)]
        output = input / (bias + alpha * tf.add_n(shifted)) ** beta
        recorder.inside -= 1
        if number is not None:
            path, is_layer = recorder.layer([number])
            recorder.take(
                "LRN", path, is_layer, None, "lrn", [number], parameters, output
            )
        return output

    tf.nn.local_response_normalization = tf.nn.lrn = lrn
    try:
        yield
    finally:
        tf.nn.local_response_normalization = tf.nn.lrn = original


def record(
    model: keras.Model,
    images: np.ndarray,
    arrays: dict[int, list[tf.Tensor]] | None = None,
    tape: tf.GradientTape | None = None,
) -> Graph:
    """Returns the steps of a Keras model, called without a flag for training.

    Args:
        model: in float64.
        images: float64 (N, H, W, C).
        arrays: is given TensorFlow's own array of each value.
        tape: watches the images.

    Raises:
        UsageError: the model cannot be called on these images, or returns no tensor.
    """
    for path, layer in named_layers(model).items():
        if isinstance(layer, keras.layers.TFSMLayer):
            raise UsageError(
                f"{path} of the Keras model is a TFSMLayer, a graph that was saved, "
                "and what it does cannot be heard: give the model that was saved"
            )
    recorder = _KerasRecorder(model)
    recorder.arrays = arrays
    tensor = tf.constant(images, tf.float64)
    if tape is not None:
        tape.watch(tensor)
    recorder.graph.inputs.append(recorder.new_value(tensor, "input"))
    try:
        with (
            _quiet(),
            _eagerly(recorder),
            _float64_lrn(recorder),
            _listening(model, recorder),
        ):
            outputs = model(tensor)  # a flag would overrule those inside the model
    except Exception as error:
        if recorder.refused:
            raise UsageError(recorder.refused) from None
        where = recorder.path[-1] or type(model).__name__
        raise uncallable("Keras", images, where, error) from None
    return finish(recorder, "Keras", outputs, tensors_in(outputs))

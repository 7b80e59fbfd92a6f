"""Calls the losses of both frameworks, in float64 where that is possible."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from parity.frameworks import keras, tf, torch
from parity.diagnosis.training.criterion import (
    Labels,
    Value,
    along,
    read_keras,
    read_torch,
)
from parity.precision import torch_as

Loss = Callable | str


def evaluate_keras(loss: Loss, outputs: np.ndarray, labels: Labels) -> Value:
    """Returns a Keras loss and its gradient by the outputs.

    Args:
        loss: called with labels and outputs, or its name; what it gives for each
            sample is averaged, as `compile` does, unless a reduction of None is asked.
        outputs: (N, ..., K).
        labels: for them.

    Raises:
        ValueError: the loss can't be called so.
    """
    errors = []
    for dtype in ("float64", "float32"):
        for form in keras_forms(loss, labels, dtype):
            leaf = tf.constant(outputs.astype(dtype))
            with warnings.catch_warnings(), keras_in(loss, dtype):
                warnings.simplefilter("ignore")
                try:
                    with tf.device("cpu"), tf.GradientTape() as tape:
                        tape.watch(leaf)
                        value = call_keras(loss, form, leaf)
                    gradient = tape.gradient(value, leaf)
                    if gradient is None:
                        raise ValueError("it has no gradient by the outputs")
                except Exception as error:  # whatever a loss of one's own raises
                    errors.append(error)
                    continue
            gradient = along(np.asarray(gradient, np.float64), outputs)
            return Value(float(value), gradient, dtype == "float64", "keras")
    raise _uncallable("Keras", loss, outputs, errors)


def keras_forms(loss: Loss, labels: Labels, dtype: str) -> list[np.ndarray]:
    """Returns the forms of labels that a Keras loss may want, the likeliest first."""
    forms = [labels.given, labels.classes, labels.targets]
    if read_keras(loss):
        sparse = keras.losses.sparse_categorical_crossentropy
        called = _called(loss)
        kind = keras.losses.SparseCategoricalCrossentropy
        is_sparse = called is sparse or isinstance(called, kind)
        forms = [labels.classes if is_sparse else labels.targets]
    return [
        form.astype(dtype) if form.dtype.kind == "f" else form
        for form in forms
        if form is not None
    ]


def call_keras(loss: Loss, labels: np.ndarray, outputs: tf.Tensor) -> tf.Tensor:
    """Returns the sum of what a Keras loss gives, of a function's the mean."""
    called = _called(loss)
    value = tf.convert_to_tensor(called(labels, outputs))
    if value.shape.rank and not isinstance(called, keras.losses.Loss):
        value = tf.reduce_mean(value)
    return tf.reduce_sum(value)


def _called(loss: Loss) -> Callable:
    return keras.losses.get(loss) if isinstance(loss, str) else loss


@contextlib.contextmanager
def keras_in(loss: object, dtype: str) -> Iterator[None]:
    """Lets a Keras loss compute in a type, which it has chosen when it was made."""
    floatx, old = keras.config.floatx(), None
    is_loss = isinstance(loss, keras.losses.Loss)
    try:
        keras.config.set_floatx(dtype)
        if is_loss:
            old, loss._dtype = loss._dtype, dtype
        yield
    finally:
        keras.config.set_floatx(floatx)
        if is_loss:
            loss._dtype = old


def evaluate_torch(loss: Loss, outputs: np.ndarray, labels: Labels) -> Value:
    """Returns a PyTorch loss and its gradient by the outputs.

    Args:
        loss: called with outputs and labels.
        outputs: (N, ..., K); given to the loss as (N, K, ...).
        labels: for them.

    Raises:
        ValueError: the loss can't be called so.
    """
    errors = []
    for dtype in ("float64", "float32"):
        for target in torch_forms(loss, labels, outputs, dtype):
            with warnings.catch_warnings(), _torch_in(loss, dtype):
                warnings.simplefilter("ignore")
                try:
                    total, gradient = _call_torch(loss, outputs, target, dtype)
                except Exception as error:  # whatever a loss of one's own raises
                    errors.append(error)
                    continue
            exact = dtype == "float64"
            return Value(total, along(gradient, outputs), exact, "torch")
    raise _uncallable("PyTorch", loss, outputs, errors)


def torch_forms(
    loss: Loss, labels: Labels, outputs: np.ndarray, dtype: str
) -> list[torch.Tensor]:
    """Returns the forms of labels that a PyTorch loss may want, the likeliest first."""
    forms = [labels.given, labels.classes, labels.targets]
    known = read_torch(loss)
    if known and known.kind != "cross-entropy":
        forms = [labels.targets]
    tensors = [
        torch.tensor(_channels_first(x, outputs)) for x in forms if x is not None
    ]
    return [
        x.to(getattr(torch, dtype)) if x.is_floating_point() else x.long()
        for x in tensors
    ]


def _channels_first(array: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    is_map = outputs.ndim > 2 and array.ndim == outputs.ndim
    return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if is_map else array


def _call_torch(loss: Callable, outputs: np.ndarray, target, dtype: str):
    array = _channels_first(outputs, outputs)
    leaf = torch.tensor(array, dtype=getattr(torch, dtype), requires_grad=True)
    with torch.enable_grad():
        value = loss(leaf, target).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
    gradient = gradient.double().numpy()
    if outputs.ndim > 2:
        gradient = np.moveaxis(gradient, 1, -1)
    return float(value.detach()), gradient


@contextlib.contextmanager
def _torch_in(loss: object, dtype: str) -> Iterator[None]:
    """Turns the class weights of a loss into a type."""
    if isinstance(loss, torch.nn.Module):
        with torch_as(loss, dtype, "cpu"):
            yield
    else:
        yield


def _uncallable(side: str, loss: object, outputs: np.ndarray, errors: list):
    name = getattr(loss, "__name__", type(loss).__name__)
    line = " ".join(str(errors[0] if errors else "no labels of its form").split())
    return ValueError(
        f"the {side} loss {name} can't be called with outputs of shape "
        f"{outputs.shape}: {line[:300]}"
    )

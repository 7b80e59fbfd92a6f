"""Functions of Keras's tensors, and layers that Keras has not."""

from collections.abc import Callable
from typing import Any

import numpy as np

from parity.frameworks import keras, tf
from parity.faults.spec import Node

layers, ops = keras.layers, keras.ops


class LocalResponseNorm(layers.Layer):
    """Divides by (k + alpha * sum of squares over `size` channels) ** beta."""

    def __init__(self, size, alpha, beta, k, **kwargs):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, x):
        """Normalises images (N, H, W, C)."""
        radius, count = self.size // 2, x.shape[-1]
        squares = ops.pad(ops.square(x), [(0, 0)] * 3 + [(radius, radius)])
        total = sum(squares[..., i : i + count] for i in range(self.size))
        return x / (self.k + self.alpha * total) ** self.beta


class TensorFlowLRN(LocalResponseNorm):
    """The same by TensorFlow's operation, which knows no float64."""

    def call(self, x):
        """Normalises images (N, H, W, C)."""
        radius = self.size // 2
        return tf.nn.local_response_normalization(
            x, radius, bias=self.k, alpha=self.alpha, beta=self.beta
        )


class MonteCarloDropout(layers.Dropout):
    """Dropout that is at work in inference too."""

    def call(self, inputs, training=None):
        """Returns inputs of which some elements are 0."""
        return super().call(inputs, training=True)


class Bilinear(layers.Layer):
    """Resizes by products with matrices, which round to no float32."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x):
        """Resizes images (N, H, W, C)."""
        rows, columns = (
            ops.convert_to_tensor(_bilinear(length, size), x.dtype)
            for length, size in zip(x.shape[1:3], self.size, strict=True)
        )
        return ops.einsum("ph,nhwc,qw->npqc", rows, x, columns)


def _bilinear(length: int, size: int) -> np.ndarray:
    """Returns the matrix (size, length) of pixel centres between pixel centres."""
    places = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    low = np.floor(places).astype(int)
    weights = np.zeros((size, length))
    weights[np.arange(size), low] += 1 - (places - low)
    weights[np.arange(size), np.minimum(low + 1, length - 1)] += places - low
    return weights


def function_of(item: Node) -> Callable:
    """Returns the function of an activation."""
    functions = {
        "relu": ops.relu,
        "relu6": ops.relu6,
        "elu": ops.elu,
        "gelu": lambda x: ops.gelu(x, approximate=False),
        "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
        "gelu_by_hand": lambda x: x * (1 + ops.erf(x / np.sqrt(2))) / 2,
        "silu": ops.silu,
        "silu_by_hand": lambda x: x * ops.sigmoid(x),
        "hard_swish": ops.hard_silu,
        "hard_swish_by_hand": lambda x: x * ops.relu6(x + 3) / 6,
        "sigmoid": ops.sigmoid,
        "tanh": ops.tanh,
        "softplus": ops.softplus,
        "relu_by_hand": lambda x: ops.maximum(x, 0),
        "relu6_by_hand": lambda x: ops.clip(x, 0, 6),
        "sigmoid_by_hand": lambda x: 1 / (1 + ops.exp(-x)),
        "tanh_by_hand": lambda x: 2 * ops.sigmoid(2 * x) - 1,
        "elu_by_hand": lambda x: ops.where(x > 0, x, ops.expm1(ops.minimum(x, 0))),
        "leaky_by_hand": lambda x: ops.maximum(x, item["slope"] * x),
    }
    name = item["function"]
    if name == "leaky_relu":
        return lambda x: ops.leaky_relu(x, item["slope"])
    if name == "elu":
        return lambda x: ops.elu(x, item.get("alpha", 1.0))
    if name == "softmax":
        return lambda x: ops.softmax(x, keras_axis(item, x))
    if name == "softmax_by_hand":
        return _softmax_by_hand
    return functions[name]


def keras_axis(item: Node, x: Any) -> int:
    """Returns the channels' axis, or that of the height or of the images."""
    return {"channels": -1, "height": 1, "images": 0}[item.get("axis", "channels")]


def _softmax_by_hand(x):
    x = ops.exp(x - ops.max(x, -1, keepdims=True))
    return x / ops.sum(x, -1, keepdims=True)


STRINGS = {
    name: name
    for name in ("relu", "relu6", "elu", "silu", "sigmoid", "tanh", "softplus", "gelu")
} | {"hard_swish": "hard_silu"}


def activation_argument(item: Node) -> object:
    """Returns what a layer takes as its activation."""
    if item["function"] in STRINGS and not item.get("alpha"):
        return STRINGS[item["function"]]
    return function_of(item)

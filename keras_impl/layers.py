"""What Keras lacks or defines differently from the papers."""

import contextlib
import inspect
import random
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops

from parity.spec.padding import ceil_padding


class Model(keras.Model):
    """A model whose configuration holds the arguments that it was made with.

    Keras 3.15 keeps the defaults of a subclass's arguments instead, so that a saved
    model of another number of classes does not load.
    """

    def __new__(cls, *args, **kwargs):
        """Keeps the arguments."""
        instance = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls.__init__).bind(instance, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        arguments |= arguments.pop("kwargs", {})
        arguments.pop("name", None)
        object.__setattr__(instance, "_arguments", arguments)
        return instance

    def get_config(self):
        """Returns the arguments of the class."""
        return {**super().get_config(), **self._arguments}


class LocalResponseNorm(keras.layers.Layer):
    """Divides by (k + alpha * sum of squares over `size` channels) ** beta.

    Keras has no such layer, and TensorFlow's operation knows no float64.
    Source: Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3.
    """

    def __init__(self, size=5, alpha: float = 1e-4, beta=0.75, k=2.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, images):
        """Normalises images (N, H, W, C) over neighbouring channels."""
        before, channels = self.size // 2, images.shape[-1]
        widths = [(0, 0), (0, 0), (0, 0), (before, self.size - 1 - before)]
        squares = ops.pad(ops.square(images), widths)
        total = sum(squares[..., i : i + channels] for i in range(self.size))
        scale = ops.convert_to_tensor(self.alpha, images.dtype)
        power = ops.convert_to_tensor(self.beta, images.dtype)
        return images / ops.power(self.k + scale * total, power)


class Conv2D(keras.layers.Conv2D):
    """A convolution padded with `padding` pixels of 0 on every side.

    Keras knows "valid" and "same" only, and "same" with a stride puts the odd pixel
    behind the image.
    """

    def __init__(self, filters: int, kernel_size, strides=1, padding=0, **kwargs):
        super().__init__(filters, kernel_size, strides, "valid", **kwargs)
        self.pixels = padding

    def call(self, images):
        """Convolves images (N, H, W, C)."""
        return super().call(pad(images, self.pixels, 0.0))

    def get_config(self):
        """Returns the arguments of the class."""
        return {**super().get_config(), "padding": self.pixels}

    def compute_output_shape(self, input_shape):
        """Returns (N, H, W, filters)."""
        count, height, width, channels = input_shape
        padded = (count, height + 2 * self.pixels, width + 2 * self.pixels, channels)
        return super().compute_output_shape(padded)


class MaxPooling2D(keras.layers.Layer):
    """Max-pooling padded with `padding` pixels of -inf on every side.

    With ceil_mode a last window that is cut off by the border counts too. Keras knows
    "valid" and "same" only.
    """

    def __init__(
        self, pool_size: int, strides=None, padding=0, ceil_mode=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.pool_size, self.strides = pool_size, strides or pool_size
        self.padding, self.ceil_mode = padding, ceil_mode

    def call(self, images):
        """Pools images (N, H, W, C)."""
        behind = (0, 0)
        if self.ceil_mode:
            behind = [
                ceil_padding(size, self.pool_size, self.strides, self.padding)
                for size in images.shape[1:3]
            ]
        images = pad(images, self.padding, -float("inf"), behind)
        return ops.max_pool(images, self.pool_size, self.strides, "valid")


class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Averages images (N, H, W, C) to (N, size, size, C), smaller ones too.

    Output i is the mean of the pixels from floor(i * H / size) to
    ceil((i + 1) * H / size), along the width alike. Keras's own layer fails in
    TensorFlow's graphs on an image of one row or column.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, images):
        """Returns the means."""
        rows, columns = (
            ops.convert_to_tensor(self._weights(length), images.dtype)
            for length in images.shape[1:3]
        )
        return ops.einsum("ph,nhwc,qw->npqc", rows, images, columns)

    def _weights(self, length: int) -> np.ndarray:
        weights = np.zeros((self.size, length))
        for index, row in enumerate(weights):
            start, stop = index * length // self.size, (index + 1) * length
            row[start : -(-stop // self.size)] = 1
        return weights / weights.sum(1, keepdims=True)


def pad(images, pixels: int, value: float, behind: Iterable[int] = (0, 0)):
    """Returns images (N, H, W, C) with a border, and more of it below and right."""
    bottom, right = behind
    if not (pixels or bottom or right):
        return images
    border = [(0, 0), (pixels, pixels + bottom), (pixels, pixels + right), (0, 0)]
    return ops.pad(images, border, constant_values=value)


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation whose running variance is the unbiased one.

    Keras averages the biased variances of the batches. Epsilon and momentum are
    PyTorch's (whose momentum is 1 minus this one's).
    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167,
    algorithm 2, step 10.
    """

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.9, **kwargs):
        super().__init__(epsilon=epsilon, momentum=momentum, **kwargs)

    def call(self, inputs, training=None, mask=None):
        """Normalises, and in training updates the running statistics."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        before = self.momentum * ops.convert_to_tensor(self.moving_variance)
        outputs = super().call(inputs, training=training, mask=mask)
        count = ops.size(inputs) / ops.shape(inputs)[self.axis]
        unbiased = ops.cast(count / (count - 1), self.moving_variance.dtype)
        added = self.moving_variance - before
        self.moving_variance.assign(before + added * unbiased)
        return outputs


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Makes the initialisers created inside draw from a seed; None changes nothing.

    Keras gives each initialiser a seed from Python's generator, which is put back.
    """
    state = random.getstate()
    try:
        if seed is not None:
            random.seed(seed)
        yield
    finally:
        if seed is not None:
            random.setstate(state)

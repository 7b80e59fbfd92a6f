"""What Keras lacks or defines differently from the papers."""

import contextlib
import inspect
import random
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops

from parity.spec.padding import ceil_padding

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


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

    Keras has no such layer, and TensorFlow's operation knows no float64. 16 bits would
    lose the sum: it is computed in float32.
    Source: Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3.
    """

    def __init__(self, size=5, alpha: float = 1e-4, beta=0.75, k=2.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, images):
        """Normalises images (N, H, W, C) over neighbouring channels."""
        x = _at_least_float32(images)
        channels = np.arange(images.shape[-1])
        distance = channels[:, None] - channels + self.size // 2
        window = self.alpha * ((distance >= 0) & (distance < self.size))
        total = ops.matmul(ops.square(x), ops.convert_to_tensor(window, x.dtype))
        # A power and its gradient take several times as long.
        x = x * ops.exp(-self.beta * ops.log(self.k + total))
        return ops.cast(x, images.dtype)


class Conv2D(keras.layers.Conv2D):
    """A convolution padded with `padding` pixels of 0 on every side.

    Keras knows "valid" and "same" only, and "same" with a stride puts the odd pixel
    behind the image.
    """

    def __init__(self, filters: int, kernel_size, strides=1, padding=0, **kwargs):
        super().__init__(filters, kernel_size, strides, "valid", **kwargs)
        self.pixels = self.border = padding
        sizes = zip(self.kernel_size, self.dilation_rate, self.strides, strict=True)
        if all((k - 1) * d == 2 * padding and s == 1 for k, d, s in sizes):
            self.padding, self.border = "same", 0  # without a padded copy

    def call(self, images):
        """Convolves images (N, H, W, C)."""
        return super().call(pad(images, self.border, 0.0))

    def convolution_op(self, inputs, kernel):
        """Convolves group by group in TensorFlow, where Keras would have XLA do it.

        On the CPU that takes several times as long.
        """
        convolve = super().convolution_op
        if self.groups == 1 or keras.backend.backend() != "tensorflow":
            return convolve(inputs, kernel)
        groups = (ops.split(x, self.groups, -1) for x in (inputs, kernel))
        return ops.concatenate([convolve(*x) for x in zip(*groups, strict=True)], -1)

    def get_config(self):
        """Returns the arguments of the class."""
        return {**super().get_config(), "padding": self.pixels}

    def compute_output_shape(self, input_shape):
        """Returns (N, H, W, filters)."""
        count, height, width, channels = input_shape
        padded = (count, height + 2 * self.border, width + 2 * self.border, channels)
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
        x = _at_least_float32(images)
        rows, columns = (
            ops.convert_to_tensor(self._weights(length), x.dtype)
            for length in images.shape[1:3]
        )
        return ops.cast(ops.einsum("ph,nhwc,qw->npqc", rows, x, columns), images.dtype)

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


def _at_least_float32(tensor):
    """Returns a tensor of 16 bits in float32, any other as it is."""
    return ops.cast(tensor, keras.backend.result_type(tensor.dtype, "float32"))


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
        if mask is None and self._has_kernel(inputs):
            return self._call_kernel(inputs)
        dtype = self.moving_variance.dtype
        before = self.momentum * ops.convert_to_tensor(self.moving_variance)
        outputs = super().call(inputs, training=training, mask=mask)
        count = ops.cast(ops.size(inputs), dtype) / inputs.shape[self.axis]
        if self.synchronized and (replica := tf.distribute.get_replica_context()):
            count = replica.all_reduce("sum", count)
        added = self.moving_variance - before
        self.moving_variance.assign(before + added * (count / (count - 1)))
        return outputs

    def _has_kernel(self, inputs) -> bool:
        """Returns whether TensorFlow's kernel knows how; Keras's own never uses it."""
        return (
            keras.backend.backend() == "tensorflow"
            and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
            and self.moving_mean.dtype == "float32"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not (self.renorm or self.synchronized)
        )

    def _call_kernel(self, inputs):
        """Does all in one pass; statistics are in float32, the variance unbiased."""
        channels = inputs.shape[-1]
        empty = tf.zeros(0)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.ones(channels) if self.gamma is None else self.gamma,
            offset=tf.zeros(channels) if self.beta is None else self.beta,
            mean=empty,
            variance=empty,
            epsilon=self.epsilon,
            is_training=True,
        )
        # Of one value per channel the kernel says 0.
        variance = tf.where(tf.size(inputs) > channels, variance, np.nan)
        kept, new = self.momentum, 1 - self.momentum
        self.moving_mean.assign(self.moving_mean * kept + mean * new)
        self.moving_variance.assign(self.moving_variance * kept + variance * new)
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

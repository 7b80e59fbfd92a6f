"""What Keras lacks or defines differently from the papers."""

import contextlib
import random
from collections.abc import Iterator

import keras
from keras import ops


def he_normal() -> keras.Initializer:
    """Returns He et al.'s initialiser: a normal distribution, not cut off.

    Keras's own `he_normal` cuts the distribution off at two standard deviations.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


def glorot_uniform() -> keras.Initializer:
    """Returns Glorot & Bengio's initialiser: uniform within sqrt(6 / (in + out))."""
    return keras.initializers.GlorotUniform()


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

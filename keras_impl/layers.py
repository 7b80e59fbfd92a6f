"""What Keras lacks or defines differently from the papers."""

import contextlib
import random
from collections.abc import Iterator

import keras


def he_normal() -> keras.Initializer:
    """Returns He et al.'s initialiser: a normal distribution, not cut off.

    Keras's own `he_normal` cuts the distribution off at two standard deviations.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


def glorot_uniform() -> keras.Initializer:
    """Returns Glorot & Bengio's initialiser: uniform within sqrt(6 / (in + out))."""
    return keras.initializers.GlorotUniform()


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

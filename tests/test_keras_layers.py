"""The Keras side's own layers can be made again from their configuration."""

import numpy as np
import pytest

from keras_impl import layers


@pytest.mark.parametrize(
    "layer",
    [
        layers.LocalResponseNorm(size=3, alpha=0.1),
        layers.Conv2D(4, 3, strides=2, padding=2),
        layers.MaxPooling2D(3, strides=2, padding=1, ceil_mode=True),
        layers.AdaptiveAveragePooling2D(3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_from_its_configuration(layer):
    again = type(layer).from_config(layer.get_config())
    images = np.random.default_rng(0).standard_normal((2, 7, 8, 5)).astype(np.float32)
    expected = layer(images)
    again(images)
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(images), expected)

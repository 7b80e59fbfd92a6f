"""The Keras side's own classes can be made again from their configuration."""

import keras
import numpy as np
import pytest

from keras_impl import initializers, layers, optim
from parity.spec import recipes


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


INITIALIZERS = [
    name
    for name in vars(initializers)
    if name[0] != "_" and name.endswith(("_uniform", "_normal"))
]


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_model_with_our_initialiser_and_optimizer_is_saved_and_loaded(name, tmp_path):
    initializer = getattr(initializers, name)()
    layer = keras.layers.Dense(3, kernel_initializer=initializer)
    model = keras.Sequential([keras.Input((4,)), layer])
    assert keras.models.clone_model(model).count_params() == model.count_params()
    model.compile(optim.adam(weight_decay=0.01), "mse")
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    assert loaded.layers[0].kernel_initializer.get_config() == initializer.get_config()
    assert loaded.optimizer.l2 == 0.01


@pytest.mark.parametrize("name", recipes.OPTIMIZERS)
def test_an_optimizer_from_its_configuration(name):
    optimizer = optim.create_optimizer(name, 0.1, weight_decay=0.3, clip_norm=2.0)
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()

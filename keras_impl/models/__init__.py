"""The registry of models, and how one is built."""

import keras

from keras_impl.layers import seeded
from keras_impl.models import lenet
from parity.spec.recipes import Shape

MODELS = {
    "lenet5": lenet.LeNet5,
    "lenet5_1998": lenet.LeNet51998,
}

# Lets keras.models.load_model find the classes of a .keras file.
for model_class in MODELS.values():
    keras.saving.register_keras_serializable("cnn_parity")(model_class)


def build(name: str, shape: Shape, seed: int | None) -> keras.Model:
    """Returns a model whose weights exist."""
    with seeded(seed):
        model = MODELS[name](num_classes=shape.num_classes, name=name)
        model(keras.Input((shape.height, shape.width, shape.in_channels)))
    return model

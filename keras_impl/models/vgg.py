"""VGG, with batch normalisation too, and with convolutions for dense layers.

Paper: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1; the dense layers as convolutions
(VGGConv): section 3.2.
Departures from the paper: the names and the adaptive pooling, which lets other sizes
than 224 through, are torchvision's, and so are the variants with batch normalisation,
which the paper does not know. Weights start from He's distribution.
"""

import keras
from keras import layers, ops

from keras_impl.initializers import he_normal
from keras_impl.layers import AdaptiveAveragePooling2D, BatchNormalization, Model

# Table 1: channels of each 3x3 convolution, "M" for max-pooling.
CONFIGURATIONS = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


class VGG(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 1000,
        configuration: str = "D",
        batch_norm: bool = False,
        hidden_units: int = 4096,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.features = make_features(configuration, batch_norm)
        self.avgpool = AdaptiveAveragePooling2D(7)
        self.flatten = layers.Flatten()
        self.classifier = keras.Sequential(
            [
                layers.Dense(hidden_units, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dropout(0.5),
                layers.Dense(hidden_units, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dropout(0.5),
                layers.Dense(num_classes, kernel_initializer=he_normal()),
            ]
        )

    def call(self, images):
        """Returns the logits."""
        x = self.avgpool(self.features(images))  # (N, 7, 7, 512)
        return self.classifier(self.flatten(x))  # (N, num_classes)


class VGGConv(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes).

    Larger images give a map of logits (N, H // 32 - 6, W // 32 - 6, num_classes).
    Made for smaller images, its head's first kernel is as small as their map.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size=(224, 224),
        configuration: str = "D",
        hidden_units: int = 4096,
        **kwargs,
    ):
        super().__init__(**kwargs)
        kernel_size = tuple(min(7, size // 32) for size in image_size)
        self.features = make_features(configuration, False)
        self.classifier = keras.Sequential(
            [
                layers.Conv2D(
                    hidden_units, kernel_size, kernel_initializer=he_normal()
                ),
                layers.ReLU(),
                layers.Dropout(0.5),
                layers.Conv2D(hidden_units, 1, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dropout(0.5),
                layers.Conv2D(num_classes, 1, kernel_initializer=he_normal()),
            ]
        )

    def call(self, images):
        """Returns the logits, one set or a map of them."""
        x = self.classifier(self.features(images))  # (N, 1, 1, num_classes)
        return ops.squeeze(x, (1, 2)) if x.shape[1:3] == (1, 1) else x


def make_features(configuration: str, batch_norm: bool):
    """Returns the convolutional part of a row of table 1."""
    stack = []
    for item in CONFIGURATIONS[configuration].split():
        if item == "M":
            stack.append(layers.MaxPooling2D(2))
            continue
        stack.append(
            layers.Conv2D(int(item), 3, padding="same", kernel_initializer=he_normal())
        )
        if batch_norm:
            stack.append(BatchNormalization())
        stack.append(layers.ReLU())
    return keras.Sequential(stack)

"""Four small CNNs of the lectures.

Paper: none; lecture notes in Korean, in this order: "What is a convolution?" (the
configurable network with dropout), "Lab 10: MNIST CNN" (two layers), "CNN and MNIST"
(the padded pooling, with its table of layers), "Convolutional networks (1)" (zeros
against ones).
Departures from the paper: CNNTwoLayer's convolutions start from Glorot's distribution
like its dense layer, CNNPaddedPool and CNNBinary from He's, where the notes keep
PyTorch's own. CNNBinary returns the logit: its sigmoid is part of the binary
cross-entropy and of the prediction, which loses no digits. 'same' padding is 'same' for
even kernels too.
"""

import keras
from keras import layers

from keras_impl.initializers import glorot_uniform, he_normal
from keras_impl.layers import BatchNormalization, MaxPooling2D, Model


class CNNDropout(Model):
    """Maps images (N, 28, 28, 1) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 10,
        ksize: int = 3,
        cdims: tuple[int, ...] = (32, 64),
        hdims: tuple[int, ...] = (32,),
        use_batchnorm: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        stack = []
        for cdim in cdims:
            stack.append(
                layers.Conv2D(
                    cdim, ksize, padding="same", kernel_initializer=he_normal()
                )
            )
            if use_batchnorm:
                stack.append(BatchNormalization())
            stack += [
                layers.ReLU(),
                layers.MaxPooling2D(2),
                layers.SpatialDropout2D(0.5),
            ]
        stack.append(layers.Flatten())
        for hdim in hdims:
            stack += [
                layers.Dense(hdim, kernel_initializer=he_normal()),
                layers.ReLU(),
            ]
        stack.append(layers.Dense(num_classes, kernel_initializer=he_normal()))
        self.net = keras.Sequential(stack)

    def call(self, images):
        """Returns the logits."""
        return self.net(images)


class CNNTwoLayer(Model):
    """Maps images (N, 28, 28, 1) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.layer1 = keras.Sequential(
            [
                layers.Conv2D(
                    32, 3, padding="same", kernel_initializer=glorot_uniform()
                ),
                layers.ReLU(),
                layers.MaxPooling2D(2),
            ]
        )
        self.layer2 = keras.Sequential(
            [
                layers.Conv2D(
                    64, 3, padding="same", kernel_initializer=glorot_uniform()
                ),
                layers.ReLU(),
                layers.MaxPooling2D(2),
            ]
        )
        self.flatten = layers.Flatten()
        self.fc = layers.Dense(num_classes, kernel_initializer=glorot_uniform())

    def call(self, images):
        """Returns the logits."""
        x = self.layer1(images)  # (N, 14, 14, 32)
        x = self.layer2(x)  # (N, 7, 7, 64)
        return self.fc(self.flatten(x))  # (N, num_classes)


class CNNPaddedPool(Model):
    """Maps images (N, 28, 28, 1) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = keras.Sequential(
            [
                layers.Conv2D(16, 3, kernel_initializer=he_normal()),
                layers.ReLU(),
                MaxPooling2D(2, padding=1),
            ]
        )
        self.conv2 = keras.Sequential(
            [
                layers.Conv2D(32, 3, kernel_initializer=he_normal()),
                layers.ReLU(),
                MaxPooling2D(2, padding=1),
            ]
        )
        self.classifier = keras.Sequential(
            [
                layers.Flatten(),
                layers.Dense(32, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dropout(0.3),
                layers.Dense(num_classes, kernel_initializer=he_normal()),
            ]
        )

    def call(self, images):
        """Returns the logits."""
        x = self.conv1(images)  # (N, 14, 14, 16)
        x = self.conv2(x)  # (N, 7, 7, 32)
        return self.classifier(x)  # (N, num_classes)


class CNNBinary(Model):
    """Maps images (N, 28, 28, 1) to the logit (N, 1) of the second class."""

    def __init__(self, num_classes: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(16, 5, kernel_initializer=he_normal())
        self.relu = layers.ReLU()
        self.pool = layers.MaxPooling2D(2)
        self.flatten = layers.Flatten()
        self.fc = layers.Dense(num_classes, kernel_initializer=he_normal())

    def call(self, images):
        """Returns the logit."""
        x = self.pool(self.relu(self.conv(images)))  # (N, 12, 12, 16)
        return self.fc(self.flatten(x))  # (N, 1)

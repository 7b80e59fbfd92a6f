"""The three building blocks that the lecture makes a CNN of.

Paper: none; lecture notes in Korean, "Convolution Neural Networks (CNN)", sections on
convolution, pooling and the fully connected layer.
Departures from the paper: none; `num_classes` is the number of the block's outputs. The
dense block's vector is an image of one pixel.
"""

from keras import layers, ops

from keras_impl.initializers import he_normal
from keras_impl.layers import Model


class BlockConv(Model):
    """Maps images (N, 32, 32, 3) to feature maps (N, 30, 30, num_classes)."""

    def __init__(self, num_classes: int = 32, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(
            num_classes, 3, kernel_initializer=he_normal("fan_out")
        )

    def call(self, images):
        """Returns the feature maps."""
        return ops.relu(self.conv(images))


class BlockConvPool(Model):
    """Maps images (N, 32, 32, 3) to feature maps (N, 15, 15, num_classes)."""

    def __init__(self, num_classes: int = 32, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(
            num_classes, 3, kernel_initializer=he_normal("fan_out")
        )
        self.pool = layers.MaxPooling2D(2)

    def call(self, images):
        """Returns the feature maps."""
        return self.pool(ops.relu(self.conv(images)))


class BlockDense(Model):
    """Maps vectors (N, 1, 1, 32) or (N, 32) to features (N, num_classes)."""

    def __init__(self, num_classes: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.fc = layers.Dense(num_classes, kernel_initializer=he_normal("fan_out"))

    def call(self, vectors):
        """Returns the features."""
        return ops.relu(self.fc(self.flatten(vectors)))

"""GoogLeNet, as the paper has it and as torchvision has it.

Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842,
table 1 and figure 3; the auxiliary heads: section 5.
Departures from the paper: in training, forward returns the auxiliary heads' logits too;
the training adds their losses times 0.3. The paper does not give the constants of its
local response normalisation: they are AlexNet's. A map that is smaller than the
auxiliary heads' 5x5 window is averaged whole. Weights start from He's distribution.
With batch_norm the network is torchvision's, names and all: batch normalisation
(epsilon 1e-3) for local response normalisation, a 3x3 convolution where the table says
5x5, 2x2 for the last max-pooling, an adaptive pooling to 4x4 in the auxiliary heads,
and dropout of 0.2 for 0.4.
"""

import keras
from keras import layers, ops

from keras_impl.initializers import he_normal
from keras_impl.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Conv2D,
    LocalResponseNorm,
    MaxPooling2D,
    Model,
)

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class BasicConv2d(layers.Layer):
    """A convolution, batch normalisation or none, and ReLU."""

    def __init__(self, width: int, kernel_size: int, batch_norm: bool, stride: int = 1):
        super().__init__()
        self.conv = Conv2D(
            width,
            kernel_size,
            stride,
            kernel_size // 2,
            use_bias=not batch_norm,
            kernel_initializer=he_normal(),
        )
        self.bn = BatchNormalization(epsilon=1e-3) if batch_norm else None

    def call(self, images):
        """Returns the feature maps."""
        x = self.conv(images)
        return ops.relu(self.bn(x) if self.bn else x)


class Inception(layers.Layer):
    """Four branches, concatenated: (N, H, W, C) to (N, H, W, C')."""

    def __init__(self, widths: tuple[int, ...], batch_norm: bool):
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        size = 3 if batch_norm else 5
        self.branch1 = BasicConv2d(one, 1, batch_norm)
        self.branch2 = keras.Sequential(
            [
                BasicConv2d(reduce3, 1, batch_norm),
                BasicConv2d(three, 3, batch_norm),
            ]
        )
        self.branch3 = keras.Sequential(
            [
                BasicConv2d(reduce5, 1, batch_norm),
                BasicConv2d(five, size, batch_norm),
            ]
        )
        self.branch4 = keras.Sequential(
            [
                MaxPooling2D(3, strides=1, padding=1),
                BasicConv2d(projection, 1, batch_norm),
            ]
        )

    def call(self, images):
        """Returns the feature maps."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return ops.concatenate([branch(images) for branch in branches], -1)


class Auxiliary(layers.Layer):
    """Maps feature maps (N, 14, 14, C) to logits (N, num_classes)."""

    def __init__(self, num_classes: int, batch_norm: bool):
        super().__init__()
        self.pool = AdaptiveAveragePooling2D(4) if batch_norm else None
        self.conv = BasicConv2d(128, 1, batch_norm)
        self.flatten = layers.Flatten()
        self.fc1 = layers.Dense(1024, kernel_initializer=he_normal())
        self.dropout = layers.Dropout(0.7)
        self.fc2 = layers.Dense(num_classes, kernel_initializer=he_normal())

    def call(self, images):
        """Returns the logits."""
        if self.pool:
            x = self.pool(images)  # (N, 4, 4, C)
        else:
            window = tuple(min(5, size) for size in images.shape[1:3])
            x = ops.average_pool(images, window, 3)  # (N, 4, 4, C)
        x = self.flatten(self.conv(x))  # (N, 2048)
        x = self.dropout(ops.relu(self.fc1(x)))  # (N, 1024)
        return self.fc2(x)  # (N, num_classes)


class GoogLeNet(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes).

    In training: to three times logits, the second and third of the auxiliary heads.
    """

    def __init__(self, num_classes: int = 1000, batch_norm: bool = False, **kwargs):
        super().__init__(**kwargs)
        pool4 = 2 if batch_norm else 3
        self.conv1 = BasicConv2d(64, 7, batch_norm, stride=2)
        self.maxpool1 = MaxPooling2D(3, strides=2, ceil_mode=True)
        self.norm1 = layers.Identity() if batch_norm else LocalResponseNorm()
        self.conv2 = BasicConv2d(64, 1, batch_norm)
        self.conv3 = BasicConv2d(192, 3, batch_norm)
        self.norm2 = layers.Identity() if batch_norm else LocalResponseNorm()
        self.maxpool2 = MaxPooling2D(3, strides=2, ceil_mode=True)
        self.inception3a = Inception(TABLE["3a"], batch_norm)
        self.inception3b = Inception(TABLE["3b"], batch_norm)
        self.maxpool3 = MaxPooling2D(3, strides=2, ceil_mode=True)
        self.inception4a = Inception(TABLE["4a"], batch_norm)
        self.inception4b = Inception(TABLE["4b"], batch_norm)
        self.inception4c = Inception(TABLE["4c"], batch_norm)
        self.inception4d = Inception(TABLE["4d"], batch_norm)
        self.inception4e = Inception(TABLE["4e"], batch_norm)
        self.maxpool4 = MaxPooling2D(pool4, strides=2, ceil_mode=True)
        self.inception5a = Inception(TABLE["5a"], batch_norm)
        self.inception5b = Inception(TABLE["5b"], batch_norm)
        self.aux1 = Auxiliary(num_classes, batch_norm)
        self.aux2 = Auxiliary(num_classes, batch_norm)
        self.avgpool = AdaptiveAveragePooling2D(1)
        self.flatten = layers.Flatten()
        self.dropout = layers.Dropout(0.2 if batch_norm else 0.4)
        self.fc = layers.Dense(num_classes, kernel_initializer=he_normal())

    def build_from_config(self, config):
        """Builds the auxiliary heads too, which run in training only."""
        self(keras.Input(config["input_shape"][1:]), training=True)

    def call(self, images, training=None):
        """Returns the logits, in training the auxiliary heads' too."""
        x = self.norm1(self.maxpool1(self.conv1(images)))  # (N, 56, 56, 64)
        x = self.norm2(self.conv3(self.conv2(x)))  # (N, 56, 56, 192)
        x = self.maxpool2(x)  # (N, 28, 28, 192)
        x = self.inception3b(self.inception3a(x))  # (N, 28, 28, 480)
        x = self.maxpool3(x)  # (N, 14, 14, 480)
        x = self.inception4a(x)  # (N, 14, 14, 512)
        aux1 = self.aux1(x) if training else None
        x = self.inception4c(self.inception4b(x))  # (N, 14, 14, 512)
        x = self.inception4d(x)  # (N, 14, 14, 528)
        aux2 = self.aux2(x) if training else None
        x = self.maxpool4(self.inception4e(x))  # (N, 7, 7, 832)
        x = self.inception5b(self.inception5a(x))  # (N, 7, 7, 1024)
        x = self.flatten(self.avgpool(x))  # (N, 1024)
        logits = self.fc(self.dropout(x))  # (N, num_classes)
        return (logits, aux1, aux2) if training else logits

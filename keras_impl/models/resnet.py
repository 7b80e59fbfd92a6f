"""Residual networks of 18 to 152 layers.

Paper: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385, table 1 and figure 5.
Departures from the paper: torchvision's: a bottleneck that halves the map does so in
its 3x3 convolution, where the paper does it in the first 1x1, and shortcuts that change
shape are projections (the paper's option B). Names are torchvision's.
"""

import keras
from keras import layers, ops

from keras_impl.initializers import he_normal
from keras_impl.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Conv2D,
    MaxPooling2D,
    Model,
)

# Table 1: whether the blocks are bottlenecks, and the blocks of each of four stages.
STAGES = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class BasicBlock(layers.Layer):
    """Two 3x3 convolutions and a shortcut: (N, H, W, C) to (N, H', W', width)."""

    expansion = 1

    def __init__(self, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = convolution(width, 3, stride)
        self.bn1 = BatchNormalization()
        self.conv2 = convolution(width, 3)
        self.bn2 = BatchNormalization()
        self.downsample = shortcut(width, stride) if project else None

    def call(self, images):
        """Returns the feature maps."""
        x = ops.relu(self.bn1(self.conv1(images)))
        x = self.bn2(self.conv2(x))
        return ops.relu(x + (self.downsample(images) if self.downsample else images))


class Bottleneck(layers.Layer):
    """1x1, 3x3 and 1x1 convolutions: (N, H, W, C) to (N, H', W', 4 * width)."""

    expansion = 4

    def __init__(self, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = convolution(width, 1)
        self.bn1 = BatchNormalization()
        self.conv2 = convolution(width, 3, stride)
        self.bn2 = BatchNormalization()
        self.conv3 = convolution(4 * width, 1)
        self.bn3 = BatchNormalization()
        self.downsample = shortcut(4 * width, stride) if project else None

    def call(self, images):
        """Returns the feature maps."""
        x = ops.relu(self.bn1(self.conv1(images)))
        x = ops.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return ops.relu(x + (self.downsample(images) if self.downsample else images))


class ResNet(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, depth: int = 18, **kwargs):
        super().__init__(**kwargs)
        bottleneck, counts = STAGES[depth]
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = convolution(64, 7, 2)
        self.bn1 = BatchNormalization()
        self.maxpool = MaxPooling2D(3, strides=2, padding=1)
        self.layer1 = make_stage(block, 64, counts[0], 1)
        self.layer2 = make_stage(block, 128, counts[1], 2)
        self.layer3 = make_stage(block, 256, counts[2], 2)
        self.layer4 = make_stage(block, 512, counts[3], 2)
        self.avgpool = AdaptiveAveragePooling2D(1)
        self.flatten = layers.Flatten()
        self.fc = layers.Dense(num_classes, kernel_initializer=he_normal())

    def call(self, images):
        """Returns the logits."""
        x = ops.relu(self.bn1(self.conv1(images)))  # (N, 112, 112, 64)
        x = self.layer1(self.maxpool(x))  # (N, 56, 56, 64 or 256)
        x = self.layer2(x)  # (N, 28, 28, 128 or 512)
        x = self.layer3(x)  # (N, 14, 14, 256 or 1024)
        x = self.layer4(x)  # (N, 7, 7, 512 or 2048)
        return self.fc(self.flatten(self.avgpool(x)))  # (N, num_classes)


def convolution(width: int, kernel_size: int, stride: int = 1):
    """Returns a convolution without a bias, padded so that stride 1 keeps the size."""
    return Conv2D(
        width,
        kernel_size,
        stride,
        kernel_size // 2,
        use_bias=False,
        kernel_initializer=he_normal(),
    )


def shortcut(width: int, stride: int) -> keras.Sequential:
    """Returns the projection of a shortcut that changes shape."""
    return keras.Sequential([convolution(width, 1, stride), BatchNormalization()])


def make_stage(block: type, width: int, count: int, stride: int):
    """Returns the blocks of one stage; the first may change shape."""
    project = stride != 1 or block.expansion > 1
    blocks = [block(width, stride, project)]
    blocks += [block(width, 1, False) for _ in range(count - 1)]
    return keras.Sequential(blocks)

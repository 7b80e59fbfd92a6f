"""AlexNet: the two-GPU network of 2012, and the single tower of 2014.

Paper: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional
Neural Networks", NIPS 2012, section 3 and figure 2 (AlexNet); Krizhevsky, "One weird
trick for parallelizing convolutional neural networks", 2014, arXiv:1404.5997, in
torchvision's form (AlexNetOWT).
Departures from the paper: the two GPUs are two groups of one convolution. Images of 224
pixels are padded by 2, since 224 alone does not give the paper's 55x55 map. Weights
start from He's distribution and biases from 0. Dropout scales while training, not
afterwards. At other image sizes AlexNet's first dense layer is sized by the map.
"""

import keras
from keras import layers, ops

from keras_impl.initializers import he_normal
from keras_impl.layers import AdaptiveAveragePooling2D, Conv2D, LocalResponseNorm, Model


class AlexNet(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, hidden_units: int = 4096, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = Conv2D(
            96, 11, strides=4, padding=2, kernel_initializer=he_normal()
        )
        self.norm1 = LocalResponseNorm()
        self.pool1 = layers.MaxPooling2D(3, strides=2)
        self.conv2 = Conv2D(256, 5, padding=2, groups=2, kernel_initializer=he_normal())
        self.norm2 = LocalResponseNorm()
        self.pool2 = layers.MaxPooling2D(3, strides=2)
        self.conv3 = Conv2D(384, 3, padding=1, kernel_initializer=he_normal())
        self.conv4 = Conv2D(384, 3, padding=1, groups=2, kernel_initializer=he_normal())
        self.conv5 = Conv2D(256, 3, padding=1, groups=2, kernel_initializer=he_normal())
        self.pool5 = layers.MaxPooling2D(3, strides=2)
        self.flatten = layers.Flatten()
        self.fc6 = layers.Dense(hidden_units, kernel_initializer=he_normal())
        self.drop6 = layers.Dropout(0.5)
        self.fc7 = layers.Dense(hidden_units, kernel_initializer=he_normal())
        self.drop7 = layers.Dropout(0.5)
        self.fc8 = layers.Dense(num_classes, kernel_initializer=he_normal())

    def call(self, images):
        """Returns the logits."""
        x = self.norm1(ops.relu(self.conv1(images)))  # (N, 55, 55, 96)
        x = self.pool1(x)  # (N, 27, 27, 96)
        x = self.norm2(ops.relu(self.conv2(x)))  # (N, 27, 27, 256)
        x = self.pool2(x)  # (N, 13, 13, 256)
        x = ops.relu(self.conv3(x))  # (N, 13, 13, 384)
        x = ops.relu(self.conv4(x))  # (N, 13, 13, 384)
        x = ops.relu(self.conv5(x))  # (N, 13, 13, 256)
        x = self.flatten(self.pool5(x))  # (N, 9216)
        x = self.drop6(ops.relu(self.fc6(x)))  # (N, 4096)
        x = self.drop7(ops.relu(self.fc7(x)))  # (N, 4096)
        return self.fc8(x)  # (N, num_classes)


class AlexNetOWT(Model):
    """Maps images (N, 224, 224, 3) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, hidden_units: int = 4096, **kwargs):
        super().__init__(**kwargs)
        self.features = keras.Sequential(
            [
                Conv2D(64, 11, strides=4, padding=2, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.MaxPooling2D(3, strides=2),  # (N, 27, 27, 64)
                Conv2D(192, 5, padding=2, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.MaxPooling2D(3, strides=2),  # (N, 13, 13, 192)
                Conv2D(384, 3, padding=1, kernel_initializer=he_normal()),
                layers.ReLU(),
                Conv2D(256, 3, padding=1, kernel_initializer=he_normal()),
                layers.ReLU(),
                Conv2D(256, 3, padding=1, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.MaxPooling2D(3, strides=2),  # (N, 6, 6, 256)
            ]
        )
        self.avgpool = AdaptiveAveragePooling2D(6)
        self.flatten = layers.Flatten()
        self.classifier = keras.Sequential(
            [
                layers.Dropout(0.5),
                layers.Dense(hidden_units, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dropout(0.5),
                layers.Dense(hidden_units, kernel_initializer=he_normal()),
                layers.ReLU(),
                layers.Dense(num_classes, kernel_initializer=he_normal()),
            ]
        )

    def call(self, images):
        """Returns the logits."""
        x = self.avgpool(self.features(images))  # (N, 6, 6, 256)
        return self.classifier(self.flatten(x))  # (N, num_classes)

"""LeNet-5, as the lecture has it and as the paper has it.

Paper: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998; section II.B and figure 2.
Departures from the paper: LeNet5 is the lecture's: 28x28 images, max-pooling straight
after the convolution, ReLU between the dense layers. LeNet51998 has the paper's shape;
its subsampling has no trainable coefficients, its second convolution sees all six maps
(the paper's C3 connects each map to some of them), its activation is plain tanh, its
weights start from Glorot's distribution, and a dense layer gives the logits instead of
RBF units.
"""

from keras import layers, ops

from keras_impl.initializers import glorot_uniform, he_normal
from keras_impl.layers import Model


class LeNet5(Model):
    """Maps images (N, 28, 28, 1) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = layers.Conv2D(6, 5, kernel_initializer=he_normal())
        self.pool1 = layers.MaxPooling2D(2)
        self.conv2 = layers.Conv2D(16, 5, kernel_initializer=he_normal())
        self.pool2 = layers.MaxPooling2D(2)
        self.flatten = layers.Flatten()
        self.fc1 = layers.Dense(120, kernel_initializer=he_normal())
        self.fc2 = layers.Dense(84, kernel_initializer=he_normal())
        self.out = layers.Dense(num_classes, kernel_initializer=he_normal())

    def call(self, images):
        """Returns the logits."""
        x = self.pool1(self.conv1(images))  # (N, 12, 12, 6)
        x = self.pool2(self.conv2(x))  # (N, 4, 4, 16)
        x = self.flatten(x)  # (N, 256)
        x = ops.relu(self.fc1(x))  # (N, 120)
        x = ops.relu(self.fc2(x))  # (N, 84)
        return self.out(x)  # (N, num_classes)


class LeNet51998(Model):
    """Maps images (N, 32, 32, 1) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = layers.Conv2D(6, 5, kernel_initializer=glorot_uniform())
        self.pool1 = layers.AveragePooling2D(2)
        self.conv2 = layers.Conv2D(16, 5, kernel_initializer=glorot_uniform())
        self.pool2 = layers.AveragePooling2D(2)
        self.flatten = layers.Flatten()
        self.fc1 = layers.Dense(120, kernel_initializer=glorot_uniform())
        self.fc2 = layers.Dense(84, kernel_initializer=glorot_uniform())
        self.out = layers.Dense(num_classes, kernel_initializer=glorot_uniform())

    def call(self, images):
        """Returns the logits."""
        x = self.pool1(ops.tanh(self.conv1(images)))  # (N, 14, 14, 6)
        x = self.pool2(ops.tanh(self.conv2(x)))  # (N, 5, 5, 16)
        x = self.flatten(x)  # (N, 400)
        x = ops.tanh(self.fc1(x))  # (N, 120)
        x = ops.tanh(self.fc2(x))  # (N, 84)
        return self.out(x)  # (N, num_classes)

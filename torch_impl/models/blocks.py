"""The three building blocks that the lecture makes a CNN of.

Paper: none; lecture notes in Korean, "Convolution Neural Networks (CNN)", sections on
convolution, pooling and the fully connected layer.
Departures from the paper: none; `num_classes` is the number of the block's outputs. The
dense block's vector is an image of one pixel.
"""

import torch.nn.functional as F
from torch import nn

from torch_impl.initializers import he_normal


class BlockConv(nn.Module):
    """Maps images (N, 3, 32, 32) to feature maps (N, num_classes, 30, 30)."""

    def __init__(self, num_classes: int = 32, in_channels=3):
        super().__init__()
        self.conv = he_normal(nn.Conv2d(in_channels, num_classes, 3), "fan_out")

    def forward(self, images):
        """Returns the feature maps."""
        return F.relu(self.conv(images))


class BlockConvPool(nn.Module):
    """Maps images (N, 3, 32, 32) to feature maps (N, num_classes, 15, 15)."""

    def __init__(self, num_classes: int = 32, in_channels=3):
        super().__init__()
        self.conv = he_normal(nn.Conv2d(in_channels, num_classes, 3), "fan_out")
        self.pool = nn.MaxPool2d(2)

    def forward(self, images):
        """Returns the feature maps."""
        return self.pool(F.relu(self.conv(images)))


class BlockDense(nn.Module):
    """Maps vectors (N, 32, 1, 1) or (N, 32) to features (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels=32, image_size=(1, 1)):
        super().__init__()
        height, width = image_size
        self.flatten = nn.Flatten()
        features = in_channels * height * width
        self.fc = he_normal(nn.Linear(features, num_classes), "fan_out")

    def forward(self, vectors):
        """Returns the features."""
        return F.relu(self.fc(self.flatten(vectors)))

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

import torch
import torch.nn.functional as F
from torch import nn

from torch_impl.initializers import glorot_uniform, he_normal


class LeNet5(nn.Module):
    """Maps images (N, 1, 28, 28) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels=1, image_size=(28, 28)):
        super().__init__()
        self.conv1 = he_normal(nn.Conv2d(in_channels, 6, 5))
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = he_normal(nn.Conv2d(6, 16, 5))
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = he_normal(nn.Linear(16 * map_area(*image_size), 120))
        self.fc2 = he_normal(nn.Linear(120, 84))
        self.out = he_normal(nn.Linear(84, num_classes))

    def forward(self, images):
        """Returns the logits."""
        x = self.pool1(self.conv1(images))  # (N, 6, 12, 12)
        x = self.pool2(self.conv2(x))  # (N, 16, 4, 4)
        x = self.flatten(x)  # (N, 256)
        x = F.relu(self.fc1(x))  # (N, 120)
        x = F.relu(self.fc2(x))  # (N, 84)
        return self.out(x)  # (N, num_classes)


class LeNet51998(nn.Module):
    """Maps images (N, 1, 32, 32) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels=1, image_size=(32, 32)):
        super().__init__()
        self.conv1 = glorot_uniform(nn.Conv2d(in_channels, 6, 5))
        self.pool1 = nn.AvgPool2d(2)
        self.conv2 = glorot_uniform(nn.Conv2d(6, 16, 5))
        self.pool2 = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = glorot_uniform(nn.Linear(16 * map_area(*image_size), 120))
        self.fc2 = glorot_uniform(nn.Linear(120, 84))
        self.out = glorot_uniform(nn.Linear(84, num_classes))

    def forward(self, images):
        """Returns the logits."""
        x = self.pool1(torch.tanh(self.conv1(images)))  # (N, 6, 14, 14)
        x = self.pool2(torch.tanh(self.conv2(x)))  # (N, 16, 5, 5)
        x = self.flatten(x)  # (N, 400)
        x = torch.tanh(self.fc1(x))  # (N, 120)
        x = torch.tanh(self.fc2(x))  # (N, 84)
        return self.out(x)  # (N, num_classes)


def map_area(height: int, width: int) -> int:
    """Returns the pixels of the map that both convolutions and pools leave."""
    height, width = ((((size - 4) // 2) - 4) // 2 for size in (height, width))
    return height * width

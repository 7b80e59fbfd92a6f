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

import torch
import torch.nn.functional as F
from torch import nn

from torch_impl.initializers import he_normal
from torch_impl.layers import LocalResponseNorm

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


class BasicConv2d(nn.Module):
    """A convolution, batch normalisation or none, and ReLU."""

    def __init__(
        self,
        in_channels,
        width: int,
        kernel_size: int,
        batch_norm: bool,
        stride: int = 1,
    ):
        super().__init__()
        padding = kernel_size // 2
        self.conv = he_normal(
            nn.Conv2d(
                in_channels, width, kernel_size, stride, padding, bias=not batch_norm
            )
        )
        self.bn = nn.BatchNorm2d(width, eps=1e-3) if batch_norm else None

    def forward(self, images):
        """Returns the feature maps."""
        x = self.conv(images)
        return F.relu(self.bn(x) if self.bn else x)


class Inception(nn.Module):
    """Four branches, concatenated: (N, C, H, W) to (N, C', H, W)."""

    def __init__(self, in_channels, widths: tuple[int, ...], batch_norm: bool):
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        size = 3 if batch_norm else 5
        self.branch1 = BasicConv2d(in_channels, one, 1, batch_norm)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, reduce3, 1, batch_norm),
            BasicConv2d(reduce3, three, 3, batch_norm),
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, reduce5, 1, batch_norm),
            BasicConv2d(reduce5, five, size, batch_norm),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            BasicConv2d(in_channels, projection, 1, batch_norm),
        )

    def forward(self, images):
        """Returns the feature maps."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(images) for branch in branches], 1)


class Auxiliary(nn.Module):
    """Maps feature maps (N, C, 14, 14) to logits (N, num_classes)."""

    def __init__(self, in_channels, num_classes: int, batch_norm: bool, map_size):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4) if batch_norm else None
        height, width = (4, 4) if batch_norm else map(pooled_size, map_size)
        self.conv = BasicConv2d(in_channels, 128, 1, batch_norm)
        self.flatten = nn.Flatten()
        self.fc1 = he_normal(nn.Linear(128 * height * width, 1024))
        self.dropout = nn.Dropout(0.7)
        self.fc2 = he_normal(nn.Linear(1024, num_classes))

    def forward(self, images):
        """Returns the logits."""
        if self.pool:
            x = self.pool(images)  # (N, C, 4, 4)
        else:
            window = [min(5, size) for size in images.shape[2:]]
            x = F.avg_pool2d(images, window, 3)  # (N, C, 4, 4)
        x = self.flatten(self.conv(x))  # (N, 2048)
        x = self.dropout(F.relu(self.fc1(x)))  # (N, 1024)
        return self.fc2(x)  # (N, num_classes)


class GoogLeNet(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes).

    In training: to three times logits, the second and third of the auxiliary heads.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels=3,
        image_size=(224, 224),
        batch_norm: bool = False,
    ):
        super().__init__()
        map_size = [(size + 1) // 16 for size in image_size]
        pool4 = 2 if batch_norm else 3
        self.conv1 = BasicConv2d(in_channels, 64, 7, batch_norm, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.Identity() if batch_norm else LocalResponseNorm()
        self.conv2 = BasicConv2d(64, 64, 1, batch_norm)
        self.conv3 = BasicConv2d(64, 192, 3, batch_norm)
        self.norm2 = nn.Identity() if batch_norm else LocalResponseNorm()
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, TABLE["3a"], batch_norm)
        self.inception3b = Inception(256, TABLE["3b"], batch_norm)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, TABLE["4a"], batch_norm)
        self.inception4b = Inception(512, TABLE["4b"], batch_norm)
        self.inception4c = Inception(512, TABLE["4c"], batch_norm)
        self.inception4d = Inception(512, TABLE["4d"], batch_norm)
        self.inception4e = Inception(528, TABLE["4e"], batch_norm)
        self.maxpool4 = nn.MaxPool2d(pool4, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, TABLE["5a"], batch_norm)
        self.inception5b = Inception(832, TABLE["5b"], batch_norm)
        self.aux1 = Auxiliary(512, num_classes, batch_norm, map_size)
        self.aux2 = Auxiliary(528, num_classes, batch_norm, map_size)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.2 if batch_norm else 0.4)
        self.fc = he_normal(nn.Linear(1024, num_classes))

    def forward(self, images):
        """Returns the logits, in training the auxiliary heads' too."""
        x = self.norm1(self.maxpool1(self.conv1(images)))  # (N, 64, 56, 56)
        x = self.norm2(self.conv3(self.conv2(x)))  # (N, 192, 56, 56)
        x = self.maxpool2(x)  # (N, 192, 28, 28)
        x = self.inception3b(self.inception3a(x))  # (N, 480, 28, 28)
        x = self.maxpool3(x)  # (N, 480, 14, 14)
        x = self.inception4a(x)  # (N, 512, 14, 14)
        aux1 = self.aux1(x) if self.training else None
        x = self.inception4c(self.inception4b(x))  # (N, 512, 14, 14)
        x = self.inception4d(x)  # (N, 528, 14, 14)
        aux2 = self.aux2(x) if self.training else None
        x = self.maxpool4(self.inception4e(x))  # (N, 832, 7, 7)
        x = self.inception5b(self.inception5a(x))  # (N, 1024, 7, 7)
        x = self.flatten(self.avgpool(x))  # (N, 1024)
        logits = self.fc(self.dropout(x))  # (N, num_classes)
        return (logits, aux1, aux2) if self.training else logits


def pooled_size(size: int) -> int:
    """Returns what a 5x5 window with stride 3 leaves of an axis, 1 of a short one."""
    return max(0, (size - 5) // 3) + 1

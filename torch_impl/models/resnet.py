"""Residual networks of 18 to 152 layers.

Paper: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385, table 1 and figure 5.
Departures from the paper: torchvision's: a bottleneck that halves the map does so in
its 3x3 convolution, where the paper does it in the first 1x1, and shortcuts that change
shape are projections (the paper's option B). Names are torchvision's.
"""

import torch.nn.functional as F
from torch import nn

from torch_impl.initializers import he_normal

# Table 1: whether the blocks are bottlenecks, and the blocks of each of four stages.
STAGES = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, C, H, W) to (N, width, H', W')."""

    expansion = 1

    def __init__(self, in_channels, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = convolution(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride) if project else None

    def forward(self, images):
        """Returns the feature maps."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + (self.downsample(images) if self.downsample else images))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions: (N, C, H, W) to (N, 4 * width, H', W')."""

    expansion = 4

    def __init__(self, in_channels, width: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(in_channels, 4 * width, stride) if project else None

    def forward(self, images):
        """Returns the feature maps."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return F.relu(x + (self.downsample(images) if self.downsample else images))


class ResNet(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels=3, depth: int = 18):
        super().__init__()
        bottleneck, counts = STAGES[depth]
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = convolution(in_channels, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [64 * block.expansion * 2**stage for stage in range(4)]
        self.layer1 = make_stage(block, 64, 64, counts[0], 1)
        self.layer2 = make_stage(block, widths[0], 128, counts[1], 2)
        self.layer3 = make_stage(block, widths[1], 256, counts[2], 2)
        self.layer4 = make_stage(block, widths[2], 512, counts[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = he_normal(nn.Linear(widths[3], num_classes))

    def forward(self, images):
        """Returns the logits."""
        x = F.relu(self.bn1(self.conv1(images)))  # (N, 64, 112, 112)
        x = self.layer1(self.maxpool(x))  # (N, 64 or 256, 56, 56)
        x = self.layer2(x)  # (N, 128 or 512, 28, 28)
        x = self.layer3(x)  # (N, 256 or 1024, 14, 14)
        x = self.layer4(x)  # (N, 512 or 2048, 7, 7)
        return self.fc(self.flatten(self.avgpool(x)))  # (N, num_classes)


def convolution(in_channels: int, width: int, kernel_size: int, stride: int = 1):
    """Returns a convolution without a bias, padded so that stride 1 keeps the size."""
    padding = kernel_size // 2
    return he_normal(
        nn.Conv2d(in_channels, width, kernel_size, stride, padding, bias=False)
    )


def shortcut(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Returns the projection of a shortcut that changes shape."""
    return nn.Sequential(
        convolution(in_channels, width, 1, stride), nn.BatchNorm2d(width)
    )


def make_stage(block: type, in_channels: int, width: int, count: int, stride: int):
    """Returns the blocks of one stage; the first may change shape."""
    channels = width * block.expansion
    project = stride != 1 or in_channels != channels
    blocks = [block(in_channels, width, stride, project)]
    blocks += [block(channels, width, 1, False) for _ in range(count - 1)]
    return nn.Sequential(*blocks)

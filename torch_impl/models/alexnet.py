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

import torch.nn.functional as F
from torch import nn

from torch_impl.initializers import he_normal
from torch_impl.layers import LocalResponseNorm


class AlexNet(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels=3,
        image_size=(224, 224),
        hidden_units: int = 4096,
    ):
        super().__init__()
        height, width = (((size - 7) // 4 + 1 - 7) // 8 for size in image_size)
        self.conv1 = he_normal(nn.Conv2d(in_channels, 96, 11, stride=4, padding=2))
        self.norm1 = LocalResponseNorm()
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.conv2 = he_normal(nn.Conv2d(96, 256, 5, padding=2, groups=2))
        self.norm2 = LocalResponseNorm()
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = he_normal(nn.Conv2d(256, 384, 3, padding=1))
        self.conv4 = he_normal(nn.Conv2d(384, 384, 3, padding=1, groups=2))
        self.conv5 = he_normal(nn.Conv2d(384, 256, 3, padding=1, groups=2))
        self.pool5 = nn.MaxPool2d(3, stride=2)
        self.flatten = nn.Flatten()
        self.fc6 = he_normal(nn.Linear(256 * height * width, hidden_units))
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = he_normal(nn.Linear(hidden_units, hidden_units))
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = he_normal(nn.Linear(hidden_units, num_classes))

    def forward(self, images):
        """Returns the logits."""
        x = self.norm1(F.relu(self.conv1(images)))  # (N, 96, 55, 55)
        x = self.pool1(x)  # (N, 96, 27, 27)
        x = self.norm2(F.relu(self.conv2(x)))  # (N, 256, 27, 27)
        x = self.pool2(x)  # (N, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv5(x))  # (N, 256, 13, 13)
        x = self.flatten(self.pool5(x))  # (N, 9216)
        x = self.drop6(F.relu(self.fc6(x)))  # (N, 4096)
        x = self.drop7(F.relu(self.fc7(x)))  # (N, 4096)
        return self.fc8(x)  # (N, num_classes)


class AlexNetOWT(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes)."""

    def __init__(
        self, num_classes: int = 1000, in_channels=3, hidden_units: int = 4096
    ):
        super().__init__()
        self.features = nn.Sequential(
            he_normal(nn.Conv2d(in_channels, 64, 11, stride=4, padding=2)),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # (N, 64, 27, 27)
            he_normal(nn.Conv2d(64, 192, 5, padding=2)),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # (N, 192, 13, 13)
            he_normal(nn.Conv2d(192, 384, 3, padding=1)),
            nn.ReLU(),
            he_normal(nn.Conv2d(384, 256, 3, padding=1)),
            nn.ReLU(),
            he_normal(nn.Conv2d(256, 256, 3, padding=1)),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),  # (N, 256, 6, 6)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            he_normal(nn.Linear(256 * 6 * 6, hidden_units)),
            nn.ReLU(),
            nn.Dropout(0.5),
            he_normal(nn.Linear(hidden_units, hidden_units)),
            nn.ReLU(),
            he_normal(nn.Linear(hidden_units, num_classes)),
        )

    def forward(self, images):
        """Returns the logits."""
        x = self.avgpool(self.features(images))  # (N, 256, 6, 6)
        return self.classifier(self.flatten(x))  # (N, num_classes)

"""VGG, with batch normalisation too, and with convolutions for dense layers.

Paper: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv:1409.1556, table 1; the dense layers as convolutions
(VGGConv): section 3.2.
Departures from the paper: the names and the adaptive pooling, which lets other sizes
than 224 through, are torchvision's, and so are the variants with batch normalisation,
which the paper does not know. Weights start from He's distribution.
"""

from torch import nn

from torch_impl.initializers import he_normal

# Table 1: channels of each 3x3 convolution, "M" for max-pooling.
CONFIGURATIONS = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


class VGG(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels=3,
        configuration: str = "D",
        batch_norm: bool = False,
        hidden_units: int = 4096,
    ):
        super().__init__()
        self.features = make_features(configuration, batch_norm, in_channels)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            he_normal(nn.Linear(512 * 7 * 7, hidden_units)),
            nn.ReLU(),
            nn.Dropout(0.5),
            he_normal(nn.Linear(hidden_units, hidden_units)),
            nn.ReLU(),
            nn.Dropout(0.5),
            he_normal(nn.Linear(hidden_units, num_classes)),
        )

    def forward(self, images):
        """Returns the logits."""
        x = self.avgpool(self.features(images))  # (N, 512, 7, 7)
        return self.classifier(self.flatten(x))  # (N, num_classes)


class VGGConv(nn.Module):
    """Maps images (N, 3, 224, 224) to logits (N, num_classes).

    Larger images give a map of logits (N, num_classes, H // 32 - 6, W // 32 - 6).
    Made for smaller images, its head's first kernel is as small as their map.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels=3,
        image_size=(224, 224),
        configuration: str = "D",
        hidden_units: int = 4096,
    ):
        super().__init__()
        kernel_size = tuple(min(7, size // 32) for size in image_size)
        self.features = make_features(configuration, False, in_channels)
        self.classifier = nn.Sequential(
            he_normal(nn.Conv2d(512, hidden_units, kernel_size)),
            nn.ReLU(),
            nn.Dropout(0.5),
            he_normal(nn.Conv2d(hidden_units, hidden_units, 1)),
            nn.ReLU(),
            nn.Dropout(0.5),
            he_normal(nn.Conv2d(hidden_units, num_classes, 1)),
        )

    def forward(self, images):
        """Returns the logits, one set or a map of them."""
        x = self.classifier(self.features(images))  # (N, num_classes, 1, 1)
        return x.flatten(1) if x.shape[2:] == (1, 1) else x


def make_features(configuration: str, batch_norm: bool, in_channels: int):
    """Returns the convolutional part of a row of table 1."""
    layers = []
    channels = in_channels
    for item in CONFIGURATIONS[configuration].split():
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(he_normal(nn.Conv2d(channels, int(item), 3, padding=1)))
        if batch_norm:
            layers.append(nn.BatchNorm2d(int(item)))
        layers.append(nn.ReLU())
        channels = int(item)
    return nn.Sequential(*layers)

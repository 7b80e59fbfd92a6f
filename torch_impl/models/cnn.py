"""Four small CNNs of the lectures.

Paper: none; lecture notes in Korean, in this order: "What is a convolution?" (the
configurable network with dropout), "Lab 10: MNIST CNN" (two layers), "CNN and MNIST"
(the padded pooling, with its table of layers), "Convolutional networks (1)" (zeros
against ones).
Departures from the paper: CNNTwoLayer's convolutions start from Glorot's distribution
like its dense layer, CNNPaddedPool and CNNBinary from He's, where the notes keep
PyTorch's own. CNNBinary returns the logit: its sigmoid is part of the binary
cross-entropy and of the prediction, which loses no digits. 'same' padding is 'same' for
even kernels too.
"""

from torch import nn

from torch_impl.initializers import glorot_uniform, he_normal


class CNNDropout(nn.Module):
    """Maps images (N, 1, 28, 28) to logits (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels=1,
        image_size=(28, 28),
        ksize: int = 3,
        cdims: tuple[int, ...] = (32, 64),
        hdims: tuple[int, ...] = (32,),
        use_batchnorm: bool = False,
    ):
        super().__init__()
        layers = []
        channels = in_channels
        for cdim in cdims:
            layers.append(he_normal(nn.Conv2d(channels, cdim, ksize, padding="same")))
            if use_batchnorm:
                layers.append(nn.BatchNorm2d(cdim))
            layers += [nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.5)]
            channels = cdim
        layers.append(nn.Flatten())
        height, width = (size // 2 ** len(cdims) for size in image_size)
        features = channels * height * width
        for hdim in hdims:
            layers += [he_normal(nn.Linear(features, hdim)), nn.ReLU()]
            features = hdim
        layers.append(he_normal(nn.Linear(features, num_classes)))
        self.net = nn.Sequential(*layers)

    def forward(self, images):
        """Returns the logits."""
        return self.net(images)


class CNNTwoLayer(nn.Module):
    """Maps images (N, 1, 28, 28) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels=1, image_size=(28, 28)):
        super().__init__()
        self.layer1 = nn.Sequential(
            glorot_uniform(nn.Conv2d(in_channels, 32, 3, padding=1)),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.layer2 = nn.Sequential(
            glorot_uniform(nn.Conv2d(32, 64, 3, padding=1)),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.flatten = nn.Flatten()
        height, width = (size // 4 for size in image_size)
        self.fc = glorot_uniform(nn.Linear(64 * height * width, num_classes))

    def forward(self, images):
        """Returns the logits."""
        x = self.layer1(images)  # (N, 32, 14, 14)
        x = self.layer2(x)  # (N, 64, 7, 7)
        return self.fc(self.flatten(x))  # (N, num_classes)


class CNNPaddedPool(nn.Module):
    """Maps images (N, 1, 28, 28) to logits (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels=1, image_size=(28, 28)):
        super().__init__()
        self.conv1 = nn.Sequential(
            he_normal(nn.Conv2d(in_channels, 16, 3)),
            nn.ReLU(),
            nn.MaxPool2d(2, padding=1),
        )
        self.conv2 = nn.Sequential(
            he_normal(nn.Conv2d(16, 32, 3)),
            nn.ReLU(),
            nn.MaxPool2d(2, padding=1),
        )
        height, width = (((size - 2) // 2 - 1) // 2 + 1 for size in image_size)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            he_normal(nn.Linear(32 * height * width, 32)),
            nn.ReLU(),
            nn.Dropout(0.3),
            he_normal(nn.Linear(32, num_classes)),
        )

    def forward(self, images):
        """Returns the logits."""
        x = self.conv1(images)  # (N, 16, 14, 14)
        x = self.conv2(x)  # (N, 32, 7, 7)
        return self.classifier(x)  # (N, num_classes)


class CNNBinary(nn.Module):
    """Maps images (N, 1, 28, 28) to the logit (N, 1) of the second class."""

    def __init__(self, num_classes: int = 1, in_channels=1, image_size=(28, 28)):
        super().__init__()
        self.conv = he_normal(nn.Conv2d(in_channels, 16, 5))
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        height, width = ((size - 4) // 2 for size in image_size)
        self.fc = he_normal(nn.Linear(16 * height * width, num_classes))

    def forward(self, images):
        """Returns the logit."""
        x = self.pool(self.relu(self.conv(images)))  # (N, 16, 12, 12)
        return self.fc(self.flatten(x))  # (N, 1)

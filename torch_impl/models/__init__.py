"""The registry of models, and how one is built."""

from torch import nn

from parity.spec.recipes import Shape
from torch_impl.layers import seeded
from torch_impl.models import lenet

MODELS = {
    "lenet5": lenet.LeNet5,
    "lenet5_1998": lenet.LeNet51998,
}


def build(name: str, shape: Shape, seed: int | None) -> nn.Module:
    """Returns a model whose weights exist."""
    image_size = (shape.height, shape.width)
    with seeded(seed):
        return MODELS[name](shape.num_classes, shape.in_channels, image_size)

"""The registry of models, and how one is built."""

import inspect
from functools import partial

from torch import nn

from parity.spec.recipes import Shape, check_architecture
from torch_impl.layers import seeded
from torch_impl.models import alexnet, blocks, cnn, googlenet, lenet, resnet, vgg

MODELS = {
    "alexnet": alexnet.AlexNet,
    "alexnet_owt": alexnet.AlexNetOWT,
    "block_conv": blocks.BlockConv,
    "block_conv_pool": blocks.BlockConvPool,
    "block_dense": blocks.BlockDense,
    "cnn_binary": cnn.CNNBinary,
    "cnn_dropout": cnn.CNNDropout,
    "cnn_padded_pool": cnn.CNNPaddedPool,
    "cnn_two_layer": cnn.CNNTwoLayer,
    "googlenet": partial(googlenet.GoogLeNet, batch_norm=False),
    "googlenet_bn": partial(googlenet.GoogLeNet, batch_norm=True),
    "lenet5": lenet.LeNet5,
    "lenet5_1998": lenet.LeNet51998,
    "resnet18": partial(resnet.ResNet, depth=18),
    "resnet34": partial(resnet.ResNet, depth=34),
    "resnet50": partial(resnet.ResNet, depth=50),
    "resnet101": partial(resnet.ResNet, depth=101),
    "resnet152": partial(resnet.ResNet, depth=152),
    "vgg11": partial(vgg.VGG, configuration="A", batch_norm=False),
    "vgg11_bn": partial(vgg.VGG, configuration="A", batch_norm=True),
    "vgg13": partial(vgg.VGG, configuration="B", batch_norm=False),
    "vgg13_bn": partial(vgg.VGG, configuration="B", batch_norm=True),
    "vgg16": partial(vgg.VGG, configuration="D", batch_norm=False),
    "vgg16_bn": partial(vgg.VGG, configuration="D", batch_norm=True),
    "vgg16_conv": partial(vgg.VGGConv, configuration="D"),
    "vgg19": partial(vgg.VGG, configuration="E", batch_norm=False),
    "vgg19_bn": partial(vgg.VGG, configuration="E", batch_norm=True),
}


def build(
    name: str, shape: Shape, seed: int | None, architecture: dict[str, object]
) -> nn.Module:
    """Returns a model whose weights exist.

    Args:
        name: the model.
        shape: its input and output.
        seed: of the initial weights.
        architecture: further arguments of its class.
    """
    factory = MODELS[name]
    model_class = getattr(factory, "func", factory)
    parameters = inspect.signature(model_class.__init__).parameters
    shaped = shape.arguments()
    fixed = {*shaped, *getattr(factory, "keywords", ())}
    check_architecture(name, architecture, set(parameters) - fixed - {"self"})
    given = {key: value for key, value in shaped.items() if key in parameters}
    with seeded(seed):
        return factory(**given, **architecture)

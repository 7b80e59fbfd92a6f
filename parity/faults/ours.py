"""Faults of this project's own models, planted in the PyTorch side."""

from collections.abc import Callable, Iterator

import numpy as np
import torch.nn.functional as F

from parity.frameworks import keras, torch
from parity import probe
from parity.commands import create_twins
from parity.faults.pairs import (
    CONSEQUENCES,
    SCALES,
    Case,
    Expected,
    Pair,
    labels,
)
from parity.spec import recipes
from torch_impl.models import lenet, resnet

nn = torch.nn
SIZES = {
    "lenet5": (29, 36),
    "lenet5_1998": (29, 36),
    "cnn_dropout": (20, 25),
    "cnn_padded_pool": (21, 25),
    "cnn_two_layer": (18, 22),
    "cnn_binary": (15, 20),
    "resnet18": (32, 36),
    "alexnet": (64, 68),
    "googlenet": (32, 36),
}
ARCHITECTURES = {
    "cnn_dropout": {"cdims": (8, 12), "hdims": (16,), "use_batchnorm": True},
    "alexnet": {"hidden_units": 24},
}
Plant = Callable[[keras.Model, nn.Module], None]


def case(
    name: str,
    cause: str,
    names: str,
    plant: Plant | None,
    place: str = "middle",
    *,
    also: tuple[str, ...] = (),
    weights: str = "copy",
    scale: float = 1.0,
    note: str = "",
    torch_names: str = "",
) -> Case:
    """Returns a case in one of the registry's models.

    Args:
        name: of the model.
        cause: identifier; "equal" for a pair without a fault.
        names: of the layers at which it may be found, on both sides.
        plant: changes one of the two models.
        place: in which third of the model.
        also: other causes that are right too.
        weights: "copy" or "as_is".
        scale: of the images.
        note: tells cases of one cause in one model apart.
        torch_names: those of the PyTorch side where they are others.
    """

    def make() -> Pair:
        recipe = recipes.find(name)
        channels = 3 if name in ("cnn_two_layer", "resnet18") else None
        shape = recipes.shape(recipe, None, SIZES[name], channels)
        architecture = ARCHITECTURES.get(name, {})
        keras_model, torch_model = create_twins(name, shape, **architecture)
        torch_model.eval()
        if plant is not None:
            plant(keras_model, torch_model)
        size = (2, shape.height, shape.width, shape.in_channels)
        images = (scale * probe.images(size)).astype("float32")
        found = names.split(), (torch_names or names).split()
        true_too = CONSEQUENCES.get(cause, ())
        expected = Expected((cause, *also), *map(tuple, found), true_too)
        return Pair(
            keras_model,
            torch_model,
            images,
            labels(2, 2),
            "forward",
            weights,
            {},
            () if plant is None else (expected,),
        )

    title = f"{cause}{note and '-'}{note}/ours-{name}/{names.replace(' ', '+')}"
    return Case(title, f"ours-{name}", cause, place, scale, make)


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    yield from _lenets()
    yield from _lecture_networks()
    yield from _deep_networks()


def equal_cases() -> Iterator[Case]:
    """Yields each model beside its twin, as it is."""
    for index, name in enumerate(SIZES):
        for weights in ("copy", "as_is")[
            : 1 if name in ("googlenet", "alexnet") else 2
        ]:
            scale = SCALES[index % 3]
            rest = {"weights": weights, "scale": scale, "note": weights}
            yield case(name, "equal", "twins", None, "whole", **rest)


class WithoutReLU(lenet.LeNet5):
    """Forgets the activation of fc2."""

    def forward(self, images):
        """Returns the logits."""
        x = self.pool1(self.conv1(images))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = F.relu(self.fc1(x))
        return self.out(self.fc2(x))


class WithTanh(lenet.LeNet5):
    """Has another activation at fc1."""

    def forward(self, images):
        """Returns the logits."""
        x = self.pool1(self.conv1(images))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = torch.tanh(self.fc1(x))
        return self.out(F.relu(self.fc2(x)))


class WithSoftmax(lenet.LeNet5):
    """Returns probabilities."""

    def forward(self, images):
        """Returns the probabilities."""
        return F.softmax(super().forward(images), 1)


class ScaledTwice(lenet.LeNet5):
    """Divides grey levels that have been divided before."""

    def forward(self, images):
        """Returns the logits."""
        return super().forward(images / 255)


class WithSigmoid(lenet.LeNet51998):
    """Has another activation at conv2."""

    def forward(self, images):
        """Returns the logits."""
        x = self.pool1(torch.tanh(self.conv1(images)))
        x = self.flatten(self.pool2(torch.sigmoid(self.conv2(x))))
        return self.out(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


class WithoutShortcut(resnet.BasicBlock):
    """Forgets what came in."""

    def forward(self, images):
        """Returns the feature maps."""
        x = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(x)))


def become(faulty: type, path: str = "") -> Plant:
    """Returns what makes a module one of another class."""

    def plant(keras_model, torch_model):
        torch_model.get_submodule(path).__class__ = faulty

    return plant


def put(path: str, **attributes: object) -> Plant:
    """Returns what sets attributes of a PyTorch module."""

    def plant(keras_model, torch_model):
        for name, value in attributes.items():
            setattr(torch_model.get_submodule(path), name, value)

    return plant


def put_module(path: str, make: Callable[[], nn.Module]) -> Plant:
    """Returns what puts another module in a module's place."""

    def plant(keras_model, torch_model):
        torch_model.set_submodule(path, make().eval())

    return plant


def padded(path: str, border: tuple[int, int, int, int]) -> Plant:
    """Returns what pads before a convolution instead of inside it."""

    def plant(keras_model, torch_model):
        convolution = torch_model.get_submodule(path)
        convolution.padding = (0, 0)
        module = nn.Sequential(nn.ZeroPad2d(border), convolution)
        torch_model.set_submodule(path, module)

    return plant


def weight(path: str, function: Callable, name: str = "weight") -> Plant:
    """Returns what changes a tensor of a PyTorch module."""

    def plant(keras_model, torch_model):
        tensor = getattr(torch_model.get_submodule(path), name)
        tensor.data = function(tensor.data).clone()

    return plant


def unpermuted(keras_layer: str, path: str) -> Plant:
    """Returns what copies Keras's kernel without a thought of the map's order."""

    def plant(keras_model, torch_model):
        layer = keras_model
        for part in keras_layer.split("."):
            layer = layer.layers[int(part)] if part.isdigit() else getattr(layer, part)
        kernel = np.ascontiguousarray(layer.kernel.numpy().T)
        torch_model.get_submodule(path).weight.data = torch.from_numpy(kernel)

    return plant


def _lenets() -> Iterator[Case]:
    name, old = "lenet5", "lenet5_1998"
    pad = put("conv1", padding=(1, 1))
    yield case(name, "conv.padding", "conv1", pad, "early", also=("pad.missing",))
    mean = put_module("pool2", lambda: nn.AvgPool2d(2))
    yield case(name, "pool.kind", "pool2", mean, scale=100.0)
    largest = put_module("pool1", lambda: nn.MaxPool2d(2))
    yield case(old, "pool.kind", "pool1", largest, "early")
    yield case(name, "activation.missing", "fc2", become(WithoutReLU), "late")
    yield case(name, "activation.kind", "fc1", become(WithTanh), "late", scale=0.01)
    yield case(old, "activation.kind", "conv2", become(WithSigmoid))
    yield case(name, "softmax.missing", "out", become(WithSoftmax), "late")
    scaled = become(ScaledTwice)
    also = ("input.scale",)
    yield case(name, "scale.missing", "input conv1", scaled, "early", also=also)
    turn = weight("conv2", lambda w: w.transpose(2, 3))
    yield case(name, "weights.transposed", "conv2", turn, weights="as_is")
    flip = weight("conv1", lambda w: w.flip(2, 3))
    yield case(old, "weights.flipped", "conv1", flip, "early", weights="as_is")
    for model in (name, old):
        order = unpermuted("fc1", "fc1")
        yield case(model, "flatten.order", "fc1", order, weights="as_is")
    scale = weight("conv2", lambda b: 1.001 * b, "bias")
    yield case(name, "bias.different", "conv2", scale, weights="as_is")
    zero = put("out", bias=None)
    yield case(old, "bias.missing", "out", zero, "late")


def _lecture_networks() -> Iterator[Case]:
    name = "cnn_dropout"
    small = put("net.1", eps=1e-3)
    yield case(name, "bn.epsilon", "net.1", small, "early", scale=0.01)
    train = put("net.6", track_running_stats=False, running_mean=None, running_var=None)
    yield case(name, "bn.training_mode", "net.6", train)

    def reset(keras_model, torch_model):
        torch_model.net[6].reset_running_stats()

    cause = "bn.statistics_not_copied"
    yield case(name, cause, "net.6", reset, weights="as_is")
    order = unpermuted("net.11", "net.11")
    yield case(name, "flatten.order", "net.11", order, "late", weights="as_is")
    active = put_module("net.9", _AlwaysDropout)
    yield case(name, "dropout.active", "net.9", active)
    name = "cnn_padded_pool"
    shifted = put_module("conv1.2", lambda: nn.MaxPool2d(3, 2, padding=1))
    yield case(name, "pool.size", "conv1.2", shifted, "early", scale=100.0)
    leak = put_module("classifier.2", lambda: nn.LeakyReLU(0.01))
    yield case(name, "activation.kind", "classifier.2", leak, "late")
    name = "cnn_two_layer"
    shift = padded("layer2.0", (0, 2, 0, 2))
    yield case(
        name,
        "conv.padding",
        "layer2.0",
        shift,
        also=("pad.amount",),
        torch_names="layer2.0.1 layer2.0.0 layer2.0",
    )
    wide = put("layer1.0", dilation=(2, 2), padding=(2, 2))
    yield case(name, "conv.dilation", "layer1.0", wide, "early")
    yield case("cnn_binary", "activation.kind", "relu", _relu6, "middle", scale=100.0)


def _relu6(keras_model, torch_model):
    torch_model.relu = nn.ReLU6()


class _AlwaysDropout(nn.Module):
    """Dropout whose owner forgot that it has a mode."""

    def forward(self, x):
        """Returns x with a half of its elements 0."""
        return F.dropout(x, 0.5)


def _deep_networks() -> Iterator[Case]:
    name = "resnet18"
    epsilon = put("layer3.0.bn2", eps=1e-3)
    yield case(name, "bn.epsilon", "layer3.0.bn2", epsilon)
    straight = become(WithoutShortcut, "layer2.1")
    yield case(name, "shortcut.missing", "layer2.1.bn2", straight)
    swap = weight("layer4.1.conv1", lambda w: w.swapaxes(0, 1))
    path = "layer4.1.conv1"
    yield case(name, "weights.transposed", path, swap, "late", weights="as_is")
    path, same = "layer4.0.conv1", padded("layer4.0.conv1", (0, 1, 0, 1))
    also = ("pad.amount",)
    inner = f"{path}.1 {path}.0 {path}"
    yield case(name, "conv.padding", path, same, "late", also=also, torch_names=inner)
    name = "alexnet"
    alpha = put("norm1", alpha=1e-4)
    yield case(name, "lrn.alpha", "norm1", alpha, "early", scale=100.0)
    yield case(name, "lrn.k", "norm2", put("norm2", k=1.0))
    name = "googlenet"
    narrow = put("norm2", size=3, alpha=3e-4)
    yield case(name, "lrn.size", "norm2", narrow, "early", scale=100.0)

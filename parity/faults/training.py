"""Faults of the backward pass and of training."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice

import torch.nn.functional as F

from parity.frameworks import keras, torch
from keras_impl import optim as keras_optim
from parity.faults.networks import NETWORKS
from parity.faults.pairs import (
    CONSEQUENCES,
    Case,
    Expected,
    Pair,
    Sides,
    build_sides,
    images,
)
from parity.faults.pairs import make_pair as _make_pair
from parity.faults.planting import adding, beside, planted, setting
from parity.faults.spec import Built, Network, Nodes, change, find, leaves, remove
from torch_impl import optim as torch_optim

ops = keras.ops


def without(network: Network, *kinds: str) -> Network:
    """Returns a network whose BatchNorms are PyTorch's, without some kinds of nodes."""
    nodes = network.nodes
    for path in list(leaves(nodes)):
        kind = find(nodes, path).kind
        if kind in kinds or path in kinds:
            nodes = remove(nodes, path)
        elif kind == "bn":
            nodes = change(nodes, path, unbiased=True)
    return replace(network, nodes=nodes)


# What is trained has no dropout, whose masks are random, and returns logits.
TRAINED = {
    name: without(NETWORKS[name], "dropout", "probabilities", "prob")
    for name in ("vgg", "strided", "residual", "inception", "alexnet", "mobile")
}
ORDER = tuple(TRAINED)


def plain_sgd(sides: Sides) -> dict[str, object]:
    """Returns gradient descent on both sides."""
    return {
        "keras_optimizer": keras_optim.sgd(0.0625),
        "torch_optimizer": torch_optim.sgd(sides.torch.model.parameters(), 0.0625),
    }


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    yield from _gradients()
    yield from _losses()
    yield from _statistics()


def _gradients() -> Iterator[Case]:
    rest = {"networks": TRAINED, "level": "backward"}

    def freeze(sides: Sides, wrong: Built, path: str) -> None:
        layer = wrong.layers[path]
        if isinstance(layer, keras.Layer):
            layer.trainable = False
        else:
            layer.requires_grad_(False)

    yield from planted(
        "layer.frozen",
        "vgg:features.conv1 residual:layer2.conv1 inception:mixed2.five "
        "vgg:classifier.fc2 alexnet:conv4",
        lambda nodes, path: nodes,
        plant=freeze,
        **rest,
    )
    rest["at"] = lambda path: (beside(path, "change"), path)
    yield from planted(
        "gradient.stopped",
        "strided:act1 residual:layer2.relu1 vgg:classifier.relu6 "
        "inception:mixed1.one_relu",
        adding("op", "change", function="stop"),
        **rest,
    )
    yield from planted(
        "gradient.scaled",
        "vgg:features.relu1 strided:act3 residual:layer3.relu3 mobile:block1.depth_act",
        adding("op", "change", function="scale_gradient", factor=0.125),
        **rest,
    )


def trained(
    cause: str,
    note: str,
    name: str,
    arguments: Callable[[Sides], dict],
    *,
    also: tuple[str, ...] = (),
    at: tuple[str, ...] = ("optimizer",),
    level: str = "training",
    keras_edit: Callable[[Nodes], Nodes] = lambda nodes: nodes,
    network: Network | None = None,
    tolerance: float = 0.0,
) -> Case:
    """Returns a case of the loss or of the optimizer.

    Args:
        cause: identifier; "equal" for a pair without a fault.
        note: tells it from others.
        name: of a network of those that are trained.
        arguments: of the diagnosis.
        also: other causes that are right too.
        at: what is to be named in a layer's place.
        level: "backward" or "training".
        keras_edit: of Keras's nodes.
        network: in place of the one of the name.
        tolerance: see `Pair`; chosen where it is 0, larger for Keras's optimizers,
            which round to float32.
    """
    network = network or TRAINED[name]

    def make() -> Pair:
        sides = build_sides(network, keras_edit(network.nodes))
        expected = () if cause == "equal" else (_expected(cause, also, at),)
        given = arguments(sides)
        optimizer = given.get("keras_optimizer")
        exact = optimizer is None or isinstance(optimizer, keras_optim.CoupledDecay)
        return _make_pair(
            sides,
            expected,
            level=level,
            given=images(network, 1.0, count=4),
            arguments=given,
            tolerance=tolerance or (1e-8 if exact else 1e-6),
        )

    title = f"{cause}{note and '-'}{note}/{name}/{level}"
    return Case(title, name, cause, "whole", 1.0, make)


def _expected(cause: str, also: tuple[str, ...], at: tuple[str, ...]) -> Expected:
    return Expected((cause, *also), at, at, CONSEQUENCES.get(cause, ()))


def _cross_entropy(**settings: object) -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


def _one_hot(labels, outputs):
    return ops.one_hot(
        ops.cast(labels, "int32"), outputs.shape[-1], dtype=outputs.dtype
    )


def _smoothed(labels, outputs):
    targets = _one_hot(labels, outputs)
    return ops.mean(
        keras.losses.categorical_crossentropy(
            targets, outputs, from_logits=True, label_smoothing=0.1
        )
    )


def _squared(labels, outputs):
    return ops.mean(ops.square(outputs - _one_hot(labels, outputs)))


def _torch_squared(outputs, labels):
    return F.mse_loss(outputs, F.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


def _torch_absolute(outputs, labels):
    return F.l1_loss(outputs, F.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


CLASS_WEIGHTS = [0.5, 1.0, 2.0, 1.5, 0.25, 3.0, 0.75]


def _weighted(labels, outputs):
    """Divides by the number of images, as Keras does."""
    losses = keras.losses.sparse_categorical_crossentropy(labels, outputs, True)
    weights = ops.convert_to_tensor(CLASS_WEIGHTS, outputs.dtype)
    return ops.mean(ops.take(weights, ops.cast(labels, "int32")) * losses)


def _torch_weighted() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(weight=torch.tensor(CLASS_WEIGHTS))


def _losses() -> Iterator[Case]:
    def nll_without_log(outputs, labels):
        return F.nll_loss(F.softmax(outputs, 1), labels)

    ours, theirs = _cross_entropy, torch.nn.CrossEntropyLoss
    table = [
        ("loss.reduction", "sum", lambda: ours(reduction="sum"), theirs, ()),
        ("loss.reduction", "torch", ours, lambda: theirs(reduction="sum"), ()),
        (
            "loss.from_logits",
            "default",
            keras.losses.SparseCategoricalCrossentropy,
            theirs,
            ("loss.kind",),
        ),
        (
            "loss.from_logits",
            "nll",
            ours,
            lambda: nll_without_log,
            ("loss.kind",),
        ),
        ("loss.label_smoothing", "keras", lambda: _smoothed, theirs, ()),
        (
            "loss.label_smoothing",
            "torch",
            ours,
            lambda: theirs(label_smoothing=0.2),
            (),
        ),
        ("loss.class_weights", "torch", ours, _torch_weighted, ()),
        ("loss.class_weights", "keras", lambda: _weighted, theirs, ()),
        (
            "loss.class_weights",
            "mean",
            lambda: _weighted,
            _torch_weighted,
            ("loss.reduction",),
        ),
        ("loss.kind", "mse", lambda: _squared, theirs, ()),
        ("loss.kind", "mae", lambda: _squared, lambda: _torch_absolute, ()),
    ]
    names = cycle(ORDER)
    for cause, note, make_ours, make_theirs, also in table:

        def arguments(sides, make_ours=make_ours, make_theirs=make_theirs):
            return {"keras_loss": make_ours(), "torch_loss": make_theirs()}

        settings = {"also": also, "at": ("loss",), "level": "backward"}
        for name in islice(names, 2):
            yield trained(cause, note, name, arguments, **settings)
    # Probabilities, which the port gives to a loss of logits.
    network = without(NETWORKS["strided"])

    def of_probabilities(sides):
        return {
            "keras_loss": keras.losses.SparseCategoricalCrossentropy(),
            "torch_loss": torch.nn.CrossEntropyLoss(),
        }

    settings = {"at": ("loss",), "level": "backward", "network": network}
    yield trained(
        "loss.from_logits", "probabilities", "strided", of_probabilities, **settings
    )
    for name, path in (
        ("vgg", "features.conv3"),
        ("alexnet", "fc7"),
        ("residual", "layer1.conv1"),
    ):
        yield trained(
            "loss.regularizer",
            path,
            name,
            lambda sides: {},
            at=("loss",),
            level="backward",
            keras_edit=lambda nodes, path=path: change(nodes, path, l2=0.01),
        )


def _statistics() -> Iterator[Case]:
    rest = {"networks": TRAINED, "level": "training", "arguments": plain_sgd}
    yield from planted(
        "bn.momentum",
        "strided:bn1 residual:layer2.bn1 mobile:block3.project_bn strided:bn4",
        setting(momentum=0.01),
        scale=1.0,
        **rest,
    )
    yield from planted(
        "bn.unbiased_variance",
        "strided:bn2 residual:layer1.bn1 mobile:block3.depth_bn "
        "residual:layer3.down_bn",
        setting(unbiased=False),
        side="keras",
        scale=1.0,
        **rest,
    )
    dropouts = {
        name: without(NETWORKS[name], "prob")
        for name in ("vgg", "alexnet", "inception")
    }
    rest["networks"] = dropouts
    yield from planted(
        "dropout.rate",
        "vgg:classifier.drop1 alexnet:drop6 inception:drop",
        setting(rate=0.2),
        scale=1.0,
        **rest,
    )


def equal_cases() -> Iterator[Case]:
    """Yields pairs whose losses are the same, written differently."""
    for index, (note, ours, theirs) in enumerate(
        (
            ("default", lambda: None, lambda: None),
            ("smoothed", lambda: _smoothed, _torch_smoothed),
            ("squared", lambda: _squared, lambda: _torch_squared),
        )
    ):

        def losses(sides, ours=ours, theirs=theirs):
            found = {"keras_loss": ours(), "torch_loss": theirs()}
            return {name: loss for name, loss in found.items() if loss}

        for name in ORDER[index::3]:
            yield trained("equal", note, name, losses, level="backward", tolerance=1e-9)


def _torch_smoothed() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(label_smoothing=0.1)

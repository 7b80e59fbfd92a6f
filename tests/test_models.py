"""Each side's models: what they are made of, their seeds, what they refuse."""

import math

import numpy as np
import pytest

import keras_impl
import torch_impl
from parity.probe import DEEP
from parity.spec import recipes

# Of the deep networks one of a kind.
KINDS = [name for name in recipes.names() if name not in DEEP]
MODELS = [*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)]

SIDES = {"keras": keras_impl, "torch": torch_impl}
pytestmark = [
    pytest.mark.parametrize("side", SIDES.values(), ids=SIDES.keys()),
]


def weights(side, model) -> list[np.ndarray]:
    if side is keras_impl:
        return [variable.numpy() for variable in model.weights]
    return [parameter.detach().numpy() for parameter in model.parameters()]


def logits(side, model, images: np.ndarray) -> np.ndarray:
    """Returns the logits of images (N, H, W, C)."""
    if side is keras_impl:
        return model(images).numpy()
    import torch

    tensor = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    return model.eval()(tensor).detach().numpy()


def test_the_list_of_models(side):
    assert len(side.list_models()) == 27
    assert side.list_models("*_1998") == ["lenet5_1998"]
    assert side.list_models("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    assert side.list_models("densenet*") == []


@pytest.fixture
def blank_weights(monkeypatch):
    """Makes the large weights zeros, which takes no time."""
    import torch

    keras = pytest.importorskip("keras")
    monkeypatch.setattr(
        keras.initializers.VarianceScaling,
        "__call__",
        lambda self, shape, dtype=None, **_: keras.ops.zeros(shape, dtype),
    )
    with torch.device("meta"):
        yield


def trainable(side, model) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the trainable weights by name."""
    if side is keras_impl:
        return {x.path: tuple(x.shape) for x in model.trainable_variables}
    return {name: tuple(x.shape) for name, x in model.named_parameters()}


COUNTS = {
    "alexnet": 60_965_224,
    "alexnet_owt": 61_100_840,
    "block_conv": 896,
    "block_conv_pool": 896,
    "block_dense": 330,
    "cnn_binary": 2_721,
    "cnn_dropout": 119_530,
    "cnn_padded_pool": 55_338,
    "cnn_two_layer": 50_186,
    "googlenet": 13_378_280,
    "googlenet_bn": 13_004_888,
    "lenet5": 44_426,
    "lenet5_1998": 61_706,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg16_conv": 138_357_544,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_parameters(side, name, blank_weights):
    shapes = trainable(side, side.create_model(name))
    assert sum(map(math.prod, shapes.values())) == COUNTS[name]
    assert recipes.find(name).parameters == COUNTS[name]


def test_googlenets_parameters_are_those_of_the_papers_table(side, blank_weights):
    """Worked out from table 1 and section 5: weights and biases, row by row."""

    def conv(inputs, outputs, size):
        return (inputs * size * size + 1) * outputs

    rows = [
        # inputs, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj
        (192, 64, 96, 128, 16, 32, 32),
        (256, 128, 128, 192, 32, 96, 64),
        (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64),
        (512, 128, 128, 256, 24, 64, 64),
        (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128),
        (832, 256, 160, 320, 32, 128, 128),
        (832, 384, 192, 384, 48, 128, 128),
    ]
    total = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3)
    for inputs, one, reduce3, three, reduce5, five, projection in rows:
        total += conv(inputs, one, 1) + conv(inputs, projection, 1)
        total += conv(inputs, reduce3, 1) + conv(reduce3, three, 3)
        total += conv(inputs, reduce5, 1) + conv(reduce5, five, 5)
    total += conv(1024, 1000, 1)
    assert total == 6_998_552
    for inputs in (512, 528):  # the heads behind 4a and 4d
        total += conv(inputs, 128, 1) + conv(4 * 4 * 128, 1024, 1) + conv(1024, 1000, 1)
    shapes = trainable(side, side.create_model("googlenet"))
    assert sum(map(math.prod, shapes.values())) == total


def test_alexnets_layers_as_the_lecture_counts_them(side, blank_weights):
    """Weights without biases, as in the notes: 11 * 11 * 3 * 48 * 2 = 35k, 307k, ..."""
    shapes = trainable(side, side.create_model("alexnet"))
    sizes = [math.prod(shape) for shape in shapes.values() if len(shape) > 1]
    assert sizes == [
        11 * 11 * 3 * 48 * 2,  # 35k
        5 * 5 * 48 * 128 * 2,  # 307k
        3 * 3 * 2 * 128 * 192 * 2,
        3 * 3 * 192 * 192 * 2,
        3 * 3 * 192 * 128 * 2,
        6 * 6 * 128 * 2 * 2048 * 2,  # the 13x13 map, pooled once more
        2048 * 2 * 2048 * 2,
        2048 * 2 * 1000,
    ]
    assert [round(size / 1000) for size in sizes[:2]] == [35, 307]


def test_the_configurable_network(side):
    model = side.create_model("cnn_dropout", use_batchnorm=True)
    assert sum(map(math.prod, trainable(side, model).values())) == 119_530 + 2 * 96
    wide = side.create_model("cnn_dropout", ksize=5, cdims=(8, 4, 6), hdims=(9, 7))
    shapes = [shape for shape in trainable(side, wide).values() if len(shape) == 1]
    assert shapes == [(8,), (4,), (6,), (9,), (7,), (10,)]
    with pytest.raises(ValueError, match="unknown argument of cnn_dropout 'cdim'; did"):
        side.create_model("cnn_dropout", cdim=(8,))
    with pytest.raises(ValueError, match="the smallest that works is 8x8"):
        side.create_model("cnn_dropout", cdims=(8, 4, 6), image_size=7)
    with pytest.raises(ValueError, match="unknown argument of vgg16 'configuration'"):
        side.create_model("vgg16", configuration="E")


def narrow(name: str) -> dict[str, int]:
    """Returns arguments that make a model's dense layers of 4,096 units narrow."""
    return {"hidden_units": 32} if name.startswith(("alexnet", "vgg")) else {}


@pytest.mark.parametrize("name", KINDS)
def test_logits_of_other_shapes(side, name):
    in_channels = 3 if recipes.find(name).in_channels == 1 else 1
    height = max(32, recipes.find(name).smallest_image_size + 1)
    model = side.create_model(
        name,
        num_classes=7,
        image_size=(height, height + 7),
        in_channels=in_channels,
        **narrow(name),
    )
    images = np.zeros((2, height, height + 7, in_channels), np.float32)
    found = logits(side, model, images)
    if name.startswith("block_conv"):
        assert found.shape[0] == 2
        assert 7 in found.shape
    else:
        assert found.shape == (2, 7)


@pytest.mark.parametrize("name", KINDS)
def test_the_smallest_image(side, name):
    recipe = recipes.find(name)
    smallest = recipe.smallest_image_size
    model = side.create_model(name, image_size=smallest, **narrow(name))
    images = np.zeros((1, smallest, smallest, recipe.in_channels), np.float32)
    found = logits(side, model, images)
    assert found.shape[0] == 1
    assert found.size == recipe.num_classes
    if smallest > 1:
        with pytest.raises(ValueError, match=f"the smallest that works is {smallest}x"):
            side.create_model(name, image_size=smallest - 1)


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "block_conv",
        "block_dense",
        "cnn_binary",
        "cnn_dropout",
        "cnn_two_layer",
    ]
    + ["lenet5", "lenet5_1998", "resnet18", "vgg11_bn", "vgg16_conv"],
)
def test_the_same_seed_gives_the_same_weights(side, name):
    size = recipes.find(name).smallest_image_size
    first, again, other = (
        weights(
            side, side.create_model(name, seed=seed, image_size=size, **narrow(name))
        )
        for seed in (3, 3, 4)
    )
    assert all(map(np.array_equal, first, again))
    assert not any(
        np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1
    )


def test_a_seed_leaves_the_random_state_alone(side):
    import random

    torch = pytest.importorskip("torch")
    unseeded = [weights(side, side.create_model("lenet5")) for _ in range(2)]
    assert not np.array_equal(unseeded[0][0], unseeded[1][0])
    states = random.getstate(), torch.get_rng_state()
    side.create_model("lenet5", seed=3)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_he_normal_is_not_cut_off(side):
    """A cut-off normal distribution has no weight beyond 2.3 standard deviations."""
    model = side.create_model("lenet5", seed=0, image_size=64)
    kernel = next(a for a in weights(side, model) if a.size == 120 * 16 * 13 * 13)
    deviation = np.sqrt(2 / (16 * 13 * 13))
    assert abs(kernel.std() / deviation - 1) < 0.01
    assert np.abs(kernel).max() > 4 * deviation
    biases = [array for array in weights(side, model) if array.ndim == 1]
    assert not np.concatenate(biases).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "lenet"},
            "unknown model 'lenet'; did you mean lenet5 or lenet5_1998? "
            f"choose from {', '.join(recipes.names())}",
        ),
        (
            {"name": "vgg16bn"},
            "unknown model 'vgg16bn'; did you mean vgg16_bn or vgg16 or vgg19_bn? "
            f"choose from {', '.join(recipes.names())}",
        ),
        (
            {"name": "lenet5", "num_classes": 0},
            "num_classes must be a positive integer, not 0",
        ),
        (
            {"name": "lenet5", "image_size": -28},
            "height must be a positive integer, not -28",
        ),
        (
            {"name": "lenet5", "image_size": (28, 28.5)},
            "width must be a positive integer, not 28.5",
        ),
        (
            {"name": "lenet5", "image_size": (28,)},
            "image_size must be a number or a pair, not (28,)",
        ),
        (
            {"name": "lenet5", "in_channels": True},
            "in_channels must be a positive integer, not True",
        ),
        (
            {"name": "lenet5", "image_size": 8},
            "image size 8x8 is too small for lenet5: the smallest that works is 16x16",
        ),
    ],
)
def test_what_is_refused(side, arguments, message):
    with pytest.raises(ValueError) as raised:
        side.create_model(**arguments)
    assert str(raised.value) == message

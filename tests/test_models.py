"""Each side's models: what they are made of, their seeds, what they refuse."""

import numpy as np
import pytest

import keras_impl
import torch_impl
from parity.spec import recipes

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

    return model(torch.from_numpy(np.moveaxis(images, 3, 1).copy())).detach().numpy()


def test_the_list_of_models(side):
    assert side.list_models() == ["lenet5", "lenet5_1998"]
    assert side.list_models("*_1998") == ["lenet5_1998"]
    assert side.list_models("vgg*") == []


@pytest.mark.parametrize(
    ("name", "count"), [("lenet5", 44_426), ("lenet5_1998", 61_706)]
)
def test_the_number_of_parameters(side, name, count):
    model = side.create_model(name)
    assert sum(array.size for array in weights(side, model)) == count
    assert recipes.find(name).parameters == count


@pytest.mark.parametrize("name", recipes.names())
def test_logits_of_other_shapes(side, name):
    model = side.create_model(name, num_classes=7, image_size=(24, 20), in_channels=3)
    images = np.zeros((2, 24, 20, 3), np.float32)
    assert logits(side, model, images).shape == (2, 7)


@pytest.mark.parametrize("name", recipes.names())
def test_the_smallest_image(side, name):
    smallest = recipes.find(name).smallest_image_size
    model = side.create_model(name, image_size=smallest)
    images = np.zeros((1, smallest, smallest, 1), np.float32)
    assert logits(side, model, images).shape == (1, 10)
    with pytest.raises(ValueError, match=f"the smallest that works is {smallest}x"):
        side.create_model(name, image_size=smallest - 1)


@pytest.mark.parametrize("name", recipes.names())
def test_the_same_seed_gives_the_same_weights(side, name):
    first, again, other = (
        weights(side, side.create_model(name, seed=seed)) for seed in (3, 3, 4)
    )
    assert all(map(np.array_equal, first, again))
    assert not any(
        np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.any()
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
            "choose from lenet5, lenet5_1998",
        ),
        (
            {"name": "resnet"},
            "unknown model 'resnet'; did you mean lenet5? "
            "choose from lenet5, lenet5_1998",
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

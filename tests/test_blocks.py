"""The lecture's building blocks, on inputs of its shapes."""

import numpy as np
import pytest

from parity.frameworks import torch
from keras_impl import create_model as create_keras_model
from torch_impl import create_model as create_torch_model


@pytest.mark.parametrize(
    ("name", "image", "output"),
    [
        ("block_conv", (32, 32, 3), (16, 32, 30, 30)),
        ("block_conv_pool", (32, 32, 3), (16, 32, 15, 15)),
        ("block_dense", (1, 1, 32), (16, 10)),
    ],
)
def test_the_lectures_shapes(name, image, output):
    images = np.random.default_rng(0).standard_normal((16, *image)).astype(np.float32)
    ours = create_keras_model(name)(images).numpy()
    if ours.ndim == 4:
        ours = np.moveaxis(ours, 3, 1)
    nchw = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
    theirs = create_torch_model(name)(nchw).detach().numpy()
    assert ours.shape == theirs.shape == output
    assert min(ours.min(), theirs.min()) == 0  # ReLU
    assert max(ours.max(), theirs.max()) > 0


def test_the_dense_block_takes_vectors_too():
    vectors = np.ones((16, 32), np.float32)
    assert create_keras_model("block_dense")(vectors).shape == (16, 10)
    assert create_torch_model("block_dense")(torch.ones(16, 32)).shape == (16, 10)


@pytest.mark.parametrize("name", ["block_conv", "block_dense"])
def test_he_normal_by_fan_out(name):
    deviation = {"block_conv": (2 / (32 * 9)) ** 0.5, "block_dense": (2 / 10) ** 0.5}
    many = {"in_channels": 400}
    weight = next(create_torch_model(name, seed=0, **many).parameters())
    kernel = create_keras_model(name, seed=0, **many).weights[0]
    for values in (weight.detach().numpy(), kernel.numpy()):
        assert values.std() == pytest.approx(deviation[name], rel=0.05)

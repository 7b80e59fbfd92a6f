"""vgg16_conv: vgg16's dense layers as convolutions; losses of maps of logits."""

import numpy as np
import pytest

import parity
from parity.frameworks import tf, torch
from keras_impl.steps import average_map as keras_average_map
from keras_impl.steps import cross_entropy as keras_cross_entropy
from parity import probe
from parity.conftest import shared_twins
from parity.spec import recipes
from torch_impl import create_model
from torch_impl import weights as torch_weights
from torch_impl.steps import average_map, cross_entropy


def dense_and_conv(**arguments):
    """Returns vgg16, and vgg16_conv with its weights, the dense ones reshaped."""
    dense = create_model("vgg16", **arguments).eval()
    conv = create_model("vgg16_conv", **arguments).eval()
    shapes = torch_weights.named_weights(conv)
    tensors = {
        name: array.reshape(tuple(shapes[name].shape))
        for name, array in torch_weights.state_dict(dense).items()
    }
    torch_weights.load_state_dict(conv, tensors, "vgg16")
    return dense.double(), conv.double()


@torch.inference_mode()
def test_the_same_function_at_224_pixels_and_a_map_beyond():
    dense, conv = dense_and_conv(seed=0, num_classes=6, hidden_units=40)
    images = torch.randn(1, 3, 288, 256, dtype=torch.float64)
    logits = conv(images[..., :224, :224])
    assert logits.shape == (1, 6)
    assert torch.allclose(logits, dense(images[..., :224, :224]), rtol=1e-10)
    assert conv(images).shape == (1, 6, 3, 2)


def test_as_many_parameters_as_vgg16():
    assert recipes.find("vgg16").parameters == recipes.find("vgg16_conv").parameters


def test_parity_holds_for_a_map():
    keras_model, torch_model = shared_twins("vgg16_conv")
    images = probe.images((None, 96, 64, 3))
    report = parity.compare(keras_model, torch_model, images)
    assert report.verdict == "equal", report
    assert keras_model(images).shape == (3, 3, 2, 1000)


def test_a_map_is_averaged_by_loss_and_prediction():
    maps = np.random.default_rng(0).standard_normal((4, 3, 2, 5))
    labels = np.array([0, 4, 2, 2])
    nchw = torch.from_numpy(np.moveaxis(maps, 3, 1).copy())
    mean = maps.mean((1, 2))
    assert np.allclose(average_map(nchw), mean)
    assert np.allclose(keras_average_map(tf.constant(maps)), mean)
    expected = -np.log(np.exp(mean) / np.exp(mean).sum(1, keepdims=True))
    expected = expected[np.arange(4), labels].mean()
    for loss in (
        keras_cross_entropy(tf.constant(maps), labels),
        cross_entropy(nchw, torch.from_numpy(labels)),
    ):
        assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_one_logit_is_binary_cross_entropy():
    logits = np.array([[-50.0], [0.3], [2.0], [800.0]])
    labels = np.array([0, 1, 0, 0])
    expected = np.logaddexp(0, np.where(labels, -1, 1) * logits[:, 0]).mean()
    for loss in (
        keras_cross_entropy(tf.constant(logits), labels),
        cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)),
    ):
        assert float(loss) == pytest.approx(expected, rel=1e-12)

"""Dropout and auxiliary heads take part in training: rungs 6 to 8 of such networks."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, tf, torch
from parity.conftest import MODELS, make_twins, shared_twins
from parity.masks import Masks, keras_masks, torch_masks
from parity.probe import DEEP
from parity.spec.errors import UsageError
from parity.spec.recipes import AUXILIARY_WEIGHT


def batches(keras_model, steps: int, classes: int, count: int = 4, seed: int = 0):
    """Returns the same random batches for both sides."""
    shape = keras_model.get_build_config()["input_shape"][1:]
    random = np.random.default_rng(seed)
    ours, theirs = [], []
    for _ in range(steps):
        images = random.standard_normal((count, *shape)).astype(np.float32)
        labels = random.integers(0, classes, count)
        ours.append((tf.constant(images), tf.constant(labels)))
        nchw = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
        theirs.append((nchw, torch.from_numpy(labels)))
    return ours, theirs


@pytest.mark.parametrize("name", MODELS)
def test_every_network_makes_the_same_steps(name, device):
    twins = shared_twins(name)
    steps = 1 if name in DEEP else 2
    report = parity.lockstep(
        *twins,
        *batches(twins[0], steps, classes(name)),
        optimizer="momentum",
        learning_rate=1e-4,
        device=device,
    )
    assert report.verdict == "equal", report


@pytest.mark.parametrize(
    "name", ["alexnet", "cnn_binary", "cnn_dropout", "cnn_padded_pool", "googlenet"]
)
def test_steps_of_adam(name, device):
    twins = shared_twins(name)
    report = parity.lockstep(
        *twins, *batches(twins[0], 3, classes(name)), device=device
    )
    assert report.verdict == "equal", report


@pytest.mark.parametrize("name", ["alexnet", "cnn_binary", "cnn_dropout"])
def test_the_first_losses_in_float32(name, device):
    twins = shared_twins(name)
    report = parity.lockstep(
        *twins, *batches(twins[0], 3, classes(name)), dtype="float32", device=device
    )
    assert report.verdict in ("equal", "rounding"), report


def classes(name: str) -> int:
    return 2 if name == "cnn_binary" else 10


def test_statistics_after_a_hundred_steps_with_dropout(device):
    twins = make_twins(
        "cnn_dropout", image_size=(10, 13), cdims=(6, 5), use_batchnorm=True
    )
    report = parity.lockstep(
        *twins,
        *batches(twins[0], 100, 10, count=8),
        optimizer="momentum",
        learning_rate=1e-3,
        device=device,
    )
    assert report.verdict == "equal", report
    assert len(report.steps) == 100


@pytest.mark.slow
def test_what_adam_makes_of_rounding_is_no_difference(device):
    """A bias before a BatchNorm has no gradient but rounding, and Adam moves it.

    The running mean behind it moves along. Both are as far from each other as two
    trainings under simulated rounding.
    """
    twins = make_twins(
        "cnn_dropout", image_size=(10, 13), cdims=(6, 5), use_batchnorm=True
    )
    steps = batches(twins[0], 100, 10, count=8)
    report = parity.lockstep(*twins, *steps, device=device)
    assert report.verdict in ("equal", "rounding"), report
    assert set(report.undetermined) <= {"net.0.bias", "net.5.bias"}
    torch_model = twins[1]
    torch_model.net[6].momentum = 0.1001
    report = parity.lockstep(*twins, *steps, device=device)
    culprit = report.first_divergence.culprit
    assert culprit == "weights of net.6.running_mean", report


@pytest.mark.slow
def test_a_deep_network_with_adam(device):
    """Fifty layers magnify the rounding of float64, and Adam once more."""
    keras_model, torch_model = make_twins("resnet50", image_size=(32, 36))
    steps = batches(keras_model, 2, 10, count=8)
    report = parity.lockstep(keras_model, torch_model, *steps, device=device)
    assert report.verdict in ("equal", "rounding"), report
    weight = torch_model.layer3[2].conv2.weight
    weight.register_hook(lambda gradient: 1.00001 * gradient)
    report = parity.lockstep(keras_model, torch_model, *steps, device=device)
    assert report.first_divergence.number == 1
    culprit = report.first_divergence.culprit
    assert culprit == "gradients of layer3.2.conv2.weight", report


class Forgotten(torch.nn.Module):
    """A dropout that does nothing."""

    def forward(self, x):
        return x


def forget_dropout(keras_model, torch_model):
    torch_model.drop6 = Forgotten()


def other_rate(keras_model, torch_model):
    torch_model.drop7.p = 0.4


@pytest.mark.parametrize("plant", [forget_dropout, other_rate])
def test_another_dropout_is_found(plant):
    keras_model, torch_model = make_twins("alexnet")
    plant(keras_model, torch_model)
    report = parity.lockstep(keras_model, torch_model, *batches(keras_model, 1, 10))
    assert report.first_divergence.culprit == "loss"


def test_dropout_by_element_for_dropout_by_channel_is_found():
    keras_model, torch_model = make_twins("cnn_dropout", image_size=(8, 13))
    torch_model.net[3] = torch.nn.Dropout(0.5)
    report = parity.lockstep(keras_model, torch_model, *batches(keras_model, 1, 10))
    assert report.first_divergence.culprit == "loss"


def scale_output(model):
    return model.aux2.fc1.register_forward_hook(lambda module, x, y: 1.001 * y)


def scale_gradient(model):
    return model.aux1.conv.conv.bias.register_hook(lambda gradient: 1.001 * gradient)


@pytest.mark.parametrize(
    ("plant", "culprit"),
    [(scale_output, "loss"), (scale_gradient, "gradients of aux1.conv.conv.bias")],
)
def test_a_wrong_auxiliary_head_is_found(plant, culprit):
    keras_model, torch_model = shared_twins("googlenet")
    hook = plant(torch_model)
    try:
        report = parity.lockstep(keras_model, torch_model, *batches(keras_model, 1, 10))
    finally:
        hook.remove()
    assert report.first_divergence.culprit == culprit, report


def test_another_weight_of_the_auxiliary_heads_is_found(monkeypatch):
    import torch_impl.steps

    assert AUXILIARY_WEIGHT == torch_impl.steps.AUXILIARY_WEIGHT == 0.3
    monkeypatch.setattr(torch_impl.steps, "AUXILIARY_WEIGHT", 1.0)
    twins = shared_twins("googlenet")
    report = parity.lockstep(*twins, *batches(twins[0], 1, 10))
    assert report.first_divergence.culprit == "loss"


def test_masks_are_the_same_elements_on_both_sides():
    """Behind a flattening too, where Keras has the pixels in another order."""
    keras_model, torch_model = make_twins("alexnet_owt", image_size=(95, 130))
    images = np.ones((2, 95, 130, 3), np.float32)
    with keras_masks(keras_model, seed=3) as masks:
        masks.step(5)
        x = keras_model.flatten(keras_model.avgpool(keras_model.features(images)))
        ours = keras_model.classifier.layers[0](x, training=True)
    with torch_masks(torch_model, seed=3) as masks, torch.no_grad():
        masks.step(5)
        nchw = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
        x = torch_model.flatten(torch_model.avgpool(torch_model.features(nchw)))
        theirs = torch_model.classifier[0].train()(x)
    ours = np.moveaxis(ours.numpy().reshape(2, 6, 6, 256), 3, 1).reshape(2, -1)
    assert np.allclose(ours, theirs.numpy(), atol=1e-4)
    dropped = (theirs.numpy() == 0).mean()
    assert 0.45 < dropped < 0.55 + (x.numpy() == 0).mean()


def test_masks_change_with_step_path_and_call():
    masks = Masks(seed=0)
    first, second = (masks.draw("drop", 0.25, (50, 40)) for _ in range(2))
    other = masks.draw("other", 0.25, (50, 40))
    masks.step(1)
    later = masks.draw("drop", 0.25, (50, 40))
    masks.step(0)
    again = masks.draw("drop", 0.25, (50, 40))
    assert np.array_equal(first, again)
    for mask in (second, other, later):
        assert not np.array_equal(first, mask)
    assert set(np.unique(first)) == {0, 1 / 0.75}
    assert abs(first.mean() - 1) < 0.05


def test_the_models_own_dropout_is_put_back():
    keras_model, torch_model = shared_twins("cnn_padded_pool")
    layer, module = keras_model.classifier.layers[3], torch_model.classifier[3]
    with keras_masks(keras_model), torch_masks(torch_model):
        assert "call" in vars(layer)
        assert "forward" in vars(module)
        x = np.ones((4, 9), np.float32)
        assert np.array_equal(layer(x, training=False), x)
    assert "call" not in vars(layer)
    assert "forward" not in vars(module)


def test_dropout_of_another_kind_is_refused():
    keras_model = keras.Sequential([keras.Input((3,)), keras.layers.AlphaDropout(0.5)])
    with pytest.raises(UsageError, match="AlphaDropout '0' cannot be given masks"):
        keras_masks(keras_model).__enter__()
    layer = keras.layers.SpatialDropout1D(0.5)
    keras_model = keras.Sequential([keras.Input((5, 3)), layer])
    with pytest.raises(UsageError, match="SpatialDropout1D '0' cannot be given masks"):
        keras_masks(keras_model).__enter__()
    torch_model = torch.nn.Sequential(torch.nn.AlphaDropout(0.5))
    with pytest.raises(UsageError, match="Dropout2d can"):
        torch_masks(torch_model).__enter__()

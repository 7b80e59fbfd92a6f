"""Rung 8: the running statistics of BatchNorm agree, step by step."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, tf, torch
from keras_impl.layers import BatchNormalization
from keras_impl.steps import compute_gradients as keras_gradients
from keras_impl.steps import make_predictor as make_keras_predictor
from torch_impl.steps import compute_gradients as torch_gradients
from torch_impl.steps import make_predictor as make_torch_predictor


class Net(keras.Model):
    def __init__(self, normalisation=BatchNormalization, rate=0.0):
        super().__init__()
        self.conv = keras.layers.Conv2D(4, 3)
        self.norm = normalisation()
        self.drop = keras.layers.Dropout(rate)
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(3)

    def call(self, images, training=None):
        x = self.norm(self.conv(images), training=training)
        x = self.drop(keras.ops.relu(x), training=training)
        return self.head(self.flatten(x))


class TorchNet(torch.nn.Module):
    def __init__(self, rate=0.0):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout(rate)
        self.flatten = torch.nn.Flatten()
        self.head = torch.nn.Linear(4 * 5 * 3, 3)

    def forward(self, images):
        x = self.drop(torch.relu(self.norm(self.conv(images))))
        return self.head(self.flatten(x))


random = np.random.default_rng(0)
IMAGES = random.standard_normal((8, 6, 7, 5, 2)).astype(np.float32)
LABELS = random.integers(0, 3, (8, 6))


def batches(steps):
    ours = [(tf.constant(IMAGES[i]), tf.constant(LABELS[i])) for i in range(steps)]
    theirs = [
        (torch.from_numpy(np.moveaxis(x.numpy(), 3, 1).copy()), torch.tensor(y.numpy()))
        for x, y in ours
    ]
    return ours, theirs


def twins(normalisation=BatchNormalization, rate=0.0):
    keras_model, torch_model = Net(normalisation, rate), TorchNet(rate)
    keras_model(keras.Input((7, 5, 2)))
    torch.manual_seed(0)
    torch_model.norm.running_mean.copy_(torch.tensor([0.5, -0.3, 0.2, 0.1]))
    torch_model.norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.5, 0.7]))
    parity.copy_weights(torch_model, keras_model)
    return keras_model, torch_model


def stock():
    return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)


def stock_epsilon():
    return BatchNormalization(epsilon=1e-3)


def stock_momentum():
    return BatchNormalization(momentum=0.99)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_running_statistics_in_lockstep(optimizer, dtype, device):
    # The convolution's bias has no effect before the normalisation: its gradient is
    # rounding and nothing else, which must not be taken for a difference.
    report = parity.lockstep(
        *twins(),
        *batches(8),
        optimizer=optimizer,
        learning_rate=1e-3,
        dtype=dtype,
        device=device,
    )
    assert report.undetermined == ("conv.bias",)
    assert report.verdict in ("equal", "rounding"), report
    assert report.verdict == "equal" or dtype == "float32"


def test_a_parameter_with_a_gradient_is_never_left_out():
    keras_model, torch_model = twins()
    torch_model.head.bias.register_hook(lambda gradient: 0 * gradient)
    report = parity.lockstep(keras_model, torch_model, *batches(2))
    assert report.first_divergence.culprit == "gradients of head.bias"
    assert report.undetermined == ("conv.bias",)


@pytest.mark.parametrize(
    ("normalisation", "culprit"),
    [(stock, "running_var"), (stock_momentum, "running_mean")],
)
def test_other_running_statistics_are_found(normalisation, culprit):
    report = parity.lockstep(*twins(normalisation), *batches(2))
    assert report.first_divergence.number == 1
    assert report.first_divergence.culprit == f"weights of norm.{culprit}"


def test_another_epsilon_is_found():
    report = parity.compare(*twins(stock_epsilon))
    assert report.first_divergence.torch_name == "norm"


def test_statistics_that_were_not_copied_are_found():
    keras_model, torch_model = twins()
    torch_model.norm.reset_running_stats()
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "norm"


def test_the_running_variance_is_the_unbiased_one():
    layer = BatchNormalization(momentum=0.0)
    images = random.standard_normal((2, 3, 1, 4)).astype(np.float32)
    layer(images, training=True)
    expected = images.reshape(-1, 4).var(0, ddof=1)
    assert np.allclose(layer.moving_variance, expected, rtol=1e-5)


def test_the_models_are_left_as_they_were():
    keras_model, torch_model = twins()
    before = [variable.numpy() for variable in keras_model.variables]
    state = {k: v.clone() for k, v in torch_model.state_dict().items()}
    parity.lockstep(keras_model, torch_model, *batches(2), dtype="float32")
    parity.compare(keras_model, torch_model, dtype="float32")
    for variable, value in zip(keras_model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)
    for name, value in torch_model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_training_uses_the_batchs_statistics_and_prediction_the_running_ones():
    (images, labels), (torch_images, torch_labels) = (x[0] for x in batches(1))
    keras_model, torch_model = twins(rate=0.5)
    ours = make_keras_predictor(keras_model)(images)
    torch_model.train()
    theirs = make_torch_predictor(torch_model)(torch_images)
    again = make_torch_predictor(torch_model)(torch_images)
    assert np.array_equal(theirs, again)  # no dropout
    assert np.allclose(ours, theirs, atol=1e-5)
    keras_mean = keras_model.norm.moving_mean.numpy()
    torch_mean = torch_model.norm.running_mean.clone()
    torch_model.eval()
    keras_gradients(keras_model, images, labels)
    torch_gradients(torch_model, torch_images, torch_labels)
    assert not np.array_equal(keras_mean, keras_model.norm.moving_mean)
    assert not torch.equal(torch_mean, torch_model.norm.running_mean)


@pytest.mark.parametrize("mean", [0, 1, 10, 100, 1000])
def test_large_means_before_a_normalisation_are_rounding(mean):
    """The convolution's rounding is magnified by mean / deviation, on both sides."""
    keras_model, torch_model = twins()
    with torch.no_grad():
        torch_model.conv.bias.fill_(mean)
        torch_model.norm.running_mean.fill_(mean)
    parity.copy_weights(torch_model, keras_model)
    assert parity.compare(keras_model, torch_model).verdict == "equal"
    report = parity.compare(keras_model, torch_model, dtype="float32")
    assert report.verdict == "rounding", report
    report = parity.compare_gradients(keras_model, torch_model, dtype="float32")
    assert report.verdict == "rounding", report

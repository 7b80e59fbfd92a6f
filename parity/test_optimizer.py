"""Rung 7: 100 steps in lockstep; each optimizer makes the same steps on both sides."""

from pathlib import Path

import numpy as np
import pytest

import parity
import parity.training
from parity.frameworks import keras, torch
from keras_impl import data as keras_data
from parity.conftest import make_twins
from parity.spec import datasets
from parity.spec.errors import UsageError
from torch_impl import data as torch_data

RATES = {"sgd": 0.01, "momentum": 0.01, "adam": 1e-3}


def batches(steps, batch_size=32, size=28, torch_shift=0):
    """Returns both sides' first batches of the digits; PyTorch's may be shifted."""
    sides = []
    for data, shift in ((keras_data, 0), (torch_data, torch_shift)):
        digits = data.load("digits", Path("unused"), size, size)
        count = steps * batch_size
        statistics = (digits.mean, digits.std)
        images, labels = data.to_tensors(
            digits.train_images, digits.train_labels, *statistics
        )
        indices = np.roll(np.arange(count) % len(labels), shift)
        order = np.split(indices, steps)
        sides.append(list(data.batches(images, labels, order)))
    return sides


def twins():
    return make_twins("lenet5", image_size=28)


@pytest.mark.parametrize("optimizer", RATES)
def test_a_hundred_steps_in_float64(optimizer, device):
    report = parity.lockstep(
        *twins(),
        *batches(100),
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        device=device,
    )
    assert report.verdict == "equal", report
    assert len(report.steps) == 100
    assert max(step.errors["weights"] for step in report.steps) < 1e-9
    assert report.steps[-1].keras_loss < report.steps[0].keras_loss / 4


def stock_adam(name, learning_rate):
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8)


def stock_momentum(name, learning_rate):
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


def adam_with_another_epsilon(name, learning_rate, parameters):
    return torch.optim.Adam(parameters, learning_rate, eps=1e-7)


@pytest.mark.parametrize(
    ("side", "factory", "optimizer", "step"),
    [
        ("keras", stock_adam, "adam", 1),  # epsilon inside the corrected root
        ("keras", stock_momentum, "momentum", 2),  # momentum rounded to float32
        ("torch", adam_with_another_epsilon, "adam", 1),
    ],
)
def test_an_optimizer_that_departs_is_found(
    side, factory, optimizer, step, monkeypatch
):
    monkeypatch.setattr(parity.training, f"create_{side}_optimizer", factory)
    report = parity.lockstep(
        *twins(), *batches(3), optimizer=optimizer, learning_rate=RATES[optimizer]
    )
    assert report.verdict == "different"
    assert report.first_divergence.number == step
    assert report.first_divergence.culprit.startswith("weights of "), report


def test_a_shifted_batch_is_found():
    report = parity.lockstep(*twins(), *batches(2, torch_shift=1))
    assert report.first_divergence.number == 1
    assert report.first_divergence.culprit == "batch of images"


def test_a_wrong_gradient_is_found():
    keras_model, torch_model = twins()
    torch_model.fc1.bias.register_hook(lambda gradient: gradient * 1.00001)
    report = parity.lockstep(keras_model, torch_model, *batches(2))
    assert report.first_divergence.number == 1
    assert report.first_divergence.culprit == "gradients of fc1.bias"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "rmsprop"}, "unknown optimizer 'rmsprop'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"device": "cuda"}, "unknown device 'cuda'"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        parity.lockstep(*twins(), *batches(1), **arguments)
    with pytest.raises(UsageError, match="there is no batch"):
        parity.lockstep(*twins(), [], [])


def test_the_models_are_left_as_they_were():
    keras_model, torch_model = twins()
    before = [variable.numpy() for variable in keras_model.variables]
    state = {k: v.clone() for k, v in torch_model.state_dict().items()}
    parity.lockstep(keras_model, torch_model, *batches(2))
    for variable, value in zip(keras_model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)
    for name, value in torch_model.state_dict().items():
        assert torch.equal(value, state[name])


def test_batches_come_in_the_same_order_every_time():
    first, again, next_epoch = (
        np.concatenate(
            list(datasets.epoch_batches(100, 32, drop_last=False, seed=1, epoch=epoch))
        )
        for epoch in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_epoch)
    assert sorted(first) == sorted(next_epoch) == list(range(100))

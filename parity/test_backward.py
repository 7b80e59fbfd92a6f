"""Rung 6: the gradient by every parameter and by the input agrees."""

import numpy as np
import pytest
import torch.nn.functional as F

import parity
from parity.frameworks import keras, torch
from parity.conftest import make_twins
from parity.spec.tolerances import TOLERANCES
from torch_impl.models import lenet


def test_gradients_are_equal_in_float64(twins, device):
    report = parity.compare_gradients(*twins, device=device)
    assert report.verdict == "equal", report
    assert report.error < TOLERANCES["gradients"]
    parameters = [name for name, _ in twins[1].named_parameters()]
    names = ["loss", *reversed(parameters), "images"]
    assert [layer.torch_name for layer in report.layers] == names


def test_gradients_differ_by_rounding_in_float32(twins, device):
    report = parity.compare_gradients(*twins, dtype="float32", device=device)
    assert report.verdict in ("equal", "rounding"), report


class Backwards(torch.autograd.Function):
    """Right forwards, wrong backwards by one part in a million."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * (1 + 1e-6)


class WrongBackwards(lenet.LeNet5):
    def forward(self, images):
        x = Backwards.apply(self.pool1(self.conv1(images)))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.out(x)


class Detached(lenet.LeNet5):
    def forward(self, images):
        x = self.pool1(self.conv1(images))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = F.relu(self.fc2(F.relu(self.fc1(x)).detach()))
        return self.out(x)


@pytest.mark.parametrize(
    ("faulty", "first"), [(WrongBackwards, "conv1.bias"), (Detached, "fc1.bias")]
)
def test_a_fault_in_the_backward_pass_only_is_found(faulty, first):
    keras_model, torch_model = make_twins("lenet5")
    torch_model.__class__ = faulty
    assert parity.compare(keras_model, torch_model).verdict == "equal"
    report = parity.compare_gradients(keras_model, torch_model)
    assert report.verdict == "different"
    assert report.first_divergence.torch_name == first, report


def test_a_frozen_parameter_on_one_side_is_found():
    keras_model, torch_model = make_twins("lenet5")
    keras_model.fc2.trainable = False
    report = parity.compare_gradients(keras_model, torch_model)
    found = report.first_divergence
    assert (found.keras_name, found.torch_name) == (None, "fc2.bias")


def test_a_wrong_forward_pass_shows_in_the_loss_first():
    keras_model, torch_model = make_twins("lenet5")
    keras_model.fc1.activation = keras.activations.tanh
    report = parity.compare_gradients(keras_model, torch_model)
    assert report.first_divergence.torch_name == "loss"


def scale_weight(model):
    model.aux1.fc1.weight.data *= 3


def forget_bias(model):
    model.aux2.conv.conv.bias.data *= 0


@pytest.mark.parametrize(
    ("plant", "layer"), [(scale_weight, "aux1.fc1"), (forget_bias, "aux2.conv.conv")]
)
def test_a_fault_in_a_head_that_runs_in_training_only_is_found(plant, layer):
    keras_model, torch_model = make_twins("googlenet")
    report = parity.compare(keras_model, torch_model)
    assert report.verdict == "equal", report
    assert {"aux1.fc2", "aux2.fc2"} <= {row.torch_name for row in report.layers}
    plant(torch_model)
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == layer, report
    report = parity.compare_gradients(keras_model, torch_model)
    assert report.first_divergence.torch_name == "loss"
    assert all(np.isfinite(row.error) for row in report.layers)

"""Rung 4: the outputs agree, and a fault is found at its layer."""

import numpy as np
import pytest
import torch.nn.functional as F

import parity
from parity.frameworks import keras, torch
from parity.conftest import make_twins
from parity.spec.tolerances import TOLERANCES
from torch_impl.models import lenet


def test_outputs_are_equal_in_float64(twins, device):
    report = parity.compare(*twins, device=device)
    assert report.verdict == "equal", report
    assert report.first_divergence is None
    assert report.error < TOLERANCES["outputs"]


def test_outputs_differ_by_rounding_in_float32(twins, device):
    report = parity.compare(*twins, dtype="float32", device=device)
    assert report.verdict in ("equal", "rounding"), report


def test_every_layer_is_compared_in_execution_order():
    report = parity.compare(*make_twins("lenet5"))
    names = ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "fc2", "out"]
    assert [layer.keras_name for layer in report.layers] == names
    assert [layer.torch_name for layer in report.layers] == names


class WithoutReLU(lenet.LeNet5):
    def forward(self, images):
        x = self.pool1(self.conv1(images))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = F.relu(self.fc1(x))
        return self.out(self.fc2(x))


class WithTanh(lenet.LeNet5):
    def forward(self, images):
        x = self.pool1(self.conv1(images))
        x = self.flatten(self.pool2(self.conv2(x)))
        x = torch.tanh(self.fc1(x))
        return self.out(F.relu(self.fc2(x)))


class WithFunctionalPooling(lenet.LeNet5):
    def forward(self, images):
        x = F.max_pool2d(self.conv1(images), 2)
        x = self.flatten(self.pool2(self.conv2(x)))
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.out(x)


class WithSoftmax(lenet.LeNet5):
    def forward(self, images):
        return super().forward(images).softmax(1)


class WithScaledInput(lenet.LeNet5):
    def forward(self, images):
        return super().forward(images / 255)


def become(faulty):
    def plant(keras_model, torch_model):
        torch_model.__class__ = faulty

    return plant


def swap_kernel_axes(keras_model, torch_model):
    torch_model.conv2.weight.data = torch_model.conv2.weight.data.transpose(2, 3)


def pad_once(keras_model, torch_model):
    torch_model.conv1.padding = (1, 1)


def shift_padding(keras_model, torch_model):
    convolve = torch_model.conv1.forward
    torch_model.conv1.forward = lambda x: convolve(F.pad(x, (1, -1)))


def average_instead_of_maximum(keras_model, torch_model):
    torch_model.pool2 = torch.nn.AvgPool2d(2)


def unpermuted_flatten(keras_model, torch_model):
    kernel = keras_model.fc1.kernel.numpy()
    torch_model.fc1.weight.data = torch.from_numpy(kernel.T.copy())


def scale_bias(keras_model, torch_model):
    torch_model.conv2.bias.data *= 1.001


def scale_keras_bias(keras_model, torch_model):
    keras_model.conv2.bias.assign(keras_model.conv2.bias * 1.001)


def put_nan(keras_model, torch_model):
    torch_model.fc2.weight.data[3, 4] = np.nan


def leaky_keras(keras_model, torch_model):
    dense = keras_model.fc1.call
    object.__setattr__(keras_model.fc1, "call", lambda x, **_: dense(x) - 0.01)


@pytest.mark.parametrize(
    ("plant", "layer", "where"),
    [
        (swap_kernel_axes, "conv2", "output"),
        (pad_once, "conv1", "output"),
        (shift_padding, "conv1", "output"),
        (become(WithoutReLU), "fc2", "after"),
        (become(WithTanh), "fc1", "after"),
        (become(WithSoftmax), "out", "after"),
        (become(WithScaledInput), "conv1", "before"),
        (average_instead_of_maximum, "pool2", "output"),
        (unpermuted_flatten, "fc1", "output"),
        (scale_bias, "conv2", "output"),
        (scale_keras_bias, "conv2", "output"),
        (put_nan, "fc2", "output"),
        (become(WithFunctionalPooling), "pool1", "output"),
        (leaky_keras, "fc1", "output"),
    ],
)
def test_a_fault_is_found_at_its_layer(plant, layer, where):
    # 36 pixels wide, 29 high: padding by one pixel leaves the flattened size alone.
    keras_model, torch_model = make_twins("lenet5", image_size=(29, 36))
    plant(keras_model, torch_model)
    report = parity.compare(keras_model, torch_model)
    assert report.verdict == "different"
    found = report.first_divergence
    assert (found.keras_name or found.torch_name, found.where) == (layer, where), report
    assert layer in str(report).splitlines()[-1]


def test_maximum_instead_of_average_is_found():
    keras_model, torch_model = make_twins("lenet5_1998")
    torch_model.pool1 = torch.nn.MaxPool2d(2)
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "pool1"


def test_a_transposed_square_dense_is_found():
    keras_model, torch_model = make_twins("lenet5", num_classes=84)
    torch_model.out.weight.data = torch_model.out.weight.data.T.clone()
    report = parity.compare(keras_model, torch_model)
    assert report.first_divergence.torch_name == "out"


def test_bfloat16_inside_float32_is_found():
    keras_model, torch_model = make_twins("lenet5")
    dense = torch_model.fc1.forward

    def rough(x):
        return dense(x.bfloat16().float()) if x.dtype == torch.float32 else dense(x)

    torch_model.fc1.forward = rough
    assert parity.compare(keras_model, torch_model).verdict == "equal"
    report = parity.compare(keras_model, torch_model, dtype="float32")
    assert report.verdict == "different"
    assert report.first_divergence.torch_name == "fc1"
    assert report.first_divergence.torch_error > report.first_divergence.bound
    assert report.first_divergence.keras_error < report.first_divergence.bound


def test_assert_parity_shows_the_table():
    keras_model, torch_model = make_twins("lenet5")
    assert parity.assert_parity(keras_model, torch_model).verdict == "equal"
    scale_bias(keras_model, torch_model)
    with pytest.raises(AssertionError, match="first divergence: conv2"):
        parity.assert_parity(keras_model, torch_model)


def test_the_models_are_left_as_they_were():
    keras_model, torch_model = make_twins("lenet5")
    images = np.ones((1, *keras_model.get_build_config()["input_shape"][1:]), "f4")
    torch_model.train()
    torch_model(torch.from_numpy(np.moveaxis(images, 3, 1))).sum().backward()
    before = keras_model(images).numpy()
    variables = [(id(v._value), v.dtype) for v in keras_model.variables]
    parameters = [(p.data_ptr(), p.dtype, p.grad) for p in torch_model.parameters()]
    for dtype in ("float64", "float32"):
        parity.compare(keras_model, torch_model, dtype=dtype)
        parity.compare_gradients(keras_model, torch_model, dtype=dtype)
    assert variables == [(id(v._value), v.dtype) for v in keras_model.variables]
    assert np.array_equal(before, keras_model(images))
    assert keras.config.floatx() == "float32"
    assert {layer.dtype_policy.name for layer in keras_model.layers} == {"float32"}
    after = [(p.data_ptr(), p.dtype, p.grad) for p in torch_model.parameters()]
    for (*old, gradient), (*new, same) in zip(parameters, after, strict=True):
        assert old == new
        assert gradient is same
    assert torch_model.training

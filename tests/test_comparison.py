"""The tools of the comparison: errors, reports, what they refuse."""

import json
import math

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch
from parity.conftest import make_twins
from parity.precision import keras_as
from parity.spec.errors import UsageError
from parity.spec.tolerances import relative_error

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "reference", "error"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([0.0, 0.0], [3.0, 4.0], 1.0),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([0.0], [0.0], 0.0),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF, 1.0], [INF, 1.0], 0.0),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([INF, 1.0], [NAN, 1.0], INF),
        ([1.0], [1.0, 1.0], INF),
        ([[1.0, 1.0]], [1.0, 1.0], INF),
    ],
)
def test_relative_error(value, reference, error):
    assert relative_error(np.array(value), np.array(reference)) == pytest.approx(error)


def test_a_constant_factor_and_a_permutation_are_errors():
    reference = np.arange(1.0, 100.0)
    assert relative_error(2 * reference, reference) == pytest.approx(1.0)
    assert relative_error(reference[::-1], reference) > 0.5


def test_the_report_as_json(tmp_path):
    keras_model, torch_model = make_twins("lenet5")
    torch_model.fc2.bias.data[0] = NAN
    report = parity.compare(keras_model, torch_model)
    report.to_json(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["verdict"] == "different"
    assert content["first_divergence"]["torch_name"] == "fc2"
    assert content["first_divergence"]["error"] == "Infinity"
    assert [layer["keras_name"] for layer in content["layers"]][0] == "conv1"
    with pytest.raises(UsageError, match="cannot write"):
        report.to_json(tmp_path / "report.json" / "below a file.json")


def test_images_of_ones_own():
    keras_model, torch_model = make_twins("lenet5")
    height, width = keras_model.get_build_config()["input_shape"][1:3]
    images = np.random.default_rng(0).random((1, height, width, 1))
    assert parity.compare(keras_model, torch_model, images).verdict == "equal"
    with pytest.raises(UsageError, match="images are NHWC"):
        parity.compare(keras_model, torch_model, np.moveaxis(images, 3, 1))
    with pytest.raises(UsageError, match="do not fit model 'lenet5'"):
        parity.compare(keras_model, torch_model, images[0])


def test_what_is_refused():
    keras_model, torch_model = make_twins("lenet5")
    with pytest.raises(UsageError, match="unknown dtype 'float16'; did you mean float"):
        parity.compare(keras_model, torch_model, dtype="float16")
    with pytest.raises(UsageError, match="unknown device 'cuda'"):
        parity.compare(keras_model, torch_model, device="cuda")
    with pytest.raises(UsageError, match="is not built: call it on images first"):
        parity.compare(Empty(), torch_model)


class Empty(keras.Model):
    def call(self, images):
        return images


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(2, 4, 3)
        self.head = torch.nn.Linear(4 * 4 * 6, 3)

    def forward(self, images):
        return self.head(self.features(images).relu_().flatten(1))


def functional():
    images = keras.Input((6, 8, 2))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="features")(images)
    x = keras.layers.Flatten(name="flat")(x)
    return keras.Model(images, keras.layers.Dense(3, name="head")(x))


def test_a_functional_model_is_cast_whole():
    model = functional()
    images = np.random.default_rng(0).random((2, 6, 8, 2))
    exact = images.astype(np.float32) != images
    assert exact.all()
    with keras_as(model, "float64", "cpu"):
        first = model(images).numpy()
        second = model(images.astype(np.float32).astype(np.float64)).numpy()
    assert first.dtype == np.float64
    assert (first != second).any()  # the input is not rounded to float32
    assert model(images).dtype == "float32"


def test_a_functional_model_and_an_operation_in_place():
    keras_model, torch_model = functional(), Net()
    parity.copy_weights(keras_model, torch_model)
    report = parity.compare(keras_model, torch_model)
    rows = {layer.keras_name: layer for layer in report.layers}
    # The outputs are the same function, and what has no partner is still a failure:
    # the Keras side's layers hold their activation and a flattening of their own.
    assert rows["head"].error < 1e-10
    assert rows["flat"].torch_name is None
    assert report.verdict == "different"
    assert "flat (only in keras)" in str(report)


def test_a_failure_inside_puts_the_model_back():
    keras_model, _ = make_twins("lenet5")
    with pytest.raises(ZeroDivisionError), keras_as(keras_model, "float64", "cpu"):
        1 / 0  # noqa: B018
    assert {variable.dtype for variable in keras_model.variables} == {"float32"}
    assert keras.config.floatx() == "float32"

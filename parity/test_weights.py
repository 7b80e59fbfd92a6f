"""Rung 3: every weight has exactly one partner, and copies are exact."""

import numpy as np
import pytest

import parity
from parity.frameworks import keras, torch
from keras_impl import create_model as create_keras_model
from keras_impl import weights as keras_weights
from parity import probe
from parity.conftest import make_twins
from parity.spec import recipes
from torch_impl import create_model as create_torch_model
from torch_impl import weights as torch_weights


@pytest.mark.parametrize("name", ["lenet5", "cnn_dropout", "vgg11_bn", "googlenet"])
def test_there_and_back_is_bit_exact(name):
    narrow = {"hidden_units": 16} if name.startswith("vgg") else {}
    size = {"image_size": probe.image_size(recipes.find(name)), **narrow}
    source = create_keras_model(name, seed=1, **size)
    between = create_torch_model(name, seed=2, **size)
    target = create_keras_model(name, seed=3, **size)
    parity.copy_weights(source, between)
    parity.copy_weights(between, target)
    for ours, theirs in zip(source.weights, target.weights, strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy()), ours.path


def test_every_tensor_is_accounted_for_once(twins):
    keras_model, torch_model = twins
    rows = parity.copy_weights(keras_model, torch_model)
    assert [row.name for row in rows] == list(torch_weights.named_weights(torch_model))
    assert len(rows) == len(keras_model.weights)


def test_the_layout_rules_of_each_tensor():
    rows = parity.copy_weights(*make_twins("lenet5"))
    rules = {row.name: row.rule for row in rows}
    assert rules["conv1.weight"] == "HWIO -> OIHW"
    assert rules["fc1.weight"] == "(HWC)O -> O(CHW)"
    assert rules["fc2.weight"] == "IO -> OI"
    assert rules["fc2.bias"] == "as it is"


@pytest.mark.slow
def test_a_head_that_runs_in_training_only_is_permuted_too():
    rows = parity.copy_weights(*make_twins("googlenet_bn", image_size=(64, 70)))
    rules = {row.name: row.rule for row in rows}
    assert rules["aux1.fc1.weight"] == rules["aux2.fc1.weight"] == "(HWC)O -> O(CHW)"
    assert rules["fc.weight"] == "IO -> OI"


def faulty_torch_models():
    model = create_torch_model("lenet5", seed=0)
    model.fc2 = torch.nn.Identity()
    yield "fc2.weight (120, 84) is left over", model, "missing"
    model = create_torch_model("lenet5", seed=0)
    model.extra = torch.nn.Linear(2, 3)
    yield "extra.weight", model, "left over"
    model = create_torch_model("lenet5", seed=0)
    model.conv2 = torch.nn.Conv2d(6, 16, 3)
    yield "conv2.weight", model, "misshapen"


FAULTS = [pytest.param(m, id=kind) for _, m, kind in faulty_torch_models()]


@pytest.mark.parametrize("torch_model", FAULTS)
def test_a_mismatch_changes_nothing(torch_model):
    keras_model = create_keras_model("lenet5", seed=0)
    before = [variable.numpy() for variable in keras_model.weights]
    state = {k: v.clone() for k, v in torch_model.state_dict().items()}
    for source, target in ((torch_model, keras_model), (keras_model, torch_model)):
        with pytest.raises(parity.WeightMismatch) as raised:
            parity.copy_weights(source, target)
        assert isinstance(raised.value, ValueError)
    for variable, value in zip(keras_model.weights, before, strict=True):
        assert np.array_equal(variable.numpy(), value)
    for name, value in torch_model.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_mismatch_lists_everything():
    torch_model = create_torch_model("lenet5", seed=0)
    torch_model.extra = torch.nn.Linear(2, 3)
    torch_model.conv2 = torch.nn.Conv2d(6, 16, 3)
    del torch_model.fc2
    with pytest.raises(parity.WeightMismatch) as raised:
        parity.copy_weights(torch_model, create_keras_model("lenet5"))
    for problem in (
        "fc2.weight (84, 120) is missing",
        "fc2.bias (84,) is missing",
        "extra.weight (3, 2) is left over",
        "extra.bias (3,) is left over",
        "conv2.weight is (16, 6, 3, 3), not (16, 6, 5, 5)",
    ):
        assert problem in str(raised.value)


def test_two_models_of_one_framework_are_refused():
    model = create_torch_model("lenet5")
    with pytest.raises(TypeError, match="one model must be a keras.Model"):
        parity.copy_weights(model, model)


def test_a_layer_without_a_rule_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.PReLU()])
    with pytest.raises(parity.WeightMismatch, match="no layout rule for 'alpha'"):
        keras_weights.state_dict(model)


class Branches(keras.Model):
    """Nested lists, a Sequential, batch normalisation, dropout before the dense."""

    def __init__(self):
        super().__init__()
        self.stem = keras.Sequential(
            [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.ReLU()]
        )
        self.stages = [keras.layers.BatchNormalization(), keras.layers.MaxPooling2D(2)]
        self.dropout = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(5)

    def call(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        x = keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))
        return self.head(self.dropout(x))


class TorchBranches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(2, 4, 3, bias=False), torch.nn.ReLU()
        )
        self.stages = torch.nn.ModuleList(
            [torch.nn.BatchNorm2d(4, eps=1e-3), torch.nn.MaxPool2d(2)]
        )
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(4 * 3 * 4, 5)

    def forward(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.dropout(x.flatten(1)))


def test_names_reach_into_lists_and_a_flattening_without_a_layer_is_found():
    keras_model, torch_model = Branches(), TorchBranches()
    keras_model(keras.Input((8, 10, 2)))
    generator = torch.Generator().manual_seed(0)
    for tensor in torch_weights.named_weights(torch_model).values():
        tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    rows = parity.copy_weights(torch_model, keras_model)
    assert {row.name: row.rule for row in rows} == {
        "stem.0.weight": "HWIO -> OIHW",
        "stages.0.weight": "as it is",
        "stages.0.bias": "as it is",
        "stages.0.running_mean": "as it is",
        "stages.0.running_var": "as it is",
        "head.weight": "(HWC)O -> O(CHW)",
        "head.bias": "as it is",
    }
    assert parity.assert_parity(keras_model, torch_model).verdict == "equal"

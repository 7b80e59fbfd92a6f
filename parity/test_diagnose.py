"""`parity.diagnose`: models of any style, and nothing left behind."""

import json
import random
import warnings

import numpy as np
import pytest
import torch.nn.functional as F

import parity
from parity.frameworks import keras, tf, torch, torchvision
from parity.conftest import make_twins
from parity.diagnosis.case import record
from parity.spec.errors import UsageError

layers, ops, nn = keras.layers, keras.ops, torch.nn


def causes(diagnosis) -> list[str]:
    return [finding.cause for finding in diagnosis.findings]


@pytest.mark.parametrize("weights", ["copy", "as_is"])
def test_twins_are_equal(twins, weights):
    diagnosis = parity.diagnose(*_evaluating(*twins), weights=weights)
    assert diagnosis.verdict == "equal", diagnosis
    assert diagnosis.findings == ()
    assert {match.verdict for match in diagnosis.alignment} == {"equal"}


def _evaluating(keras_model, torch_model):
    return keras_model, torch_model.eval()


class Styles(nn.Module):
    """Functions, methods and operators; a reused and an in-place module."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict(
            {
                "stem": nn.Conv2d(3, 4, 3, stride=2),
                "left": nn.Conv2d(4, 4, 1),
                "right": nn.Conv2d(4, 4, 3, padding=1),
            }
        )
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean += torch.rand(8)
        self.norm.running_var += torch.rand(8)
        self.heads = nn.ModuleList([nn.Linear(8, 5), nn.Linear(8, 2)])

    def forward(self, x):
        x = self.act(self.body["stem"](F.pad(x, (0, 1, 0, 1))))
        a = torch.tanh(self.body["left"](x))
        b = self.act(self.body["right"](x))
        b += x
        y = self.norm(torch.cat([a, b], dim=1))
        y = y * torch.sigmoid(y)
        y = torch.flatten(F.adaptive_avg_pool2d(y, 1), 1)
        first, second = (head(y) for head in self.heads)
        return first, second.softmax(-1)


def functional_twin():
    """Returns the same in Keras: functional, other names, another order."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 18, 3))
    x = layers.Conv2D(4, 3, 2, "same", activation="relu", name="entry")(images)
    b = layers.Conv2D(4, 3, padding="same", activation="relu", name="wide")(x)
    a = layers.Conv2D(4, 1, activation="tanh", name="narrow")(x)
    y = layers.Concatenate(name="both")([a, layers.Add(name="sum")([x, b])])
    y = layers.BatchNormalization(epsilon=1e-5, name="bn")(y)
    y = layers.Activation("silu", name="swish")(y)
    y = layers.GlobalAveragePooling2D(name="gap")(y)
    first = layers.Dense(5, name="scores")(y)
    second = layers.Dense(2, activation="softmax", name="odds")(y)
    return keras.Model(images, [first, second])


def test_other_names_styles_and_several_outputs_are_aligned():
    diagnosis = parity.diagnose(functional_twin(), Styles().eval())
    assert diagnosis.verdict == "equal", diagnosis
    partners = {
        match.keras_name: match.torch_name
        for match in diagnosis.alignment
        if match.operation in ("conv", "dense", "batch_norm")
    }
    assert partners == {
        "entry": "body.stem",
        "narrow": "body.left",
        "wide": "body.right",
        "bn": "norm",
        "scores": "heads.0",
        "odds": "heads.1",
    }
    copied = dict(pair for match in diagnosis.alignment for pair in match.copied)
    assert copied["bn.moving_variance"] == "norm.running_var"
    assert len(copied) == 14


def test_the_weights_themselves_are_compared_as_they_are():
    diagnosis = parity.diagnose(functional_twin(), Styles().eval(), weights="as_is")
    assert diagnosis.verdict == "different"
    assert set(causes(diagnosis)) <= {"weights.not_copied", "bn.statistics_not_copied"}
    assert {finding.keras_name for finding in diagnosis.findings} >= {"entry", "odds"}


@pytest.mark.parametrize("direction", ["to torch", "to keras"])
def test_weights_are_copied_along_the_alignment(direction):
    keras_model, torch_model = functional_twin(), Styles().eval()
    sides = [keras_model, torch_model]
    copied = parity.copy_aligned(*(sides if direction == "to torch" else sides[::-1]))
    assert len(copied) == 14
    assert ("wide.kernel", "body.right.weight") in copied
    diagnosis = parity.diagnose(keras_model, torch_model, weights="as_is")
    assert diagnosis.verdict == "equal", diagnosis


def test_a_flattened_map_is_reordered_both_ways():
    model = sequential(layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(5))
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(168, 5))
    for source, target in ((model, twin), (twin, model)):
        parity.copy_aligned(source, target)
        assert parity.diagnose(model, twin, weights="as_is").verdict == "equal"
        twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(168, 5))
        parity.copy_aligned(model, twin)


def test_a_weight_without_a_partner_stops_the_copy():
    model = sequential(layers.Conv2D(4, 3), layers.Conv2D(4, 1))
    twin = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = twin[0].weight.detach().clone()
    with pytest.raises(parity.WeightMismatch, match="1.kernel .* has no partner"):
        parity.copy_aligned(model, twin)
    assert torch.equal(twin[0].weight, before)
    with pytest.raises(parity.WeightMismatch, match="of PyTorch has no partner"):
        parity.copy_aligned(nn.Sequential(*twin, nn.Conv2d(4, 4, 1)), sequential(
            layers.Conv2D(4, 3)))  # fmt: skip
    with pytest.raises(TypeError, match="one model must be"):
        parity.copy_aligned(model, model)


class Written(nn.Module):
    """A module of a function, with weights of its own."""

    def __init__(self, function, **weights):
        super().__init__()
        self.function = function
        for name, tensor in weights.items():
            setattr(self, name, nn.Parameter(tensor))

    def forward(self, x):
        return self.function(self, x)


def gated(x):
    first, second = ops.split(x, 2, -1)
    return first * ops.sigmoid(second)


def gated_twin(module, x):
    first, second = x.chunk(2, 1)
    return first * torch.sigmoid(second)


EQUAL = {
    "chunk": ([layers.Lambda(gated)], [Written(gated_twin)]),
    "instance norm": (
        [layers.GroupNormalization(groups=-1, epsilon=1e-5)],
        [nn.InstanceNorm2d(8, affine=True)],
    ),
    "masked fill": (
        [layers.Lambda(lambda x: ops.maximum(x, 0.1))],
        [Written(lambda m, x: x.masked_fill(x < 0.1, 0.1))],
    ),
    "addmm": (
        [layers.GlobalAveragePooling2D(), layers.Dense(5)],
        [
            Written(
                lambda m, x: torch.addmm(m.b, x.mean((2, 3)), m.w.t()),
                w=torch.randn(5, 8, generator=torch.Generator().manual_seed(0)),
                b=torch.zeros(5),
            )
        ],
    ),
    "matmul": (
        [layers.GlobalAveragePooling2D(), layers.Dense(5)],
        [
            Written(
                lambda m, x: x.mean((2, 3)) @ m.w + m.b,
                w=torch.randn(8, 5, generator=torch.Generator().manual_seed(0)),
                b=torch.zeros(5),
            )
        ],
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_written_otherwise_is_not_accused(name):
    ours, theirs = EQUAL[name]
    model = sequential(layers.Conv2D(8, 3), *ours)
    diagnosis = parity.diagnose(
        model, nn.Sequential(nn.Conv2d(3, 8, 3), *theirs).eval()
    )
    assert diagnosis.verdict == "equal", diagnosis


def test_equal_branches_in_another_order_are_not_accused():
    images = keras.Input((9, 8, 3))
    first, second = layers.Conv2D(6, 3, name="p"), layers.Conv2D(6, 3, name="q")
    model = keras.Model(images, layers.Add()([first(images), second(images)]))

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)

        def forward(self, x):
            u, v = self.u(x), self.v(x)
            return v + u

    twin = Turned().eval()
    for module, layer in ((twin.u, first), (twin.v, second)):
        kernel = np.array(layer.kernel).transpose(3, 2, 0, 1)
        module.weight.data = torch.from_numpy(kernel.copy())
        module.bias.data.zero_()
    diagnosis = parity.diagnose(model, twin, weights="as_is")
    assert diagnosis.verdict == "equal", diagnosis
    assert diagnosis.notes == ()


def test_a_probe_decides_between_branches_that_nothing_tells_apart():
    images = keras.Input((9, 8, 3))
    first, second = layers.Conv2D(6, 3, name="p"), layers.Conv2D(6, 3, name="q")
    model = keras.Model(images, layers.Subtract()([first(images), second(images)]))

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)

        def forward(self, x):
            u, v = self.u(x), self.v(x)
            return -v + u

    diagnosis = parity.diagnose(model, Turned().eval())
    assert diagnosis.verdict == "equal", diagnosis
    partners = {match.keras_name: match.torch_name for match in diagnosis.alignment}
    assert (partners["p"], partners["q"]) == ("u", "v")


def test_one_module_for_two_layers_is_found():
    model = sequential(
        layers.Conv2D(3, 3, padding="same"), layers.Conv2D(3, 3, padding="same")
    )
    shared = nn.Conv2d(3, 3, 3, padding=1)
    diagnosis = parity.diagnose(model, nn.Sequential(shared, shared))
    assert set(causes(diagnosis)) == {"weights.different"}
    assert "for both" in diagnosis.findings[0].values["torch"]


def test_one_weight_of_keras_is_not_given_two_values():
    images = keras.Input((9, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    model = keras.Model(images, shared(ops.relu(shared(images))))
    twin = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)
    )
    before = np.array(shared.kernel)
    with pytest.raises(parity.WeightMismatch, match="one weight in Keras and several"):
        parity.copy_aligned(twin, model)
    assert np.array_equal(before, np.array(shared.kernel))


def test_what_forward_sets_is_put_back():
    class Lazy(nn.Conv2d):
        offset = None

        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            if self.offset is None:
                self.offset = torch.zeros((), dtype=x.dtype)
            return super().forward(x) + self.offset

    twin = Lazy(3, 4, 3)
    twin.offset = None
    assert parity.diagnose(sequential(layers.Conv2D(4, 3)), twin).verdict == "equal"
    assert twin.offset is None
    assert not hasattr(twin, "calls")


def test_no_activation_is_held_twice():
    inputs = x = keras.Input((16, 16, 3))
    body = nn.Sequential()
    for _ in range(4):  # a bias and an activation of their own
        x = layers.ReLU()(layers.Conv2D(3, 3, padding="same")(x))
        body.append(nn.Conv2d(3, 3, 3, padding=1)).append(nn.ReLU())
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3))
    case = record(keras.Model(inputs, x), body, images, None, "copy")
    assert case.torch.values == {}
    assert set(case.keras.values) == {0, *(step.output for step in case.keras.steps)}
    assert list(map(len, (case.keras.steps, case.free.inherited))) == [8, 8]


def test_a_model_in_training_mode_is_told_so():
    diagnosis = parity.diagnose(functional_twin(), Styles().train())
    assert causes(diagnosis) == ["bn.training_mode"]


def test_every_independent_fault_is_found():
    torch_model = Styles().eval()
    torch_model.norm.eps = 1e-3
    torch_model.body["right"].padding = (0, 0)
    torch_model.body["right"].forward = lambda x: nn.Conv2d.forward(
        torch_model.body["right"], F.pad(x, (2, 0, 2, 0))
    )
    diagnosis = parity.diagnose(functional_twin(), torch_model)
    found = {finding.cause: finding for finding in diagnosis.findings}
    assert set(found) == {"conv.padding", "bn.epsilon"}
    assert found["conv.padding"].torch_name == "body.right"
    assert found["bn.epsilon"].values == {"keras": 1e-5, "torch": 1e-3}
    assert all(f.error_after < 1e-12 < f.error_before for f in diagnosis.findings)


def sequential(*steps):
    return keras.Sequential([keras.Input((9, 8, 3)), *steps])


def test_an_epsilon_is_recovered_where_the_other_side_spells_it_out():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.bias = nn.Parameter(torch.zeros(4))
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))

        def forward(self, x):
            shape = (1, -1, 1, 1)
            x = (x - self.mean.view(shape)) / (self.var.view(shape) + 2e-4) ** 0.5
            return x * self.weight.view(shape) + self.bias.view(shape)

    model = sequential(
        layers.Conv2D(4, 3), layers.BatchNormalization(epsilon=1e-5), layers.Flatten()
    )
    diagnosis = parity.diagnose(
        model, nn.Sequential(nn.Conv2d(3, 4, 3), Norm(), nn.Flatten())
    )
    (finding,) = diagnosis.findings
    assert finding.cause == "bn.epsilon"
    assert finding.values["keras"] == 1e-5
    assert finding.values["torch"] == pytest.approx(2e-4, rel=1e-6)


def test_a_constant_that_tensorflow_rounds_is_rounding():
    model = sequential(
        layers.Conv2D(4, 3),
        layers.Activation(lambda x: keras.activations.gelu(x, approximate=True)),
    )
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU("tanh"))
    diagnosis = parity.diagnose(model, twin)
    assert diagnosis.verdict == "rounding", diagnosis
    assert 1e-10 < diagnosis.error < 1e-7


def test_what_has_no_partner_is_said():
    model = sequential(layers.Conv2D(4, 3), layers.Conv2D(4, 1))
    diagnosis = parity.diagnose(model, nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert causes(diagnosis) == ["layer.missing"]
    assert "1.kernel, 1.bias of keras's 1 has no partner" in diagnosis.notes
    (alone,) = (match for match in diagnosis.alignment if match.torch_name is None)
    assert (alone.keras_name, alone.verdict) == ("1", "only in keras")


def test_nan_is_traced_to_the_weight_that_holds_it():
    keras_model, torch_model = _evaluating(*make_twins("lenet5"))
    torch_model.fc2.weight.data[3, 4] = np.nan
    diagnosis = parity.diagnose(keras_model, torch_model, weights="as_is")
    assert causes(diagnosis)[0] == "nan.first"
    assert diagnosis.findings[0].torch_name == "fc2"
    assert diagnosis.findings[0].values["weight"] == "fc2.weight"


def state(keras_model, torch_model):
    """Returns all that a diagnosis must leave as it was."""
    modules = list(torch_model.modules())
    return (
        [(id(v._value), v.dtype, v.numpy().tobytes()) for v in keras_model.variables],
        [(id(p), p.data_ptr(), p.dtype, p.grad) for p in torch_model.parameters()],
        [(id(b), b.detach().numpy().tobytes()) for b in torch_model.buffers()],
        [m.training for m in modules],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
        [set(vars(layer)) for layer in keras_model._flatten_layers()],
        torch.random.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002
        random.getstate(),
        torch.is_grad_enabled(),
        keras.config.floatx(),
        tf.nn.local_response_normalization,
    )


@pytest.mark.parametrize("level", ["forward", "backward"])
def test_the_models_are_left_as_they_were(level):
    keras_model, torch_model = make_twins("cnn_dropout")
    torch_model.train()
    next(torch_model.parameters()).requires_grad = False
    before = state(keras_model, torch_model)
    parity.diagnose(keras_model, torch_model, level=level)
    assert state(keras_model, torch_model) == before


class Broken(nn.Sequential):
    def forward(self, images):
        super().forward(images)
        raise RuntimeError("half-way")


def test_the_module_that_fails_is_named():
    twin = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(UsageError, match="RuntimeError in 2: mat1 and mat2"):
        parity.diagnose(sequential(layers.Conv2D(4, 3)), twin)


class BrokenLayer(layers.Layer):
    def call(self, images):
        if images.dtype == "float64":
            raise RuntimeError("half-way")
        return images


@pytest.mark.parametrize("side", ["torch", "keras"])
def test_a_model_that_fails_half_way_is_left_as_it_was(side):
    torch_model = (Broken if side == "torch" else nn.Sequential)(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
    )
    extra = [BrokenLayer()] if side == "keras" else []
    model = sequential(
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.5), *extra
    )
    before = state(model, torch_model)
    name = "PyTorch" if side == "torch" else "Keras"
    with pytest.raises(UsageError, match=f"the {name} model cannot be called") as error:
        parity.diagnose(model, torch_model)
    assert "half-way" in str(error.value)
    assert "\n" not in str(error.value)
    assert state(model, torch_model) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "backwards"}, "unknown level 'backwards'; did you mean backward"),
        ({"weights": "copied"}, "unknown weights 'copied'; did you mean copy"),
        ({"images": np.zeros((1, 9, 8))}, r"images of shape \(1, 9, 8\) do not fit"),
        ({"images": np.zeros((1, 9, 8, 4))}, "do not fit model"),
        ({"images": "abc"}, "images must be numbers"),
        ({"images": np.zeros((0, 9, 8, 3))}, "are none: they show nothing"),
        ({"images": np.full((1, 9, 8, 3), np.nan)}, "hold NaN or infinity"),
        (
            {"images": (np.zeros((2, 9, 8, 3)), np.zeros((1, 3, 9, 8)))},
            "2 images for Keras and 1 for PyTorch",
        ),
    ],
)
def test_wrong_usage_is_one_line(arguments, message):
    model = sequential(layers.Conv2D(4, 3))
    with pytest.raises(UsageError, match=message) as error:
        parity.diagnose(model, nn.Conv2d(3, 4, 3), **arguments)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match=r"first model must be a keras\.Model"):
        parity.diagnose(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))
    with pytest.raises(UsageError, match=r"second model must be a torch\.nn\.Module"):
        parity.diagnose(sequential(layers.Conv2D(4, 3)), np.zeros(3))


def test_a_scripted_module_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        twin = torch.jit.script(nn.Conv2d(3, 4, 3))
    with pytest.raises(UsageError, match="give the module itself"):
        parity.diagnose(sequential(layers.Conv2D(4, 3)), twin)


def test_models_of_other_numbers_of_outputs_are_refused():
    images = keras.Input((9, 8, 3))
    x = layers.Conv2D(4, 3)(images)
    with pytest.raises(UsageError, match="returns 2 tensors and the PyTorch model 1"):
        parity.diagnose(keras.Model(images, [x, x * 2]), nn.Conv2d(3, 4, 3))


def test_the_diagnosis_is_written_as_json(tmp_path):
    twins = make_twins("lenet5", image_size=(29, 36))
    keras_model, torch_model = _evaluating(*twins)
    torch_model.conv1.padding = (1, 1)
    diagnosis = parity.diagnose(keras_model, torch_model)
    diagnosis.to_json(tmp_path / "diagnosis.json")
    found = json.loads((tmp_path / "diagnosis.json").read_text())
    assert found["schema"] == 1
    assert found["verdict"] == "different"
    assert found["findings"][0]["cause"] == "conv.padding"
    assert "culprits" not in found


# Known differences between two libraries' networks of the same name.
LIBRARIES = {
    "MobileNetV2": ("mobilenet_v2", {"bn.epsilon": 52, "conv.padding": 5}),
    "ResNet50": ("resnet50", {"bn.epsilon": 53, "conv.stride_placement": 3}),
    "DenseNet121": ("densenet121", {"bn.epsilon": 121}),
    "VGG16": ("vgg16", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_keras_and_torchvision(name):
    twin, expected = LIBRARIES[name]
    size = 224 if name == "VGG16" else 64
    model = getattr(keras.applications, name)(
        weights=None, classifier_activation=None, input_shape=(size, size, 3)
    )
    images = np.random.default_rng(0).standard_normal((1, size, size, 3))
    torch_model = torchvision.models.get_model(twin, weights=None).eval()
    diagnosis = parity.diagnose(model, torch_model, images)
    found = causes(diagnosis)
    assert {cause: found.count(cause) for cause in found} == expected
    assert all(finding.error_after < 1e-12 for finding in diagnosis.findings)

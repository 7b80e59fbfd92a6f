"""A diagnosis names what differs, once, and nothing that only follows from it."""

import numpy as np
import pytest
import torch.nn.functional as F

import parity
from parity.frameworks import keras, torch
from parity.diagnosis.repro.scripts import write_repros

layers, ops, nn = keras.layers, keras.ops, torch.nn


def causes(diagnosis) -> list[str]:
    return [finding.cause for finding in diagnosis.findings]


class Forward(nn.Module):
    """Modules, and a function of them and the images that is the forward pass."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.function(self, x)


def network(*functions, size=(10, 14), channels=3):
    """Returns a Keras model that applies layers and functions in turn."""
    keras.utils.set_random_seed(1)
    images = keras.Input((*size, channels))
    x = images
    for function in functions:
        x = function(x)
    return keras.Model(images, x)


def noise(*shape) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(
    ("dilation", "wanted"),
    [(1, ["input.layout"]), (2, ["input.layout", "conv.dilation"])],
)
def test_images_that_are_turned_are_all_that_is_named(dilation, wanted):
    keras_model = network(
        layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
        layers.Conv2D(4, 3, padding="same", name="second"),
        layers.GlobalAveragePooling2D(),
    )
    torch_model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=dilation, dilation=dilation),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    images = noise(2, 10, 14, 3)
    turned = images.transpose(0, 3, 2, 1)
    diagnosis = parity.diagnose(keras_model, torch_model, (images, turned))
    found = [x for x in causes(diagnosis) if x != "conv.padding"]  # with the dilation
    assert found == wanted, diagnosis


class Quick(nn.Module):
    """An activation in several operations, which no reader knows."""

    def forward(self, x):
        return x * torch.sin(torch.sigmoid(x))


def test_a_layer_of_several_operations_is_not_accused_on_other_sizes():
    keras_model = network(
        layers.Conv2D(4, 3, 2, name="conv"),
        lambda x: x * ops.sin(ops.sigmoid(x)),
        layers.Conv2D(4, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    )
    torch_model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Quick(), nn.Conv2d(4, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["conv.stride"], diagnosis


def shuffled(x):
    """Returns PyTorch's channels in another order, by sizes that are numbers."""
    count, channels, height, width = x.shape
    x = x.view(count, 2, channels // 2, height, width).transpose(1, 2)
    return x.reshape(count, channels, height, width)


def keras_shuffled(x):
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, 2, channels // 2))
    return ops.reshape(ops.swapaxes(x, 3, 4), (-1, height, width, channels))


def test_what_runs_on_its_own_size_alone_is_noted():
    keras_model = network(
        layers.Conv2D(4, 3, 2, name="conv"),
        keras_shuffled,
        layers.Conv2D(4, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    )
    torch_model = Forward(
        lambda self, x: self.last(shuffled(self.conv(x))).mean((2, 3)),
        conv=nn.Conv2d(3, 4, 3),
        last=nn.Conv2d(4, 4, 1),
    )
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["conv.stride"], diagnosis
    assert any("once the sizes agree" in note for note in diagnosis.notes)


def test_what_is_written_otherwise_is_not_accused_on_other_sizes():
    keras_model = network(
        layers.Conv2D(4, 3, 2, activation="relu", name="conv"),
        lambda x: 2 * x,
        layers.Conv2D(4, 1, use_bias=False, name="last"),
        layers.GlobalAveragePooling2D(),
    )
    torch_model = Forward(
        lambda self, x: (2 * self.last(F.relu(self.conv(x)))).mean((2, 3)),
        conv=nn.Conv2d(3, 4, 3),
        last=nn.Conv2d(4, 4, 1, bias=False),
    )
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["conv.stride"], diagnosis


def normalised(x):
    return x / ops.sqrt(ops.sum(x * x, -1, keepdims=True) + 1e-3)


def with_formula(formula):
    """Returns PyTorch's side of the network with a formula between two layers."""
    return Forward(
        lambda self, x: self.last(formula(F.relu(self.conv(x)))).mean((2, 3)),
        conv=nn.Conv2d(3, 4, 3),
        last=nn.Conv2d(4, 4, 1),
    )


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        (lambda x: x - x.mean(1, keepdim=True), "operation.different"),
        (
            lambda x: x / torch.sqrt((x * x).mean(1, keepdim=True) + 1e-3),
            "pool.kind",
        ),
    ],
    ids=["another formula", "one step of it"],
)
def test_another_formula_is_one_difference(formula, wanted, tmp_path):
    keras_model = network(
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        normalised,
        layers.Conv2D(4, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    )
    torch_model = with_formula(formula)
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == [wanted], diagnosis
    assert len(write_repros(diagnosis, tmp_path)) == 1


def test_two_faults_in_one_formula_are_two():
    keras_model = network(
        layers.Conv2D(4, 3, name="conv"),
        lambda x: x + ops.mean(ops.relu(x), -1, keepdims=True),
        layers.Conv2D(4, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    )

    def forward(self, x):
        x = self.conv(x)
        return self.last(x * F.relu(x).amax(1, keepdim=True)).mean((2, 3))

    torch_model = Forward(forward, conv=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 1))
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["pool.kind", "merge.kind"], diagnosis


def test_two_faults_that_are_all_of_a_formula_are_two():
    keras_model = network(
        layers.Conv2D(4, 3, name="conv"),
        lambda x: x + ops.mean(x, -1, keepdims=True),
        layers.Conv2D(4, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    )

    def forward(self, x):
        x = self.conv(x)
        return self.last(x * x.amax(1, keepdim=True)).mean((2, 3))

    torch_model = Forward(forward, conv=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 1))
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["pool.kind", "merge.kind"], diagnosis


def test_a_value_that_two_layers_take_is_one_difference():
    keras.utils.set_random_seed(1)
    images = keras.Input((10, 14, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(images)
    x = layers.Conv2D(4, 1, name="left")(x) + layers.Conv2D(4, 1, name="right")(x)
    keras_model = keras.Model(images, layers.GlobalAveragePooling2D()(x))

    def forward(self, x):
        x = self.conv(x)
        return (self.left(x) + self.right(x)).mean((2, 3))

    torch_model = Forward(
        forward,
        conv=nn.Conv2d(3, 4, 3),
        left=nn.Conv2d(4, 4, 1),
        right=nn.Conv2d(4, 4, 1),
    )
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    assert causes(diagnosis) == ["activation.missing"], diagnosis


def nan_twins():
    """Returns twins whose axes and whose SiLU are told from their values."""
    keras_model = network(
        layers.Conv2D(4, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(epsilon=1e-5, name="bn"),
        lambda x: x * ops.sigmoid(x),
        lambda x: ops.mean(x, (1, 2), keepdims=True),
        keras_shuffled,
        layers.Conv2D(4, 1, name="last"),
        layers.LayerNormalization(epsilon=1e-5, name="ln"),
        layers.GlobalAveragePooling2D(),
    )

    def forward(self, x):
        x = F.silu(self.bn(self.conv(x))).mean((2, 3), keepdim=True)
        return self.ln(self.last(shuffled(x)).permute(0, 2, 3, 1)).mean((1, 2))

    torch_model = Forward(
        forward,
        conv=nn.Conv2d(3, 4, 3, bias=False),
        bn=nn.BatchNorm2d(4),
        last=nn.Conv2d(4, 4, 1),
        ln=nn.LayerNorm(4, eps=1e-5),
    ).eval()
    parity.copy_aligned(keras_model, torch_model)
    return keras_model, torch_model


@pytest.mark.parametrize("side", ["keras", "torch"])
def test_behind_a_nan_nothing_is_accused_but_noted(side):
    keras_model, torch_model = nan_twins()
    images = noise(2, 10, 14, 3)
    equal = parity.diagnose(keras_model, torch_model, images, weights="as_is")
    assert equal.verdict == "equal", equal
    if side == "torch":
        torch_model.bn.running_var[:] = -1.0
    else:
        variance = keras_model.get_layer("bn").moving_variance
        variance.assign(np.float32([-1, -1, 1, 1]))
    diagnosis = parity.diagnose(keras_model, torch_model, images, weights="as_is")
    assert causes(diagnosis) == ["nan.first"], diagnosis
    assert any("can be judged once" in note for note in diagnosis.notes)
    assert "not judged" in {match.verdict for match in diagnosis.alignment}


def test_no_fix_is_pretended_where_none_was_tried():
    keras_model = network(layers.Conv2D(4, 3), lambda x: ops.flip(x, 1))
    torch_model = Forward(
        lambda self, x: torch.cumsum(self.conv(x), 3), conv=nn.Conv2d(3, 4, 3)
    )
    (finding,) = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3)).findings
    assert finding.cause == "operation.different" and finding.error_after is None
    for fix in (finding.fix, finding.keras_fix):
        assert "they give different values of the same inputs" in fix, fix
        assert "cumsum" in fix and "ReverseV2" in fix, fix


def test_an_output_that_differs_behind_all_steps_is_named_so(tmp_path):
    keras.utils.set_random_seed(1)
    images = keras.Input((10, 14, 3))
    x = layers.Conv2D(4, 3, name="conv")(images)
    y = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    keras_model = keras.Model(images, [x, y])

    def forward(self, x):
        x = F.relu(self.conv(x))
        return x, x.mean((2, 3))

    torch_model = Forward(forward, conv=nn.Conv2d(3, 4, 3))
    diagnosis = parity.diagnose(keras_model, torch_model, noise(2, 10, 14, 3))
    names = [(x.keras_name, x.torch_name) for x in diagnosis.findings]
    assert names == [("output", "output")], diagnosis
    assert [path.name for path in write_repros(diagnosis, tmp_path)] == [
        "01_unexplained_output.py"
    ]


def difference_twins(formula):
    keras.utils.set_random_seed(1)
    images = keras.Input((10, 14, 3))
    u = layers.Conv2D(4, 3, name="left")(images)
    v = layers.Conv2D(4, 3, name="right")(images)
    y = layers.ReLU(name="relu")(u - v)
    keras_model = keras.Model(images, layers.GlobalAveragePooling2D()(y))
    torch_model = Forward(
        lambda self, x: formula(self.left(x), self.right(x)).mean((2, 3)),
        left=nn.Conv2d(3, 4, 3),
        right=nn.Conv2d(3, 4, 3),
    )
    return keras_model, torch_model, noise(2, 10, 14, 3)


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        (lambda u, v: F.relu(-v + u), []),
        (lambda u, v: F.relu(u + -1 * v), []),
        (lambda u, v: F.gelu(-v + u), ["activation.kind"]),
        (lambda u, v: F.relu(v - u), ["merge.order"]),
        (lambda u, v: F.relu(-u + v), ["merge.order"]),
        (lambda u, v: F.relu(u + v), ["merge.kind"]),
    ],
    ids=["turned", "times -1", "and a fault", "order", "turned order", "a sum"],
)
def test_a_negative_that_is_added_is_a_difference(formula, wanted):
    diagnosis = parity.diagnose(*difference_twins(formula))
    assert causes(diagnosis) == wanted, diagnosis

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

"""Rung 2: activations by TensorFlow, PyTorch, SciPy and ONNX Runtime agree."""

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import special

from parity.frameworks import keras, tf, torch
from keras_impl import ops as keras_ops
from parity import ops_cases
from parity.ops_cases import (
    assert_equal,
    assert_float32,
    assert_same,
    check_refused,
    count,
    draw,
    each_case,
    run,
    to_keras,
    to_torch,
)
from parity.spec.tolerances import relative_error
from parity.witnesses import assert_onnx
from torch_impl import ops as torch_ops

print_counts = ops_cases.print_counts
# Where a definition has a kink or a constant turns over, or exp leaves float32.
KINKS = np.array([0.0, 3.0, -3.0, 6.0, 20.5, -20.5, 90.0, -90.0])
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def gelu(x, approximate):
    if approximate:
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x * special.ndtr(x)


# Name, settings, definition, and ONNX's operator and attributes.
ACTIVATIONS = [
    ("relu", {}, lambda x: np.maximum(x, 0), "Relu", {}),
    ("relu6", {}, lambda x: np.clip(x, 0, 6), None, {}),
    *(
        (
            "leaky_relu",
            {"negative_slope": slope},
            lambda x, slope=slope: np.where(x > 0, x, slope * x),
            "LeakyRelu",
            {"alpha": slope},
        )
        for slope in (0.01, 0.2, 0.3)
    ),
    *(
        (
            "elu",
            {"alpha": alpha},
            lambda x, a=alpha: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
            "Elu",
            {"alpha": alpha},
        )
        for alpha in (1.0, 1.5)
    ),
    *(
        (
            "celu",
            {"alpha": alpha},
            lambda x, a=alpha: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
            "Celu",
            {"alpha": alpha},
        )
        for alpha in (1.0, 1.5)
    ),
    (
        "selu",
        {},
        lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x.clip(max=0))),
        "Selu",
        {},
    ),
    ("gelu", {}, lambda x: gelu(x, False), "Gelu", {}),
    (
        "gelu",
        {"approximate": True},
        lambda x: gelu(x, True),
        "Gelu",
        # In float64 ONNX Runtime has constants of float32 here.
        {"approximate": "tanh", "dtypes": ("float32",)},
    ),
    ("silu", {}, lambda x: x * special.expit(x), None, {}),
    ("mish", {}, lambda x: x * np.tanh(np.logaddexp(x, 0)), "Mish", {}),
    (
        "hard_sigmoid",
        {},
        lambda x: np.clip(x + 3, 0, 6) / 6,
        "HardSigmoid",
        {"alpha": 1 / 6},
    ),
    ("hard_swish", {}, lambda x: x * np.clip(x + 3, 0, 6) / 6, "HardSwish", {}),
    ("sigmoid", {}, special.expit, "Sigmoid", {}),
    ("tanh", {}, np.tanh, "Tanh", {}),
    ("softplus", {}, lambda x: np.logaddexp(x, 0), "Softplus", {}),
    ("softsign", {}, lambda x: x / (1 + abs(x)), "Softsign", {}),
    ("softmax", {}, lambda x: special.softmax(x, -1), "Softmax", {"axis": 1}),
    (
        "log_softmax",
        {},
        lambda x: special.log_softmax(x, -1),
        "LogSoftmax",
        {"axis": 1},
    ),
]
IDS = [f"{name}{list(settings.values())}" for name, settings, *_ in ACTIVATIONS]
# The longest of them, the approximate gelu, makes a dozen operations, of which exp,
# tanh and erf are right to four units.
TERMS = 12 * 4

shapes = st.one_of(
    st.tuples(*[st.integers(1, 6)] * 4), st.tuples(st.integers(1, 6), st.integers(1, 9))
)


def draw_values(shape, scale):
    """Numbers of a size, and the kinks among them."""
    values = draw(1, *shape) * scale
    values.ravel()[: len(KINKS)] = KINKS[: values.size]
    return values


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=IDS)
def test_activation(activation, pytestconfig):
    @each_case(st.tuples(shapes, st.sampled_from([0.125, 1.0, 8.0])))
    def every(case):
        check(activation, draw_values(*case))

    every(pytestconfig)


def check(activation, values):
    name, settings, definition, operator, attributes = activation
    case = ([values], ["maps" if values.ndim == 4 else "array"], settings)
    results = run(name, *case)
    assert not count(name, results)
    assert_same(*results)
    assert_equal(results[0].output, definition(values))
    # No step on the way is larger than 1 + |x|; over the channels the largest counts.
    largest = 1 + abs(values)
    terms = TERMS
    if "softmax" in name:
        largest = 1 + abs(values).max(-1, keepdims=True) + 0 * values
        terms += values.shape[-1]
    assert_float32(name, *case, largest, terms)
    if operator:
        array = to_torch(values, case[1][0])
        assert_onnx(results[0].output, largest, terms, operator, array, **attributes)


@each_case(st.tuples(shapes, st.booleans()))
def test_prelu(case):
    shape, shared = case
    images, slopes = draw_values(shape, 1.0), draw(2, 1 if shared else shape[-1])
    layout = "maps" if images.ndim == 4 else "array"
    case = ([images, slopes], [layout, "array"], {})
    results = run("prelu", *case)
    assert not count("prelu", results)
    assert_same(*results)
    assert_equal(results[0].output, np.where(images > 0, images, slopes * images))
    largest = abs(images) * (1 + abs(slopes))
    assert_float32("prelu", *case, largest, 1)
    rank = slopes.reshape(-1, 1, 1) if images.ndim == 4 else slopes
    onnx = to_torch(images, layout)
    assert_onnx(results[0].output, largest, 1, "PRelu", onnx, rank)


@each_case(st.tuples(st.tuples(*[st.integers(1, 6)] * 4), st.integers(0, 3)))
def test_dropout(case):
    shape, kind = case
    images, rate = draw(1, *shape), (0.0, 0.25, 0.3, 0.9)[kind]
    spatial = (shape[0], 1, 1, shape[3])
    mask = draw(2, *(spatial if kind % 2 else shape)) > 0
    case = ([images, mask], ["maps", "maps"], {"rate": rate})
    results = run("dropout", *case)
    assert not count("dropout", results)
    assert_same(*results)
    assert_equal(results[0].output, np.where(mask, images, 0) / (1 - rate))
    assert_float32("dropout", *case, abs(images) / (1 - rate), 3)


KERAS = {
    "relu": keras.layers.ReLU,
    "relu6": lambda **more: keras.layers.ReLU(6.0, **more),
    "leaky_relu": lambda **more: keras.layers.LeakyReLU(2.0**-6, **more),
    "elu": keras.layers.ELU,
    "softmax": keras.layers.Softmax,
    **{
        name: lambda activation=name, **more: keras.layers.Activation(
            activation, **more
        )
        for name in (
            "selu",
            "celu",
            "silu",
            "mish",
            "hard_sigmoid",
            "hard_swish",
            "sigmoid",
            "tanh",
            "softplus",
            "softsign",
            "log_softmax",
        )
    },
}
NN = {
    "relu": torch.nn.ReLU,
    "relu6": torch.nn.ReLU6,
    "leaky_relu": lambda: torch.nn.LeakyReLU(2.0**-6),
    "elu": torch.nn.ELU,
    "celu": torch.nn.CELU,
    "selu": torch.nn.SELU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
    "mish": torch.nn.Mish,
    "hard_sigmoid": torch.nn.Hardsigmoid,
    "hard_swish": torch.nn.Hardswish,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "softplus": lambda: torch.nn.Softplus(threshold=40),
    "softsign": torch.nn.Softsign,
    "softmax": lambda: torch.nn.Softmax(1),
    "log_softmax": lambda: torch.nn.LogSoftmax(1),
}


@pytest.mark.parametrize("name", KERAS)
def test_layers_of_keras(name):
    images = draw_values((2, 5, 4, 3), 1.0)
    # A power of two, since TensorFlow rounds the slope to float32.
    settings = {"negative_slope": 2.0**-6} if name == "leaky_relu" else {}
    expected = getattr(keras_ops, name)(images, **settings)
    assert_equal(KERAS[name](dtype="float64")(images), expected)


@pytest.mark.parametrize("name", NN)
def test_modules_of_torch(name):
    images = torch.tensor(draw_values((2, 3, 5, 4), 1.0))
    settings = {"negative_slope": 2.0**-6} if name == "leaky_relu" else {}
    expected = getattr(torch_ops, name)(images, **settings)
    assert_equal(NN[name]()(images), expected)


def test_other_layers_and_modules():
    images, slopes = draw_values((2, 5, 4, 3), 1.0), draw(2, 3)
    maps = torch.tensor(to_torch(images, "maps"))
    layer = keras.layers.PReLU(shared_axes=[1, 2], dtype="float64")
    layer.build(images.shape)
    layer.set_weights([slopes.reshape(1, 1, 3)])
    assert_equal(layer(images), keras_ops.prelu(images, slopes))
    module = torch.nn.PReLU(3, dtype=torch.float64)
    module.load_state_dict({"weight": torch.tensor(slopes)})
    assert_equal(module(maps).detach(), torch_ops.prelu(maps, slopes))
    # A layer's own mask, read from its output, gives the output.
    images = np.abs(images) + 1
    layer = keras.layers.SpatialDropout2D(0.3, seed=1, dtype="float64")
    dropped = layer(images, training=True).numpy()
    mask = dropped[:, :1, :1] != 0
    assert 0 < mask.mean() < 1
    assert relative_error(keras_ops.dropout(images, mask, rate=0.3), dropped) < 1e-7
    dropped = torch.nn.Dropout(0.3)(maps)
    mask = dropped != 0
    assert_equal(torch_ops.dropout(maps, mask, rate=0.3), dropped)


def test_frameworks_that_round_to_float32_are_seen():
    x = draw(1, 2, 5, 4, 3)
    tensor = tf.constant(x)
    for rounded, name, settings in (
        (tf.nn.leaky_relu(tensor, 0.01), "leaky_relu", {}),
        (tf.nn.gelu(tensor), "gelu", {}),
        (tf.nn.gelu(tensor, approximate=True), "gelu", {"approximate": True}),
    ):
        value = getattr(keras_ops, name)(x, **settings)
        assert 1e-12 < relative_error(rounded, value) < 1e-6
    x = torch.tensor(x, requires_grad=True)
    torch.nn.functional.hardsigmoid(x).sum().backward()
    rounded, x.grad = x.grad, None
    torch_ops.hard_sigmoid(x).sum().backward()
    assert 1e-12 < relative_error(rounded, x.grad) < 1e-6
    x = torch.tensor([20.5], dtype=torch.float64)
    rounded = torch.nn.functional.softplus(x)
    assert relative_error(rounded, torch_ops.softplus(x)) > 1e-12


FAULTS = {
    "gelu": lambda x: torch_ops.gelu(x, approximate=True),
    "leaky_relu": lambda x: torch_ops.leaky_relu(x, negative_slope=0.2),
    "elu": lambda x: torch_ops.elu(x, alpha=1.5),
    "celu": lambda x: torch_ops.elu(x, alpha=1.5),
    "selu": torch_ops.elu,
    "silu": torch_ops.hard_swish,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clip(0, 1),  # of Keras 2
    "relu6": torch_ops.relu,
    "mish": torch_ops.silu,
    "softmax": lambda x: x.softmax(3),  # along the width
    "log_softmax": lambda x: torch_ops.softmax(x).softmax(1).log(),  # twice
    "softplus": torch_ops.relu,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name):
    images = draw_values((2, 5, 4, 3), 1.0)
    settings = {"alpha": 1.5} if name == "celu" else {}
    right = getattr(keras_ops, name)(images, **settings)
    wrong = FAULTS[name](torch.tensor(to_torch(images, "maps")))
    assert relative_error(to_keras(wrong.numpy(), "maps", ()), right) > 1e-6


def test_a_slope_per_column_and_a_dropout_without_scale_are_seen():
    images, slopes = draw(1, 2, 5, 3, 3), draw(2, 3)
    maps = torch.tensor(to_torch(images, "maps"))
    right = keras_ops.prelu(images, slopes)
    wrong = torch.where(maps > 0, maps, torch.tensor(slopes) * maps)
    assert relative_error(to_keras(wrong.numpy(), "maps", ()), right) > 0.1
    mask = draw(3, *images.shape) > 0
    right = keras_ops.dropout(images, mask, rate=0.3)
    assert relative_error(images * mask, right) > 0.1


@pytest.mark.parametrize("rate", [1, 1.5, -0.1])
def test_a_wrong_rate_is_the_same_line_on_both_sides(rate):
    images = draw(1, 2, 5, 4, 3)
    message = f"rate {rate} is not from 0 to below 1"
    case = ([images, images > 0], ["maps", "maps"], {"rate": rate})
    check_refused("dropout", message, *case)


def test_wrong_slopes_are_the_same_line_on_both_sides():
    message = "shape of slopes (4,) is not (3,) or (1,)"
    case = ([draw(1, 2, 5, 4, 3), draw(2, 4)], ["maps", "array"])
    check_refused("prelu", message, *case)

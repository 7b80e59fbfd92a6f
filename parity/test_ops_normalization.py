"""Rung 2: normalization by TensorFlow, PyTorch, NumPy and ONNX Runtime agrees."""

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st

from parity.frameworks import keras, torch
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
    sizes,
    to_keras,
    to_torch,
)
from parity.spec.tolerances import TOLERANCES, relative_error
from parity.witnesses import assert_onnx, run_onnx
from torch_impl import ops as torch_ops

print_counts = ops_cases.print_counts
# ONNX has float32 attributes.
epsilons = st.sampled_from([2.0**-10, 2.0**-17, 2.0**-30])
channels = st.integers(1, 7)


def draw_case(size, channels, scale=1.0):
    """Images, then mean, variance, gamma and beta, all as float32 has them."""
    images = draw(1, 3, *size, channels) * single(scale) - 1
    mean, gamma, beta = (draw(seed, channels) for seed in (2, 3, 4))
    return single(images), mean, single(abs(draw(5, channels)) + 0.01), gamma, beta


def single(values):
    return np.asarray(values, np.float32).astype(float)


def normalised(images, axes, epsilon):
    mean, variance = (f(images, axes, keepdims=True) for f in (np.mean, np.var))
    return (images - mean) / np.sqrt(variance + epsilon)


def magnitude(images, axes, gamma, beta, epsilon):
    """What the values are made of, by axis, where the variance is E[x^2] - E[x]^2.

    A rounded mean and a rounded variance each move all of an axis's values.
    """
    squares = np.mean(images**2, axes, keepdims=True)
    variance = np.var(images, axes, keepdims=True) + epsilon
    largest = np.abs(images) + np.sqrt(squares)
    return np.abs(gamma) * largest / np.sqrt(variance) * (
        1 + squares / variance
    ) + np.abs(beta)


@each_case(st.tuples(sizes, channels, epsilons))
def test_batch_norm(case):
    size, channels, epsilon = case
    images, mean, variance, gamma, beta = arrays = draw_case(size, channels)
    layouts = ["maps", *["array"] * 4]
    results = run("batch_norm", arrays, layouts, {"epsilon": epsilon})
    assert not count("batch_norm", results)
    assert_same(*results)
    assert not np.any(results[0].gradients[1:3])
    scale = gamma / np.sqrt(variance + epsilon)
    assert_equal(results[0].output, (images - mean) * scale + beta)
    largest = (abs(images) + abs(mean)) * abs(scale) + abs(beta)
    settings = {"epsilon": epsilon}
    assert_float32("batch_norm", arrays, layouts, settings, largest, 6)
    arrays = [gamma, beta, mean, variance]
    arrays = [to_torch(images, "maps"), *arrays]
    assert_onnx(
        results[0].output, largest, 6, "BatchNormalization", *arrays, epsilon=epsilon
    )


@each_case(st.tuples(sizes, channels, epsilons, st.sampled_from([0.0, 0.1, 0.7, 1.0])))
def test_batch_norm_training(case):
    size, channels, epsilon, momentum = case
    images, mean, variance, gamma, beta = draw_case(size, channels)
    arrays, layouts = [images, gamma, beta, mean, variance], ["maps", *["array"] * 4]
    settings = {"epsilon": epsilon, "momentum": momentum}
    results = run("batch_norm_training", arrays, layouts, settings)
    assert not count("batch_norm_training", results)
    assert_same(*results)
    axes = (0, 1, 2)
    outputs, new_mean, new_variance = results[0].outputs
    assert_equal(outputs, normalised(images, axes, epsilon) * gamma + beta)
    for new, old, batch in (
        (new_mean, mean, images.mean(axes)),
        (new_variance, variance, images.var(axes, ddof=1)),
    ):
        assert_equal(new, (1 - momentum) * old + momentum * batch)
    largest = magnitude(images, axes, gamma, beta, epsilon)
    terms = images.size // channels + 8
    name = "batch_norm_training"
    assert_float32(name, arrays, layouts, settings, largest, terms)


def test_batch_norm_training_by_onnx():
    images, mean, variance, gamma, beta = draw_case((6, 5), 4)
    arrays, layouts = [images, gamma, beta, mean, variance], ["maps", *["array"] * 4]
    settings = {"epsilon": 2.0**-17, "momentum": 0.125}
    ours, _ = run("batch_norm_training", arrays, layouts, settings)
    # Its momentum is the share of the old average, its variance the biased one.
    (outputs, new_mean, new_variance), dtype = run_onnx(
        "BatchNormalization",
        [to_torch(images, "maps"), *arrays[1:]],
        outputs=3,
        training_mode=1,
        epsilon=2.0**-17,
        momentum=0.875,
    )
    assert dtype == "float64"
    assert_equal(to_keras(outputs, "maps", ()), ours.output)
    assert_equal(new_mean, ours.outputs[1])
    count = images.size // 4
    batch = (new_variance - 0.875 * variance) * count / (count - 1)
    assert_equal(batch + 0.875 * variance, ours.outputs[2])


# Of two channels the gradient is 0 but for epsilon and rounding.
@each_case(st.tuples(sizes, st.integers(3, 7), epsilons))
def test_layer_norm(case):
    size, channels, epsilon = case
    images, _, _, gamma, beta = draw_case(size, channels)
    case = ([images, gamma, beta], ["maps", "array", "array"], {"epsilon": epsilon})
    results = run("layer_norm", *case)
    assert not count("layer_norm", results)
    assert_same(*results)
    expected = normalised(images, 3, epsilon) * gamma + beta
    assert_equal(results[0].output, expected)
    largest = magnitude(images, 3, gamma, beta, epsilon)
    assert_float32("layer_norm", *case, largest, channels + 8)
    assert_onnx(
        results[0].output.reshape(-1, channels),
        largest.reshape(-1, channels),
        channels + 8,
        "LayerNormalization",
        images.reshape(-1, channels),
        gamma,
        beta,
        epsilon=epsilon,
    )


@each_case(st.tuples(sizes, st.integers(1, 3), st.integers(1, 3), epsilons))
def test_group_norm(case):
    size, groups, width, epsilon = case
    images, _, _, gamma, beta = draw_case(size, groups * width)
    settings = {"epsilon": epsilon, "groups": groups}
    case = ([images, gamma, beta], ["maps", "array", "array"], settings)
    results = run("group_norm", *case)
    assert not count("group_norm", results)
    assert_same(*results)
    apart = images.reshape(*images.shape[:3], groups, width)
    axes, shape = (1, 2, 4), (groups, width)
    expected = normalised(apart, axes, epsilon).reshape(images.shape) * gamma + beta
    assert_equal(results[0].output, expected)
    affine = (gamma.reshape(shape), beta.reshape(shape))
    largest = magnitude(apart, axes, *affine, epsilon).reshape(images.shape)
    terms = size[0] * size[1] * width + 8
    assert_float32("group_norm", *case, largest, terms)
    assert_onnx(
        results[0].output,
        largest,
        terms,
        "GroupNormalization",
        to_torch(images, "maps"),
        gamma,
        beta,
        epsilon=epsilon,
        num_groups=groups,
        stash_type=onnx.TensorProto.DOUBLE,
    )


@each_case(
    st.tuples(
        sizes,
        st.integers(1, 7),
        st.integers(1, 9),
        st.sampled_from([1e-4, 0.5]),
        st.sampled_from([0.5, 0.75, 1.0]),
        st.sampled_from([1.0, 2.0]),
    )
)
def test_local_response_norm(case):
    size, window, channels, alpha, beta, k = case
    images = draw_case(size, channels)[0]
    settings = {"size": window, "alpha": alpha, "beta": beta, "k": k}
    results = run("local_response_norm", [images], ["maps"], settings)
    assert not count("local_response_norm", results)
    assert_same(*results)
    before, behind = window // 2, window - 1 - window // 2
    sums = [
        (images[..., max(0, c - before) : c + behind + 1] ** 2).sum(3)
        for c in range(channels)
    ]
    expected = images / (k + alpha * np.stack(sums, 3)) ** beta
    assert_equal(results[0].output, expected)
    case = ([images], ["maps"], settings)
    assert_float32("local_response_norm", *case, expected, window + 6)
    if window % 2:  # at even sizes ONNX puts the odd channel behind
        # ONNX Runtime lets a sum slide along the channels, in and out of the window.
        total = alpha * (images**2).sum(3, keepdims=True)
        largest = expected * (1 + beta * total / (k + alpha * np.stack(sums, 3)))
        assert_onnx(
            results[0].output,
            largest,
            2 * channels + 6,
            "LRN",
            to_torch(images, "maps"),
            size=window,
            alpha=alpha * window,
            beta=beta,
            bias=k,
        )


def test_layers_of_keras():
    images, mean, variance, gamma, beta = draw_case((6, 5), 4)
    layers, settings = keras.layers, {"epsilon": 1e-5, "dtype": "float64"}
    layer = layers.BatchNormalization(momentum=0.9, **settings)
    layer.build(images.shape)
    layer.set_weights([gamma, beta, mean, variance])
    expected = keras_ops.batch_norm(images, mean, variance, gamma, beta)
    assert_equal(layer(images), expected)
    expected = keras_ops.batch_norm_training(images, gamma, beta, mean, variance)
    assert_equal(layer(images, training=True), expected[0])
    assert_equal(layer.moving_mean, expected[1])
    biased = 0.9 * variance + 0.1 * images.var((0, 1, 2))
    assert_equal(layer.moving_variance, biased)
    assert relative_error(expected[2], biased) > 1e-4  # unbiased
    for layer, value in (
        (layers.LayerNormalization(**settings), keras_ops.layer_norm),
        (
            layers.GroupNormalization(2, **settings),
            lambda *x: keras_ops.group_norm(*x, groups=2),
        ),
    ):
        layer.build(images.shape)
        layer.set_weights([gamma, beta])
        assert_equal(layer(images), value(images, gamma, beta))


def test_modules_of_torch():
    arrays = draw_case((6, 5), 4)
    images = torch.tensor(to_torch(arrays[0], "maps"))
    mean, variance, gamma, beta = map(torch.tensor, arrays[1:])
    module = torch.nn.BatchNorm2d(4, dtype=torch.float64)
    names = ("running_mean", "running_var", "weight", "bias")
    state = dict(zip(names, (mean, variance, gamma, beta), strict=True))
    module.load_state_dict(state, strict=False)
    expected = torch_ops.batch_norm_training(images, gamma, beta, mean, variance)
    assert_equal(module(images).detach(), expected[0])
    assert_equal(module.running_mean, expected[1])
    assert_equal(module.running_var, expected[2])
    value = torch_ops.batch_norm(images, *expected[1:], gamma, beta)
    assert_equal(module.eval()(images).detach(), value)
    module = torch.nn.GroupNorm(2, 4, dtype=torch.float64)
    module.load_state_dict({"weight": gamma, "bias": beta})
    value = torch_ops.group_norm(images, gamma, beta, groups=2)
    assert_equal(module(images).detach(), value)
    module = torch.nn.LayerNorm(4, dtype=torch.float64)
    module.load_state_dict({"weight": gamma, "bias": beta})
    value = torch_ops.layer_norm(images, gamma, beta)
    assert_equal(module(images.permute(0, 2, 3, 1)).detach(), value.permute(0, 2, 3, 1))
    module = torch.nn.LocalResponseNorm(5, 5 * 1e-4, 0.75, 2.0)
    assert_equal(module(images), torch_ops.local_response_norm(images))


FAULTS = {
    "another epsilon": lambda x, g, b, m, v: torch_ops.batch_norm(
        x, m, v, g, b, epsilon=1e-3
    ),
    "a standard deviation for a variance": lambda x, g, b, m, v: torch_ops.batch_norm(
        x, m, v**0.5, g, b
    ),
    "gamma and beta swapped": lambda x, g, b, m, v: torch_ops.batch_norm(x, m, v, b, g),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_batch_norm_is_seen(fault):
    images, mean, variance, gamma, beta = draw_case((6, 5), 4)
    right = keras_ops.batch_norm(images, mean, variance, gamma, beta)
    arrays = map(torch.tensor, (to_torch(images, "maps"), gamma, beta, mean, variance))
    wrong = FAULTS[fault](*arrays)
    assert relative_error(to_keras(wrong.numpy(), "maps", ()), right) > 1e-4


def test_other_faults_are_seen():
    images, mean, variance, gamma, beta = draw_case((6, 5), 4)
    outputs, _, averaged = keras_ops.batch_norm_training(
        images, gamma, beta, mean, variance
    )
    biased = 0.9 * variance + 0.1 * images.var((0, 1, 2))
    assert relative_error(biased, averaged) > 1e6 * TOLERANCES["outputs"]
    unbiased = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2), ddof=1)
    assert relative_error(unbiased * gamma + beta, outputs) > 1e-3
    kept = torch_ops.batch_norm_training(
        to_torch(images, "maps"), gamma, beta, mean, variance, momentum=0.9
    )
    assert relative_error(kept[2], averaged) > 0.1  # the shares swapped
    maps = torch.tensor(to_torch(images, "maps"))
    for name, wrong in (
        ("layer_norm", torch.nn.functional.layer_norm(maps, maps.shape[1:])),
        ("layer_norm", torch.nn.functional.layer_norm(maps, maps.shape[3:])),
    ):
        right = getattr(keras_ops, name)(images, np.ones(4), np.zeros(4))
        assert relative_error(to_keras(wrong.numpy(), "maps", ()), right) > 0.1
    right = keras_ops.group_norm(images, gamma, beta, groups=2)
    interleaved = maps[:, [0, 2, 1, 3]]
    wrong = torch.nn.functional.group_norm(interleaved, 2)[:, [0, 2, 1, 3]]
    wrong = to_keras(wrong.numpy(), "maps", ()) * gamma + beta
    assert relative_error(wrong, right) > 0.1
    right = keras_ops.local_response_norm(images, alpha=0.5)
    wrong = torch.nn.functional.local_response_norm(maps, 5, 0.5, k=2.0)  # 0.5 / 5
    assert relative_error(to_keras(wrong.numpy(), "maps", ()), right) > 0.1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("batch_norm", {}, "shape of beta (3,) is not (4,)"),
        (
            "batch_norm_training",
            {},
            "shape of running_variance (3,) is not (4,)",
        ),
        ("layer_norm", {}, "shape of beta (3,) is not (4,)"),
        ("group_norm", {"groups": 2}, "shape of beta (3,) is not (4,)"),
    ],
)
def test_a_wrong_number_of_channels_is_the_same_line(name, settings, message):
    images, *four = draw_case((6, 5), 4)
    arrays = [images, *(four if "batch" in name else four[:2])]
    arrays[-1] = arrays[-1][:3]
    layouts = ["maps", *["array"] * (len(arrays) - 1)]
    check_refused(name, message, arrays, layouts, settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("batch_norm_training", {"momentum": 2}, "momentum 2 is not from 0 to 1"),
        ("group_norm", {"groups": 3}, "groups 3 is not a divisor of 4 channels"),
        ("group_norm", {"groups": 0}, "groups 0 is not an integer of 1 or more"),
    ],
)
def test_wrong_arguments_are_the_same_line_on_both_sides(name, settings, message):
    images, mean, variance, gamma, beta = draw_case((6, 5), 4)
    arrays = [images, gamma, beta]
    if name == "batch_norm_training":
        arrays += [mean, variance]
    layouts = ["maps", *["array"] * (len(arrays) - 1)]
    check_refused(name, message, arrays, layouts, settings)


def test_a_window_of_no_channels_and_a_single_value_are_refused():
    images, mean, variance, gamma, beta = draw_case((1, 1), 4)
    message = "size 0 is not an integer of 1 or more"
    check_refused("local_response_norm", message, [images], ["maps"], {"size": 0})
    arrays = [images[:1], gamma, beta, mean, variance]
    message = "number of values per channel 1 is not 2 or more"
    check_refused("batch_norm_training", message, arrays, ["maps", *["array"] * 4])

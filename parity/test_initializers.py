"""Both sides draw initial weights from the same distribution, which is the paper's."""

import math

import numpy as np
import pytest
from scipy import stats

from parity.frameworks import keras, torch
from keras_impl import initializers as keras_initializers
from parity.spec.errors import UsageError
from torch_impl import initializers as torch_initializers

SHAPE = (500, 2000)  # a million draws: inputs, outputs
MEAN = sum(SHAPE) / 2

# By name: the function, its arguments and the variance.
CASES = {
    "glorot_uniform": ("glorot_uniform", {}, 1 / MEAN),
    "glorot_normal": ("glorot_normal", {}, 1 / MEAN),
    "glorot_truncated": ("glorot_normal", {"truncated": True}, 1 / MEAN),
    "he_uniform": ("he_uniform", {}, 2 / SHAPE[0]),
    "he_uniform_out": ("he_uniform", {"mode": "fan_out"}, 2 / SHAPE[1]),
    "he_normal": ("he_normal", {}, 2 / SHAPE[0]),
    "he_normal_out": ("he_normal", {"mode": "fan_out"}, 2 / SHAPE[1]),
    "he_truncated": ("he_normal", {"truncated": True}, 2 / SHAPE[0]),
    "lecun_uniform": ("lecun_uniform", {}, 1 / SHAPE[0]),
    "lecun_normal": ("lecun_normal", {}, 1 / SHAPE[0]),
    "lecun_truncated": ("lecun_normal", {"truncated": True}, 1 / SHAPE[0]),
}

# Seeds are fixed: a sample this unlikely is drawn once or never.
UNLIKELY, IMPOSSIBLE = 1e-4, 1e-12


@pytest.fixture(autouse=True)
def seeded():
    """Fixed draws on both sides."""
    keras.utils.set_random_seed(0)
    torch.manual_seed(1)


def keras_draws(initializer, shape=SHAPE):
    return keras.ops.convert_to_numpy(initializer(shape)).astype(float)


def torch_draws(layer):
    return layer.weight.detach().numpy().astype(float)


def linear():
    return torch.nn.Linear(*SHAPE)


def distribution(name, variance):
    """Returns the exact distribution and its bound."""
    deviation = math.sqrt(variance)
    if "uniform" in name:
        bound = math.sqrt(3) * deviation
        return stats.uniform(-bound, 2 * bound), bound
    if "truncated" in name:
        wide = deviation / stats.truncnorm(-2, 2).std()
        return stats.truncnorm(-2, 2, scale=wide), 2 * wide
    return stats.norm(scale=deviation), math.inf


def same(draws, others):
    """Returns the p-value that two samples, or a sample and a distribution, agree."""
    if isinstance(others, np.ndarray):
        return stats.ks_2samp(draws.ravel(), others.ravel(), method="asymp").pvalue
    return stats.kstest(draws.ravel(), others.cdf, method="asymp").pvalue


@pytest.mark.parametrize("case", CASES)
def test_a_million_draws(case):
    name, arguments, variance = CASES[case]
    exact, bound = distribution(case, variance)
    assert exact.std() == pytest.approx(math.sqrt(variance), rel=1e-12)
    ours = keras_draws(getattr(keras_initializers, name)(**arguments))
    layer = getattr(torch_initializers, name)(linear(), **arguments)
    theirs = torch_draws(layer)
    assert not layer.bias.any()
    for draws in (ours, theirs):
        count = draws.size
        assert abs(draws.mean()) < 5 * math.sqrt(variance / count)
        assert abs(draws.std() / math.sqrt(variance) - 1) < 5 / math.sqrt(2 * count)
        assert np.abs(draws).max() <= bound * (1 + 1e-6)
        if math.isinf(bound):
            assert np.abs(draws).max() > 4 * math.sqrt(variance)
        assert same(draws, exact) > UNLIKELY
    assert same(ours, theirs) > UNLIKELY


def test_the_frameworks_defaults_are_told_apart():
    dense = keras.layers.Dense(SHAPE[1])
    dense.build((None, SHAPE[0]))
    ours, theirs = keras_draws(lambda _: dense.kernel), torch_draws(layer := linear())
    glorot, _ = distribution("glorot_uniform", 1 / MEAN)
    within = 1 / math.sqrt(SHAPE[0])
    own = stats.uniform(-within, 2 * within)
    assert same(ours, glorot) > UNLIKELY
    assert same(theirs, own) > UNLIKELY
    assert same(theirs, glorot) < IMPOSSIBLE
    assert same(ours, theirs) < IMPOSSIBLE
    assert not np.any(dense.bias)
    assert same(layer.bias.detach().numpy(), own) > UNLIKELY


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_default_of_a_convolution(kernel_size):
    layer = torch.nn.Conv2d(64, 128, kernel_size)
    bound = 1 / math.sqrt(64 * kernel_size**2)
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert 0.9 * bound < layer.bias.abs().max() <= bound


def test_a_truncation_is_found():
    exact, _ = distribution("he_normal", 2 / SHAPE[0])
    cut = keras_draws(keras.initializers.HeNormal())
    assert same(cut, exact) < IMPOSSIBLE
    layer = torch_initializers.he_normal(linear())
    assert same(cut, torch_draws(layer)) < IMPOSSIBLE
    # PyTorch's limits are numbers: these cut nothing off.
    torch.nn.init.trunc_normal_(layer.weight, std=math.sqrt(2 / SHAPE[0]))
    assert same(torch_draws(layer), exact) > UNLIKELY
    # Cut off and not widened.
    deviation = math.sqrt(2 / SHAPE[0])
    narrow = keras.initializers.TruncatedNormal(stddev=deviation)
    truncated, _ = distribution("he_truncated", 2 / SHAPE[0])
    assert same(keras_draws(narrow), truncated) < IMPOSSIBLE
    assert same(cut, truncated) > UNLIKELY


# By name: the layers of both sides, and the Keras initialisers' arguments.
CHANNELS, FILTERS, GROUPS = 32, 96, 4
KERNELS = {
    "convolution": (
        lambda **k: keras.layers.Conv2D(FILTERS, (3, 5), kernel_initializer=k["by"]),
        lambda: torch.nn.Conv2d(CHANNELS, FILTERS, (3, 5)),
        {},
    ),
    "grouped": (
        lambda **k: keras.layers.Conv2D(
            FILTERS, (3, 5), groups=GROUPS, kernel_initializer=k["by"]
        ),
        lambda: torch.nn.Conv2d(CHANNELS, FILTERS, (3, 5), groups=GROUPS),
        {"groups": GROUPS},
    ),
    "depthwise": (
        lambda **k: keras.layers.DepthwiseConv2D(
            (3, 5), depth_multiplier=3, depthwise_initializer=k["by"]
        ),
        lambda: torch.nn.Conv2d(CHANNELS, 3 * CHANNELS, (3, 5), groups=CHANNELS),
        {"kind": "depthwise"},
    ),
    "transposed": (
        lambda **k: keras.layers.Conv2DTranspose(
            FILTERS, (3, 5), kernel_initializer=k["by"]
        ),
        lambda: torch.nn.ConvTranspose2d(CHANNELS, FILTERS, (3, 5)),
        {"kind": "transposed"},
    ),
}


def count_fans(layer):
    """Returns what an output is made from and what an input goes into, by counting."""
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    images = torch.ones(1, CHANNELS, 13, 13, requires_grad=True)
    outputs = layer(images)
    outputs.sum().backward()
    middle = outputs.shape[2] // 2, outputs.shape[3] // 2
    return outputs[0, 0, *middle].item(), images.grad[0, 0, 6, 6].item()


def keras_kernel(create, initializer):
    layer = create(by=initializer)
    layer.build((None, 13, 13, CHANNELS))
    return np.asarray(layer.weights[0])


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_fans_of_each_kernel(kernel, mode):
    create, create_torch, arguments = KERNELS[kernel]
    layer = create_torch()
    fan = dict(zip(("fan_in", "fan_out"), count_fans(layer), strict=True))[mode]
    ours = keras_kernel(create, keras_initializers.he_normal(mode, **arguments))
    torch_initializers.he_normal(layer, mode)
    assert ours.std() == pytest.approx(math.sqrt(2 / fan), rel=0.1)
    assert torch_draws(layer).std() == pytest.approx(math.sqrt(2 / fan), rel=0.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_mean_of_the_fans_of_each_kernel(kernel):
    create, create_torch, arguments = KERNELS[kernel]
    layer = create_torch()
    bound = math.sqrt(6 / sum(count_fans(layer)))
    ours = keras_kernel(create, keras_initializers.glorot_uniform(**arguments))
    torch_initializers.glorot_uniform(layer)
    for draws in (ours, torch_draws(layer)):
        assert 0.98 * bound < np.abs(draws).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("kernel", "side", "mode", "factor"),
    [
        ("grouped", "keras", "fan_out", GROUPS),
        ("grouped", "torch", "fan_out", GROUPS),
        ("depthwise", "keras", "fan_in", CHANNELS),
        ("depthwise", "torch", "fan_out", CHANNELS),
        ("transposed", "keras", "fan_in", FILTERS / CHANNELS),
        ("transposed", "keras", "fan_out", CHANNELS / FILTERS),
        ("transposed", "torch", "fan_in", FILTERS / CHANNELS),
        ("transposed", "torch", "fan_out", CHANNELS / FILTERS),
    ],
)
def test_the_fans_that_the_frameworks_count_otherwise(kernel, side, mode, factor):
    create, create_torch, _ = KERNELS[kernel]
    layer = create_torch()
    fan = dict(zip(("fan_in", "fan_out"), count_fans(layer), strict=True))[mode]
    if side == "keras":
        own = keras.initializers.VarianceScaling(2.0, mode, "untruncated_normal")
        draws = keras_kernel(create, own)
    else:
        torch.nn.init.kaiming_normal_(layer.weight, mode=mode)
        draws = torch_draws(layer)
    assert 2 / draws.var() / fan == pytest.approx(factor, rel=0.2)


def test_a_seed_and_a_configuration_give_the_same_draws():
    first = keras_initializers.VarianceScaling(2.0, "fan_in", "uniform", seed=3)
    again = type(first).from_config(first.get_config())
    assert np.array_equal(keras_draws(first), keras_draws(again))
    grouped = keras_initializers.he_normal("fan_out", groups=4)
    assert type(grouped).from_config(grouped.get_config()).groups == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fan_inn"}, "unknown mode 'fan_inn'; did you mean fan_in"),
        ({"kind": "deep"}, "unknown kind of kernel 'deep'"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        keras_initializers.he_normal(**arguments)
    if "mode" in arguments:
        with pytest.raises(UsageError, match=message):
            torch_initializers.he_normal(torch.nn.Linear(2, 2), **arguments)


def test_filters_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match="10 filters do not divide into 4 groups"):
        keras_initializers.he_normal(groups=4)((3, 3, 4, 10))

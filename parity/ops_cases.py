"""Runs one operation on both sides, with its gradients, and what rounding explains."""

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from parity.frameworks import tf, torch
from keras_impl import ops as keras_ops
from parity.precision import select_keras_device, select_torch_device
from parity.rows.record import AXES
from parity.spec.errors import UsageError
from parity.spec.tolerances import TOLERANCES, relative_error
from torch_impl import ops as torch_ops

# The axes of a Keras tensor in PyTorch's order, by what the tensor is.
LAYOUTS = {**AXES, "depthwise": (2, 3, 0, 1), "array": None}
# Relative L2 errors of single operations in float64; no test needs a larger one.
TOLERANCE = TOLERANCES["operation"]
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}
# How many generated cases there were, by operation and what became of them.
COUNTS = collections.Counter()


class Flattened(NamedTuple):
    """The layout of maps as vectors (N, H * W * C), in PyTorch (N, C * H * W)."""

    height: int
    width: int
    channels: int


class Patches(NamedTuple):
    """The layout of (N, H, W, pixels * C), in PyTorch (N, C * pixels, H, W)."""

    channels: int


Layout = str | Flattened | Patches


class Results(NamedTuple):
    """An operation's outputs and the gradients of a weighted sum of them.

    Attributes:
        outputs: as the Keras side has them.
        gradients: by each floating-point tensor, likewise.
    """

    outputs: list[np.ndarray]
    gradients: list[np.ndarray]

    @property
    def output(self) -> np.ndarray:
        """The first output, of most operations the only one."""
        return self.outputs[0]


def to_torch(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns an array of the Keras side as the PyTorch side has it."""
    if isinstance(layout, Flattened):
        return to_torch(array.reshape(-1, *layout), "maps").reshape(array.shape)
    if isinstance(layout, Patches):
        pixels = array.reshape(*array.shape[:3], -1, layout.channels)
        return to_torch(pixels.swapaxes(3, 4).reshape(array.shape), "maps")
    if layout == "depthwise":  # (h, w, C, M) to (C * M, 1, h, w)
        height, width = array.shape[:2]
        array = array.transpose(LAYOUTS[layout])
        return np.ascontiguousarray(array).reshape(-1, 1, height, width)
    axes = LAYOUTS[layout]
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))


def to_keras(array: np.ndarray, layout: Layout, shape: Sequence[int]) -> np.ndarray:
    """Returns an array of the PyTorch side as the Keras side has it."""
    if isinstance(layout, Flattened):
        height, width, channels = layout
        maps = array.reshape(-1, channels, height, width)
        return to_keras(maps, "maps", ()).reshape(array.shape)
    if isinstance(layout, Patches):
        array = to_keras(array, "maps", ())
        pixels = array.reshape(*array.shape[:3], layout.channels, -1)
        return pixels.swapaxes(3, 4).reshape(array.shape)
    if layout == "depthwise":
        height, width, channels, multiplier = shape
        array = array.reshape(channels, multiplier, height, width)
    axes = LAYOUTS[layout]
    return array if axes is None else array.transpose(np.argsort(axes))


def run(
    name: str,
    arrays: Sequence[np.ndarray],
    layouts: Sequence[Layout],
    settings: Mapping[str, object] | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
    output: Layout = "maps",
) -> tuple[Results, Results] | tuple[UsageError, UsageError]:
    """Runs an operation of both sides' `ops` on the same numbers.

    Args:
        name: of the operation.
        arrays: its tensors, as the Keras side has them.
        layouts: what each is, of LAYOUTS.
        settings: its keyword arguments.
        dtype: in which the floating-point tensors are given.
        device: "cpu" or "gpu".
        output: what the outputs are; "maps" are those of four axes only.

    Returns:
        Keras's results and PyTorch's, or the errors that both raise. An error on one
        side only is raised.
    """
    settings = dict(settings or {})
    arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in arrays]
    sides = []
    for side in (_run_keras, _run_torch):
        try:
            sides.append(side(name, arrays, layouts, settings, device, output))
        except UsageError as error:
            sides.append(error)
    if sum(isinstance(side, UsageError) for side in sides) == 1:
        raise next(side for side in sides if isinstance(side, UsageError))
    return tuple(sides)


def _run_keras(name, arrays, layouts, settings, device, output):
    with tf.device(select_keras_device(device)), tf.GradientTape() as tape:
        tensors = [tf.constant(array) for array in arrays]
        floating = [x for x in tensors if x.dtype.is_floating]
        tape.watch(floating)
        values = _as_tuple(getattr(keras_ops, name)(*tensors, **settings))
        target = sum(
            tf.reduce_sum(weights(x.shape, x.dtype.name) * x)
            for x in values
            if x.dtype.is_floating
        )
    if not tf.is_tensor(target):
        gradients = [tf.zeros_like(x) for x in floating]
    else:
        gradients = tape.gradient(target, floating, unconnected_gradients="zero")
    return Results([x.numpy() for x in values], [x.numpy() for x in gradients])


def _run_torch(name, arrays, layouts, settings, device, output):
    device = select_torch_device(device)
    tensors = [
        torch.tensor(to_torch(x, layout), device=device)
        for x, layout in zip(arrays, layouts, strict=True)
    ]
    for tensor in tensors:
        tensor.requires_grad_(tensor.is_floating_point())
    values = _as_tuple(getattr(torch_ops, name)(*tensors, **settings))
    outputs, target = [], torch.zeros(())
    for value in values:
        layout = "array" if output == "maps" and value.ndim != 4 else output
        outputs.append(to_keras(value.detach().cpu().numpy(), layout, ()))
        if value.is_floating_point():
            factors = weights(outputs[-1].shape, str(outputs[-1].dtype))
            factors = torch.tensor(to_torch(factors, layout), device=device)
            target = target.to(value) + (factors * value).sum()
    if target.requires_grad:
        target.backward()
    gradients = []
    for tensor, layout, array in zip(tensors, layouts, arrays, strict=True):
        if tensor.grad is not None:
            gradient = to_keras(tensor.grad.cpu().numpy(), layout, array.shape)
            gradients.append(gradient)
        elif tensor.requires_grad:
            gradients.append(np.zeros(array.shape))
    return Results(outputs, gradients)


def _as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def weights(shape: Sequence[int], dtype: str = "float64") -> np.ndarray:
    """Returns the weights of the sum whose gradients are taken, all different.

    They add up to something, so that no gradient is 0 but for rounding.
    """
    return np.linspace(-1, 2, math.prod(shape)).reshape(shape).astype(dtype)


def assert_equal(value: np.ndarray, reference: np.ndarray) -> None:
    """Asserts that two float64 results are the same but for rounding."""
    assert relative_error(value, reference) < TOLERANCE


def assert_same(ours: Results, theirs: Results) -> None:
    """Asserts that both sides' outputs and gradients are the same."""
    for found, expected in zip(theirs, ours, strict=True):
        for value, reference in zip(found, expected, strict=True):
            assert value.dtype.kind == reference.dtype.kind
            if value.dtype.kind == "f":
                assert_equal(value, reference)
            else:
                np.testing.assert_array_equal(value, reference)


def assert_rounded(
    value: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, terms: int
) -> None:
    """Asserts that a float32 result is off by no more than its sums' rounding.

    A sum of n products computed in any order is off by at most n * unit times the sum
    of the products' magnitudes, by 1 / (1 - n * unit) at most more (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", section 3.1); each of the inputs
    was rounded once before, which adds two units. Where other operations than sums are
    made, each counts as a term, and the magnitude holds what is largest on the way.

    Args:
        value: what float32 gave.
        exact: what float64 gave for the float32 inputs.
        magnitude: the sums of the products' magnitudes, such as |W| * |x|.
        terms: products in a sum.
    """
    bound = (terms + 2) * UNITS["float32"] * np.abs(magnitude)
    tiny = np.finfo(np.float32).tiny
    excess = np.abs(np.asarray(value, float) - exact) - bound * 1.01 - tiny
    assert excess.max(initial=-1.0) <= 0


def assert_float32(
    name: str,
    arrays: Sequence[np.ndarray],
    layouts: Sequence[Layout],
    settings: Mapping[str, object],
    magnitude: np.ndarray,
    terms: int,
) -> None:
    """Asserts that both sides' float32 outputs are off by rounding only."""
    exact, _ = run(name, arrays, layouts, settings)
    for side in run(name, arrays, layouts, settings, dtype="float32"):
        assert side.output.dtype == np.float32
        assert_rounded(side.output, exact.output, magnitude, terms)


def draw(seed: int, *shape: int) -> np.ndarray:
    """Returns normal numbers, float64, that float32 has too."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float32).astype(np.float64)


def draw_images(size: tuple[int, int], channels: int) -> np.ndarray:
    """Returns images (2, H, W, channels), more of them negative."""
    return draw(1, 2, *size, channels) - 0.5


def draw_kernel(*shape: int) -> np.ndarray:
    """Returns a kernel, or any other tensor than the images."""
    return draw(2, *shape)


def pairs(least: int, most: int) -> st.SearchStrategy:
    """Returns integers and pairs of them."""
    integers = st.integers(least, most)
    return st.one_of(integers, st.tuples(integers, integers))


# (height, width) of images.
sizes = st.tuples(st.integers(5, 14), st.integers(5, 14))
# Pixels around them, in all the ways that padding is given.
borders = st.one_of(
    pairs(0, 3),
    st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
)


def each_case(strategy: st.SearchStrategy) -> Callable:
    """Runs a test over generated cases: as many as --cases says, the same ones."""

    def decorate(test):
        def every(pytestconfig):
            limits = settings(
                max_examples=pytestconfig.getoption("--cases"),
                derandomize=True,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
            )
            limits(given(strategy)(test))()

        every.__name__ = test.__name__
        return every

    return decorate


def count(name: str, results: tuple[Results | UsageError, ...]) -> bool:
    """Counts a case; returns whether both sides refuse it, with the same line."""
    refused = isinstance(results[0], UsageError)
    COUNTS[name, "refused by both" if refused else "equal"] += 1
    if refused:
        assert str(results[0]) == str(results[1])
    return refused


def check_refused(name: str, message: str, *case: object) -> None:
    """Asserts that both sides refuse a case with the same line, and how it begins."""
    ours, theirs = run(name, *case)
    assert isinstance(ours, UsageError)
    assert str(ours) == str(theirs)
    assert str(ours).startswith(message)


@pytest.fixture(scope="module", autouse=True)
def print_counts(request: pytest.FixtureRequest):
    """Says after a file's last test how many cases of each kind there were."""
    COUNTS.clear()
    yield
    plugins = request.config.pluginmanager
    reporter = plugins.get_plugin("terminalreporter")
    capture = plugins.get_plugin("capturemanager")
    lines = [f"{name}: {cases} cases {what}" for (name, what), cases in COUNTS.items()]
    if reporter and capture:
        with capture.global_and_fixture_disabled():
            for line in ["", *sorted(lines)]:
                reporter.write_line(line)


class Example(NamedTuple):
    """One case of an operation, the arguments of `run`."""

    arrays: Sequence[np.ndarray]
    layouts: Sequence[Layout]
    settings: Mapping[str, object] = {}
    output: Layout = "maps"


def _on_maps(*more: np.ndarray, shape=(2, 6, 5, 4), **settings: object) -> Example:
    arrays = [draw(1, *shape), *more]
    return Example(arrays, ["maps"] + ["array"] * len(more), settings)


def _of_pairs(*arrays: np.ndarray, **settings: object) -> Example:
    return Example(arrays, ["array"] * len(arrays), settings, "array")


def _with_kernel(shape: tuple[int, ...], layout: str, **settings: object) -> Example:
    return Example([draw(1, 2, 6, 5, 4), draw(2, *shape)], ["maps", layout], settings)


_CHANNELS = [np.abs(draw(seed, 4)) + 0.5 for seed in range(4)]
_SCORES, _OTHERS = draw(3, 3, 6), draw(4, 3, 6)
_PROBABILITIES, _TARGETS = (
    np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (_SCORES, _OTHERS)
)
_LABELS = np.array([2, 5, 0])
# Every operation but output_size, which is the same function on both sides.
EXAMPLES = {
    "accuracy": _of_pairs(_SCORES, _LABELS),
    "adaptive_avg_pool2d": _on_maps(output_size=(2, 3)),
    "adaptive_max_pool2d": _on_maps(output_size=(2, 3)),
    "avg_pool2d": _on_maps(kernel_size=2, padding=1),
    "batch_norm": _on_maps(*_CHANNELS),
    "batch_norm_training": _on_maps(*_CHANNELS),
    "binary_cross_entropy": _of_pairs(_SCORES, _TARGETS),
    "celu": _on_maps(alpha=1.5),
    "center_crop": _on_maps(size=(3, 2)),
    "conv2d": _with_kernel((3, 2, 4, 3), "kernel", padding="same", stride=2),
    "conv2d_1x1": _with_kernel((4, 3), "matrix"),
    "conv2d_as_dense": _with_kernel((3, 2, 4, 3), "kernel", padding=1),
    "conv2d_transpose": _with_kernel((3, 2, 3, 4), "kernel", padding="same", stride=2),
    "convolve2d": _with_kernel((3, 2, 4, 3), "kernel"),
    "crop": _on_maps(top=1, left=2, height=4, width=2),
    "cross_entropy": _of_pairs(_SCORES, _LABELS),
    "dense": Example(
        [_SCORES, draw(2, 6, 4), _CHANNELS[0]], ["array", "matrix", "array"]
    ),
    "depthwise_conv2d": _with_kernel((3, 2, 4, 2), "depthwise"),
    "dropout": Example(
        [draw(1, 2, 6, 5, 4), draw(2, 2, 1, 1, 4) > 0], ["maps"] * 2, {"rate": 0.3}
    ),
    "elu": _on_maps(alpha=1.5),
    "flatten": _on_maps()._replace(output=Flattened(6, 5, 4)),
    "gelu": _on_maps(),
    "global_avg_pool2d": _on_maps(),
    "global_max_pool2d": _on_maps(),
    "group_norm": _on_maps(*_CHANNELS[:2], groups=2),
    "hard_sigmoid": _on_maps(),
    "hard_swish": _on_maps(),
    "huber": _of_pairs(_SCORES, _OTHERS),
    "kl_divergence": _of_pairs(_PROBABILITIES, _TARGETS),
    "layer_norm": _on_maps(*_CHANNELS[:2]),
    "leaky_relu": _on_maps(),
    "local_response_norm": _on_maps(),
    "log_softmax": _on_maps(),
    "max_pool2d": _on_maps(kernel_size=2, padding=1),
    "mean_squared_error": _of_pairs(_SCORES, _OTHERS),
    "mish": _on_maps(),
    "one_hot": _of_pairs(_LABELS, num_classes=6),
    "pad": _on_maps(padding=((1, 2), (3, 0)), mode="reflect"),
    "pixel_shuffle": _on_maps(shape=(2, 3, 5, 8), factor=2),
    "pixel_unshuffle": _on_maps(shape=(2, 4, 6, 3), factor=2),
    "prelu": _on_maps(_CHANNELS[0]),
    "relu": _on_maps(),
    "relu6": _on_maps(),
    "resize": _on_maps(size=(9, 3), method="bicubic"),
    "selu": _on_maps(),
    "separable_conv2d": Example(
        [draw(1, 2, 6, 5, 4), draw(2, 3, 2, 4, 2), draw(3, 1, 1, 8, 3)],
        ["maps", "depthwise", "kernel"],
    ),
    "sigmoid": _on_maps(),
    "silu": _on_maps(),
    "softmax": _on_maps(),
    "softplus": _on_maps(),
    "softsign": _on_maps(),
    "tanh": _on_maps(),
    "top_k": _of_pairs(_SCORES, k=3),
    "top_k_accuracy": _of_pairs(_SCORES, _LABELS, k=3),
    "unfold": _on_maps(kernel_size=(3, 2), padding=1)._replace(output=Patches(4)),
}

"""Rung 2: what moves and resamples pixels, on both sides, by NumPy and ONNX Runtime."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import strategies as st
from torchvision.transforms import v2

from parity.frameworks import keras, tf, torch
from keras_impl import ops as keras_ops
from parity import ops_cases, witnesses
from parity.ops_cases import (
    Flattened,
    assert_equal,
    assert_float32,
    assert_same,
    borders,
    check_refused,
    count,
    draw,
    draw_images,
    each_case,
    pairs,
    run,
    sizes,
    to_keras,
    to_torch,
)
from parity.spec.padding import explicit_padding
from parity.spec.tolerances import relative_error
from parity.witnesses import assert_onnx, run_onnx
from torch_impl import ops as torch_ops

print_counts = ops_cases.print_counts
METHODS = ["nearest", "bilinear", "bicubic"]
channels = st.integers(1, 4)


def check_moved(name, images, settings, expected, output="maps"):
    """Both sides and NumPy; what only moves numbers does so exactly."""
    case = ([images], ["maps"], settings)
    results = run(name, *case, output=output)
    assert not count(name, results)
    assert_same(*results)
    np.testing.assert_array_equal(results[0].output, expected)
    for side in run(name, *case, dtype="float32", output=output):
        np.testing.assert_array_equal(side.output, expected.astype(np.float32))
    return results[0].output


@each_case(st.tuples(sizes, channels))
def test_flatten(case):
    size, channels = case
    images = draw_images(size, channels)
    layout = Flattened(*size, channels)
    check_moved("flatten", images, {}, images.reshape(2, -1), layout)


@each_case(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()))
def test_dense(case):
    inputs, outputs, biased = case
    arrays = [draw(1, 3, inputs), draw(2, inputs, outputs)]
    layouts = ["array", "matrix"]
    if biased:
        arrays, layouts = [*arrays, draw(3, outputs)], [*layouts, "array"]
    results = run("dense", arrays, layouts)
    assert not count("dense", results)
    assert_same(*results)
    bias = arrays[2] if biased else np.zeros(outputs)
    assert_equal(results[0].output, arrays[0] @ arrays[1] + bias)
    largest = abs(arrays[0]) @ abs(arrays[1]) + abs(bias)
    assert_float32("dense", arrays, layouts, {}, largest, inputs + 1)
    assert_onnx(results[0].output, largest, inputs + 1, "Gemm", *arrays)


@each_case(st.tuples(sizes, pairs(1, 20), st.sampled_from(METHODS), st.booleans()))
def test_resize(case):
    size, new, method, antialias = case
    images = draw_images(size, 2)
    settings = {"size": new, "method": method, "antialias": antialias}
    results = run("resize", [images], ["maps"], settings)
    assert not count(f"resize, {method}", results)
    assert_same(*results)
    new = np.broadcast_to(new, 2).tolist()
    expected = witnesses.resize(images, new, method, antialias)
    assert_equal(results[0].output, expected)
    # A weight is off by at most its slope of 2 times the rounding of a position, which
    # is at most the size; the kernel reaches over 4 pixels, stretched or not.
    terms = 0 if method == "nearest" else 8 * sum(size) + 16
    largest = np.full(expected.shape, abs(images).max())
    assert_float32("resize", [images], ["maps"], settings, largest, terms)
    if method != "nearest":  # whose positions it rounds to float32
        assert_onnx(
            results[0].output,
            largest,
            terms,
            "Resize",
            to_torch(images, "maps"),
            None,
            None,
            np.array([2, 2, *new]),
            mode={"bilinear": "linear", "bicubic": "cubic"}[method],
            antialias=int(antialias),
            cubic_coeff_a=-0.5,
            exclude_outside=int(method == "bicubic" or antialias),
        )


@pytest.mark.parametrize(("old", "new"), [(6, 37), (14, 23), (26, 11), (30, 29)])
def test_nearest_where_a_position_is_an_integer_but_for_rounding(old, new):
    images = np.arange(float(old)).reshape(1, -1, 1, 1)
    settings = {"size": (new, 1), "method": "nearest"}
    results = run("resize", [images], ["maps"], settings)
    assert_same(*results)
    centres = [(i + Fraction(1, 2)) * old / new for i in range(new)]
    expected = np.array([math.floor(centre) for centre in centres])
    np.testing.assert_array_equal(results[0].output.ravel(), expected)
    own = tf.image.resize(images, (new, 1), "nearest").numpy().ravel()
    assert np.sum(own != expected) > 0
    module = torch.nn.Upsample((new, 1), mode="nearest-exact")
    own = module(torch.tensor(to_torch(images, "maps"))).numpy().ravel()
    assert np.sum(own != expected) > 0


@each_case(st.tuples(sizes, borders, st.sampled_from(["constant", "reflect", "edge"])))
def test_pad(case):
    size, padding, mode = case
    images, border = draw_images(size, 2), explicit_padding(padding, size, (1, 1))
    around = [(0, 0), *border, (0, 0)]
    value = {"constant_values": 1.5} if mode == "constant" else {}
    expected = np.pad(images, around, mode, **value)
    settings = {"padding": padding, "mode": mode, "value": 1.5}
    output = check_moved("pad", images, settings, expected)
    (top, bottom), (left, right) = border
    pixels = np.array([0, 0, top, left, 0, 0, bottom, right])
    onnx = [to_torch(images, "maps"), pixels, np.array(1.5)]
    assert_onnx(output, output, 0, "Pad", *onnx, mode=mode)


factors = st.tuples(st.integers(1, 3), channels, st.integers(1, 5), st.integers(1, 5))


@each_case(factors)
def test_pixel_shuffle(case):
    factor, channels, height, width = case
    images = draw(1, 2, height, width, channels * factor**2)
    apart = images.reshape(2, height, width, channels, factor, factor)
    expected = np.einsum("nhwcij->nhiwjc", apart)
    expected = expected.reshape(2, height * factor, width * factor, channels)
    output = check_moved("pixel_shuffle", images, {"factor": factor}, expected)
    check_moved("pixel_unshuffle", output, {"factor": factor}, images)
    onnx = to_torch(images, "maps")
    attributes = {"blocksize": factor, "mode": "CRD"}
    assert_onnx(output, output, 0, "DepthToSpace", onnx, **attributes)


def test_depth_to_space_has_the_channels_in_another_order():
    images = draw(1, 2, 4, 3, 8)
    depth_first, _ = run_onnx(
        "DepthToSpace", [to_torch(images, "maps")], blocksize=2, mode="DCR"
    )
    expected = to_keras(depth_first[0], "maps", ())
    assert_equal(tf.nn.depth_to_space(images, 2), expected)
    ours = keras_ops.pixel_shuffle(images, 2)
    assert relative_error(ours, expected) > 0.1
    swapped = images.reshape(2, 4, 3, 4, 2).swapaxes(3, 4).reshape(images.shape)
    assert_equal(keras_ops.pixel_shuffle(swapped, 2), expected)


@each_case(st.tuples(sizes, *[st.tuples(st.integers(0, 99), st.integers(0, 99))] * 2))
def test_crop(case):
    size, first, length = case
    images = draw_images(size, 3)
    top, left = (a % b for a, b in zip(first, size, strict=True))
    height = length[0] % (size[0] - top) + 1
    width = length[1] % (size[1] - left) + 1
    settings = {"top": top, "left": left, "height": height, "width": width}
    expected = images[:, top : top + height, left : left + width]
    check_moved("crop", images, settings, expected)
    layer = keras.layers.CenterCrop(height, width, dtype="float64")
    expected = layer(images).numpy()
    check_moved("center_crop", images, {"size": (height, width)}, expected)


@each_case(st.tuples(st.integers(1, 9), st.lists(st.integers(0, 8), min_size=1)))
def test_one_hot(case):
    classes, labels = case
    labels = np.array(labels) % classes
    results = run("one_hot", [labels], ["array"], {"num_classes": classes})
    assert not count("one_hot", results)
    assert_same(*results)
    np.testing.assert_array_equal(results[0].output, np.eye(classes)[labels])


@each_case(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()))
def test_top_k(case):
    classes, k, ties = case
    scores = draw(1, 3, classes)
    scores = scores.round() if ties else scores
    case = ([scores], ["array"], {"k": k})
    results = run("top_k", *case)
    assert count("top_k", results) == (k > classes)
    if k > classes:
        return
    assert_same(*results)
    expected = np.argsort(-scores, 1, kind="stable")[:, :k]
    values, indices = results[0].outputs
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, 1))
    (largest, first), dtype = run_onnx("TopK", [scores, np.array([k])], outputs=2)
    assert dtype == "float64"
    np.testing.assert_array_equal(largest, values)
    np.testing.assert_array_equal(first, indices)
    for side in run("top_k", *case, dtype="float32"):
        np.testing.assert_array_equal(side.outputs[1], expected)


def test_layers_of_keras():
    images, kernel, bias = draw(1, 2, 6, 5, 4), draw(2, 4, 3), draw(3, 3)
    layers = keras.layers
    layer = layers.Dense(3, dtype="float64")
    layer.build((2, 4))
    layer.set_weights([kernel, bias])
    features = images[:, 0, 0]
    assert_equal(layer(features), keras_ops.dense(features, kernel, bias))
    assert_equal(layers.Flatten(dtype="float64")(images), keras_ops.flatten(images))
    padding = ((1, 2), (3, 0))
    layer = layers.ZeroPadding2D(padding, dtype="float64")
    assert_equal(layer(images), keras_ops.pad(images, padding))
    layer = layers.Cropping2D(padding, dtype="float64")
    assert_equal(layer(images), keras_ops.crop(images, 1, 3, 3, 2))
    # TensorFlow's own gives float32, and takes the bicubic kernel from a table.
    for method, limit in (("nearest", 0), ("bilinear", 1e-6), ("bicubic", 1e-2)):
        for antialias in (False, True):
            own = tf.image.resize(images, (9, 3), method, antialias=antialias)
            value = keras_ops.resize(images, (9, 3), method=method, antialias=antialias)
            assert relative_error(own, value) <= limit
    labels = np.array([2, 0, 1])
    one_hot = keras.ops.one_hot(labels, 4)
    np.testing.assert_array_equal(one_hot, keras_ops.one_hot(labels, 4))


def test_modules_of_torch():
    images, nn = torch.tensor(draw(1, 2, 4, 6, 5)), torch.nn
    module = nn.Linear(4, 3, dtype=torch.float64)
    features = images[:, :, 0, 0]
    value = torch_ops.dense(features, module.weight, module.bias)
    assert_equal(module(features).detach(), value.detach())
    for module, value in (
        (nn.Flatten(), torch_ops.flatten(images)),
        (nn.ReflectionPad2d((3, 0, 1, 2)), ((1, 2), (3, 0), "reflect")),
        (nn.ReplicationPad2d((3, 0, 1, 2)), ((1, 2), (3, 0), "edge")),
        (nn.ZeroPad2d((3, 0, 1, 2)), ((1, 2), (3, 0), "constant")),
        (nn.PixelShuffle(2), torch_ops.pixel_shuffle(images, 2)),
        (nn.Upsample((9, 3), mode="nearest-exact"), "nearest"),
        (nn.Upsample((9, 3), mode="bilinear"), "bilinear"),
    ):
        if isinstance(value, tuple):
            value = torch_ops.pad(images, value[:2], mode=value[2])
        if isinstance(value, str):
            value = torch_ops.resize(images, (9, 3), method=value)
        assert_equal(module(images), value)
    even = images[:, :, :, :4]
    assert_equal(nn.PixelUnshuffle(2)(even), torch_ops.pixel_unshuffle(even, 2))
    for method in ("bilinear", "bicubic"):
        mode = v2.InterpolationMode(method)
        value = torch_ops.resize(images, (3, 9), method=method, antialias=True)
        assert_equal(v2.functional.resize(images, [3, 9], mode), value)
    assert_equal(
        v2.functional.center_crop(images, [4, 3]), torch_ops.center_crop(images, (4, 3))
    )


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1)])
def test_resize_to_a_single_row_or_column(size, method):
    images = draw_images((6, 7), 2)
    settings = {"size": size, "method": method, "antialias": True}
    results = run("resize", [images], ["maps"], settings)
    assert_same(*results)
    expected = witnesses.resize(images, size, method, True)
    assert_equal(results[0].output, expected)


def test_spline_of_scipy_is_the_bilinear_resize_inside():
    images = draw(1, 1, 8, 8, 1)
    value = keras_ops.resize(images, 16, method="bilinear").numpy()[0, :, :, 0]
    positions = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    grid = np.meshgrid(positions, positions, indexing="ij")
    expected = scipy.ndimage.map_coordinates(images[0, :, :, 0], grid, order=1)
    assert_equal(value, expected)


def torch_resize(images, size=(9, 3), **settings):
    return torch.nn.functional.interpolate(images, size, **settings)


def torch_pad(images, around):
    return torch.nn.functional.pad(images, around)


FAULTS = [
    (
        "resize",
        {"size": (9, 3)},
        lambda x: torch_resize(x, mode="bilinear", align_corners=True),
    ),
    (
        "resize",
        {"size": (9, 3)},
        lambda x: torch_resize(x, mode="bilinear", antialias=True),
    ),
    (
        "resize",
        {"size": (9, 3), "method": "bicubic"},
        lambda x: torch_resize(x, mode="bicubic"),
    ),
    (
        "resize",
        {"size": (9, 3), "method": "nearest"},
        lambda x: torch_resize(x, mode="nearest"),
    ),
    (
        "resize",
        {"size": (4, 3)},
        lambda x: torch_resize(x, (4, 3), mode="bilinear", antialias=True),
    ),
    ("pad", {"padding": ((1, 2), (3, 0))}, lambda x: torch_pad(x, (1, 2, 3, 0))),
    (
        "pad",
        {"padding": ((1, 2), (3, 0))},
        lambda x: torch_pad(x, (3, 0, 2, 1)),
    ),
    (
        "pixel_shuffle",
        {"factor": 2},
        lambda x: torch_ops.pixel_shuffle(x, 2).swapaxes(2, 3).reshape(2, 2, 12, 10),
    ),
    (
        "pixel_shuffle",
        {"factor": 2},
        lambda x: torch_ops.pixel_shuffle(x[:, [0, 2, 4, 6, 1, 3, 5, 7]], 2),
    ),
    ("center_crop", {"size": (3, 4)}, lambda x: x[:, :, 2:5, :4]),  # rounded up
]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case[0])
def test_a_fault_is_seen(case):
    name, settings, fault = case
    images = draw(1, 2, 6, 5, 8)
    right = getattr(keras_ops, name)(images, **settings)
    wrong = fault(torch.tensor(to_torch(images, "maps")))
    wrong = to_keras(wrong.numpy(), "maps", ())
    assert wrong.shape == right.shape
    assert relative_error(wrong, right) > 1e-2


def test_a_kernel_behind_a_flattened_map_has_its_rows_in_another_order():
    images, kernel = draw(1, 2, 6, 5, 4), draw(2, 120, 3)
    right = keras_ops.dense(keras_ops.flatten(images), kernel)
    features = torch_ops.flatten(to_torch(images, "maps"))
    naive = torch_ops.dense(features, kernel.T.copy())
    assert relative_error(naive, right) > 0.1
    moved = to_torch(kernel.T, Flattened(6, 5, 4))
    assert_equal(torch_ops.dense(features, moved), right)


def test_an_unstable_order_of_equal_scores_is_seen():
    scores = np.zeros((1, 5))
    _, right = keras_ops.top_k(scores, 3)
    wrong = np.argsort(scores[:, ::-1], 1, kind="stable")[:, ::-1][:, :3]
    assert relative_error(wrong, right) > 0.1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resize", {"size": 0}, "size 0 is not an integer of 1 or more"),
        (
            "resize",
            {"size": 3, "method": "cubic"},
            "unknown method 'cubic'; did you mean bicubic? choose from nearest, ",
        ),
        ("pad", {"padding": -1}, "padding -1 is not an integer of 0 or more"),
        ("pad", {"padding": "same"}, "padding 'same' is not an integer, a pair or "),
        (
            "pad",
            {"padding": 1, "mode": "replicate"},
            "unknown mode 'replicate'; did you mean reflect? choose from constant, ",
        ),
        (
            "pad",
            {"padding": (1, 5), "mode": "reflect"},
            "padding (5, 5) is not less than the 5 pixels that it mirrors",
        ),
        (
            "pixel_shuffle",
            {"factor": 3},
            "number of channels 8 is not a multiple of factor 3 squared",
        ),
        ("pixel_shuffle", {"factor": 0}, "factor 0 is not an integer of 1 or more"),
        ("pixel_unshuffle", {"factor": 2}, "width 5 is not a multiple of factor 2"),
        (
            "crop",
            {"top": 1, "left": 0, "height": 6, "width": 1},
            "height 6 is not an integer from 1 to 5",
        ),
        (
            "crop",
            {"top": 0, "left": 5, "height": 1, "width": 1},
            "left 5 is not an integer from 0 to 4",
        ),
        ("center_crop", {"size": 6}, "width 6 is not an integer from 1 to 5"),
    ],
)
def test_wrong_arguments_are_the_same_line_on_both_sides(name, settings, message):
    check_refused(name, message, [draw(1, 2, 6, 5, 8)], ["maps"], settings)


@pytest.mark.parametrize(
    ("name", "arrays", "settings", "message"),
    [
        (
            "one_hot",
            [np.array([0, 3])],
            {"num_classes": 3},
            "label 3 is not an integer from 0 to 2",
        ),
        (
            "one_hot",
            [np.array([-1, 0])],
            {"num_classes": 3},
            "label -1 is not an integer from 0 to 2",
        ),
        (
            "one_hot",
            [np.array([0.0, 1.0])],
            {"num_classes": 3},
            "type of labels 'float64' is not integer",
        ),
        ("top_k", [draw(1, 2, 3)], {"k": 4}, "k 4 is not an integer from 1 to 3"),
        ("top_k", [draw(1, 2, 3)], {"k": 0}, "k 0 is not an integer from 1 to 3"),
        (
            "dense",
            [draw(1, 2, 3), draw(2, 4, 5)],
            {},
            "shape of kernel (4, 5) is not (3, 5)",
        ),
        (
            "dense",
            [draw(1, 2, 3), draw(2, 3, 5), draw(3, 4)],
            {},
            "shape of bias (4,) is not (5,)",
        ),
    ],
)
def test_other_wrong_arguments_are_the_same_line(name, arrays, settings, message):
    layouts = ["array", "matrix", "array"][: len(arrays)]
    check_refused(name, message, arrays, layouts, settings)

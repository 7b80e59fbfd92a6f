"""Rung 2: one operation at a time: TensorFlow, PyTorch and SciPy or NumPy agree."""

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import strategies as st

from parity.frameworks import keras, tf, torch
from keras_impl import ops as keras_ops
from parity import ops_cases, witnesses
from parity.ops_cases import (
    EXAMPLES,
    Patches,
    assert_equal,
    assert_float32,
    assert_rounded,
    assert_same,
    borders,
    check_refused,
    count,
    draw_images,
    draw_kernel,
    each_case,
    pairs,
    run,
    sizes,
    to_keras,
    to_torch,
)
from parity.spec.errors import UsageError
from parity.spec.padding import place_pooling, transposed
from parity.spec.tolerances import TOLERANCES, relative_error
from parity.witnesses import assert_onnx, correlate, correlate_depthwise
from torch_impl import ops as torch_ops

CHANNELS, OUT_CHANNELS = 3, 4
random = np.random.default_rng(0)
IMAGES = {
    size: random.standard_normal((2, *size, CHANNELS)) - 1
    for size in ((12, 10), (13, 9))
}
FILTERS = {3: random.standard_normal((3, 4, CHANNELS, OUT_CHANNELS))}
print_counts = ops_cases.print_counts

paddings = st.one_of(st.sampled_from(["same", "valid"]), borders)
kernels = st.tuples(st.integers(1, 7), st.integers(1, 7))


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    arguments = {
        "stride": draw(pairs(1, 4)),
        "padding": draw(paddings),
        "dilation": draw(pairs(1, 3)),
    }
    return draw(sizes), draw(kernels), groups, arguments


@each_case(convolutions())
def test_conv2d(case):
    size, kernel_size, groups, arguments = case
    images = draw_images(size, 2 * groups)
    kernel = draw_kernel(*kernel_size, 2, 2 * groups)
    arguments = arguments | {"groups": groups}
    check("conv2d", images, kernel, "kernel", arguments)
    if groups == 1:
        results = run("conv2d_as_dense", *both(images, kernel), without(arguments))
        if not count("conv2d_as_dense", results):
            assert_same(*results)


@each_case(convolutions())
def test_depthwise_conv2d(case):
    size, kernel_size, multiplier, arguments = case
    images, kernel = draw_images(size, 3), draw_kernel(*kernel_size, 3, multiplier)
    check("depthwise_conv2d", images, kernel, "depthwise", arguments)


@each_case(convolutions())
def test_separable_conv2d(case):
    size, kernel_size, multiplier, arguments = case
    arrays = [
        draw_images(size, 3),
        draw_kernel(*kernel_size, 3, multiplier),
        draw_kernel(1, 1, 3 * multiplier, 2),
    ]
    kinds = ["maps", "depthwise", "kernel"]
    results = run("separable_conv2d", arrays, kinds, arguments)
    if count("separable_conv2d", results):
        return
    assert_same(*results)
    first = correlate_depthwise(*arrays[:2], **arguments)
    expected = np.einsum("nhwi,io->nhwo", first, arrays[2][0, 0])
    assert_equal(results[0].output, expected)


@each_case(st.tuples(convolutions(), pairs(0, 3)))
def test_conv2d_transpose(case):
    (size, kernel_size, filters, arguments), output_padding = case
    images, kernel = draw_images(size, 3), draw_kernel(*kernel_size, filters, 3)
    arguments = without(arguments, "dilation") | {"output_padding": output_padding}
    results = run("conv2d_transpose", *both(images, kernel), arguments)
    if count("conv2d_transpose", results):
        return
    assert_same(*results)
    # By definition: <conv2d(x), images> = <x, conv2d_transpose(images)> for all x.
    outputs = results[0].output
    probe = draw_kernel(*outputs.shape)
    padding = arguments["padding"]
    kernel_of_conv = tf.constant(kernel)
    there = keras_ops.conv2d(
        probe, kernel_of_conv, stride=arguments["stride"], padding=padding
    )
    assert there.shape == images.shape
    left, right = np.sum(there.numpy() * images), np.sum(probe * outputs)
    scale = np.linalg.norm(there) * np.linalg.norm(images)
    assert abs(left - right) <= 1e-12 * scale
    case = (*both(images, kernel), arguments)
    largest, _ = run("conv2d_transpose", *both(abs(images), abs(kernel)), arguments)
    terms = int(np.prod(kernel_size)) * 3
    assert_float32("conv2d_transpose", *case, largest.output, terms)
    axes = (images.shape[1:3], kernel_size, arguments["stride"])
    _, cut = transposed(*axes, padding, output_padding)
    stride = np.broadcast_to(arguments["stride"], 2)
    full = (np.array(images.shape[1:3]) - 1) * stride + kernel_size
    assert_onnx(
        outputs,
        largest.output,
        terms,
        "ConvTranspose",
        nchw(images),
        to_torch(kernel, "kernel"),
        strides=stride.tolist(),
        pads=[cut[0][0], cut[1][0], cut[0][1], cut[1][1]],
        output_padding=(outputs.shape[1:3] - full + np.sum(cut, 1)).tolist(),
    )


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(7, 5), (8, 6)])
def test_conv2d_on_the_whole_grid(size, padding, groups):
    images = draw_images(size, 2)
    for kernel_size, stride, dilation in itertools.product(
        range(1, 8), range(1, 5), range(1, 4)
    ):
        kernel = draw_kernel(kernel_size, kernel_size, 2 // groups, 2)
        settings = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }
        results = run("conv2d", *both(images, kernel), settings)
        too_large = dilation * (kernel_size - 1) + 1 > min(size)
        refused = count("conv2d on the grid", results)
        assert refused == (padding == "valid" and too_large)
        if not refused:
            assert_same(*results)
            assert_equal(results[0].output, correlate(images, kernel, **settings))


def both(images, kernel):
    return [images, kernel], ["maps", "kernel"]


def without(arguments, *names):
    return {k: v for k, v in arguments.items() if k not in ("groups", *names)}


def check(name, images, kernel, layout, arguments):
    case = ([images, kernel], ["maps", layout], arguments)
    results = run(name, *case)
    if count(name, results):
        return
    assert_same(*results)
    witness = correlate if name == "conv2d" else correlate_depthwise
    assert_equal(results[0].output, witness(images, kernel, **arguments))
    largest, _ = run(name, [abs(images), abs(kernel)], *case[1:])
    terms = int(np.prod(kernel.shape[:2])) * images.shape[3]
    assert_float32(name, *case, largest.output, terms)


@st.composite
def poolings(draw):
    return draw(sizes), {
        "kernel_size": draw(pairs(1, 5)),
        "stride": draw(st.one_of(st.none(), pairs(1, 4))),
        "padding": draw(paddings),
        "ceil_mode": draw(st.booleans()),
    }


@each_case(st.tuples(poolings(), pairs(1, 3)))
def test_max_pool2d(case):
    (size, arguments), dilation = case
    check_pooling("max_pool2d", size, arguments | {"dilation": dilation}, np.nanmax)


@each_case(st.tuples(poolings(), st.booleans()))
def test_avg_pool2d(case):
    (size, arguments), include = case
    arguments = arguments | {"count_include_pad": include}
    check_pooling("avg_pool2d", size, arguments, np.nanmean)


def check_pooling(name, size, arguments, reduce):
    images = draw_images(size, 3) - 1
    case = ([images], ["maps"], arguments)
    results = run(name, *case)
    if count(name, results):
        return
    assert_same(*results)
    include = arguments.get("count_include_pad", False)
    order = ("kernel_size", "stride", "padding", "dilation")
    windows = place_pooling(
        size,
        *(arguments.get(key, 1) for key in order),
        ceil_mode=arguments["ceil_mode"],
    )
    border = 0.0 if include else np.nan
    expected = witnesses.pool(images, windows, reduce, border)
    assert_equal(results[0].output, expected)
    terms = int(np.prod(windows.kernel_size)) if name == "avg_pool2d" else 0
    largest, _ = run(name, [abs(images)], *case[1:])
    assert_float32(name, *case, largest.output, terms)
    rows, columns = windows.padding
    if any(
        max(p) >= f for p, f in zip(windows.padding, windows.kernel_size, strict=True)
    ):
        return  # which ONNX Runtime refuses
    attributes = {} if name == "max_pool2d" else {"count_include_pad": int(include)}
    assert_onnx(
        results[0].output,
        largest.output,
        terms,
        "MaxPool" if name == "max_pool2d" else "AveragePool",
        nchw(images),
        kernel_shape=windows.kernel_size,
        strides=windows.stride,
        dilations=windows.dilation,
        pads=[rows[0], columns[0], rows[1], columns[1]],
        ceil_mode=int(arguments["ceil_mode"]),
        **attributes,
    )


@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
@pytest.mark.parametrize("size", [1, 3, (4, 7), (13, 9), (15, 2)])
def test_adaptive_pooling(name, size):
    images = IMAGES[13, 9]
    ours, theirs = run(name, [images], ["maps"], {"output_size": size})
    assert_same(ours, theirs)
    reduce = np.mean if "avg" in name else np.max
    for i, j in np.ndindex(*ours.output.shape[1:3]):
        (rows, columns), (height, width) = ours.output.shape[1:3], (13, 9)
        top, left = i * height // rows, j * width // columns
        bottom, right = -(-(i + 1) * height // rows), -(-(j + 1) * width // columns)
        seen = images[:, top:bottom, left:right]
        assert_equal(ours.output[:, i, j], reduce(seen, (1, 2)))


@pytest.mark.parametrize("name", ["global_avg_pool2d", "global_max_pool2d"])
def test_global_pooling(name):
    ours, theirs = run(name, [IMAGES[13, 9]], ["maps"], output="array")
    assert_same(ours, theirs)
    layer = {
        "global_avg_pool2d": keras.layers.GlobalAveragePooling2D,
        "global_max_pool2d": keras.layers.GlobalMaxPooling2D,
    }[name](dtype="float64")
    assert_equal(layer(IMAGES[13, 9]).numpy(), ours.output)


@pytest.mark.parametrize("name", ["conv2d_1x1", "convolve2d", "unfold"])
def test_the_other_convolutions(name):
    images, kernel = IMAGES[13, 9], FILTERS[3]
    if name == "conv2d_1x1":
        results = run(name, [images, kernel[0, 0]], ["maps", "matrix"])
        expected = correlate(images, kernel[:1, :1])
    elif name == "convolve2d":
        results = run(name, *both(images, kernel))
        expected = correlate(images, kernel[::-1, ::-1])
    else:
        arguments = {"kernel_size": (3, 4), "stride": 2, "padding": 1}
        layout = Patches(CHANNELS)
        results = run(name, [images], ["maps"], arguments, output=layout)
        padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
        seen = [padded[:, i : i + 13 : 2, j : j + 7 : 2] for i, j in np.ndindex(3, 4)]
        expected = np.concatenate(seen, 3)
    assert_same(*results)
    assert_equal(results[0].output, expected)


def test_the_two_sides_have_the_same_operations():
    assert keras_ops.__all__ == torch_ops.__all__ == sorted(keras_ops.__all__)
    assert {*EXAMPLES, "output_size"} == set(keras_ops.__all__)
    assert keras_ops.output_size is torch_ops.output_size


@pytest.mark.parametrize("name", keras_ops.__all__)
def test_the_signatures_are_the_same(name):
    ours, theirs = (
        inspect.signature(getattr(side, name)) for side in (keras_ops, torch_ops)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_operation_on_a_device(name, device):
    *case, output = EXAMPLES[name]
    assert_same(*run(name, *case, device=device, output=output))


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_operation_takes_arrays_and_leaves_them(name):
    arrays, layouts, settings, output = EXAMPLES[name]
    results = run(name, arrays, layouts, settings, output=output)
    for side, result in zip((keras_ops, torch_ops), results, strict=True):
        given = [
            to_torch(x, layout).copy() if side is torch_ops else x.copy()
            for x, layout in zip(arrays, layouts, strict=True)
        ]
        before = [x.copy() for x in given]
        values = getattr(side, name)(*given, **settings)
        first = np.asarray(flat(values)[0])
        if side is torch_ops and (first.ndim == 4 or output != "maps"):
            first = to_keras(first, output, ())
        np.testing.assert_array_equal(first, result.output)
        for x, same in zip(given, before, strict=True):
            np.testing.assert_array_equal(x, same)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_operation_in_float32(name):
    *case, output = EXAMPLES[name]
    exact, _ = run(name, *case, output=output)
    for side in run(name, *case, dtype="float32", output=output):
        for value, reference in zip(side.outputs, exact.outputs, strict=True):
            kind = np.float32 if reference.dtype.kind == "f" else reference.dtype
            assert value.dtype == kind


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_operation_in_a_graph(name):
    arrays, _, settings, _ = EXAMPLES[name]
    eager = getattr(keras_ops, name)(*arrays, **settings)
    compiled = tf.function(lambda *x: getattr(keras_ops, name)(*x, **settings))
    found = compiled(*map(tf.constant, arrays))
    for value, reference in zip(flat(found), flat(eager), strict=True):
        assert_equal(value, reference)


def flat(values):
    return values if isinstance(values, tuple) else (values,)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_layers_of_keras_are_the_functions(padding):
    images, layers = IMAGES[12, 10], keras.layers
    settings = {"strides": 2, "padding": padding, "use_bias": False, "dtype": "float64"}
    depthwise, pointwise = draw_kernel(3, 3, 3, 2), draw_kernel(1, 1, 6, 4)
    ours = {"stride": 2, "padding": padding}
    for layer, kernels, name in (
        (layers.Conv2D(4, (3, 4), **settings), [FILTERS[3]], "conv2d"),
        (
            layers.DepthwiseConv2D(3, depth_multiplier=2, **settings),
            [depthwise],
            "depthwise_conv2d",
        ),
        (
            layers.SeparableConv2D(4, 3, depth_multiplier=2, **settings),
            [depthwise, pointwise],
            "separable_conv2d",
        ),
        (
            layers.Conv2DTranspose(4, (3, 4), **settings),
            [FILTERS[3].transpose(0, 1, 3, 2)],
            "conv2d_transpose",
        ),
    ):
        layer.build(images.shape)
        layer.set_weights(kernels)
        value = getattr(keras_ops, name)(images, *kernels, **ours)
        assert_equal(layer(images).numpy(), value.numpy())
    for layer, name in (
        (layers.MaxPooling2D, "max_pool2d"),
        (layers.AveragePooling2D, "avg_pool2d"),
    ):
        value = getattr(keras_ops, name)(images, kernel_size=3, **ours)
        assert_equal(layer(3, 2, padding, dtype="float64")(images), value.numpy())


def test_the_modules_of_torch_are_the_functions():
    images, nn = torch.tensor(to_torch(IMAGES[12, 10], "maps")), torch.nn
    settings = {"stride": 2, "padding": 1}
    for module, name, rest in (
        (nn.Conv2d(3, 6, 3, dilation=2, groups=3, bias=False, **settings), "conv2d", 1),
        (nn.ConvTranspose2d(3, 6, 3, bias=False, **settings), "conv2d_transpose", 0),
    ):
        module.to(torch.float64)
        more = {"dilation": 2, "groups": 3} if rest else {}
        value = getattr(torch_ops, name)(images, module.weight, **settings, **more)
        assert_equal(module(images).detach(), value.detach())
    settings |= {"kernel_size": 3, "ceil_mode": True}
    value = torch_ops.max_pool2d(images, **settings)
    assert_equal(nn.MaxPool2d(**settings)(images), value)
    for include in (True, False):
        more = settings | {"count_include_pad": include}
        value = torch_ops.avg_pool2d(images, **more)
        assert_equal(nn.AvgPool2d(**more)(images), value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "full"}, "unknown padding 'full'; choose from same, valid"),
        ({"padding": -1}, "padding -1 is not an integer of 0 or more"),
        ({"padding": (1, 2, 3)}, "padding (1, 2, 3) is not an integer or a pair"),
        ({"stride": 0}, "stride 0 is not an integer of 1 or more"),
        ({"dilation": 1.5}, "dilation 1.5 is not an integer of 1 or more"),
        ({"dilation": 7}, "a kernel of 3 pixels, 15 with dilation 7 does not fit an"),
        ({"groups": 2}, "a kernel of 3 channels in 2 group(s) does not fit images of"),
    ],
)
def test_wrong_arguments_are_the_same_line_on_both_sides(arguments, message):
    check_refused("conv2d", message, *both(IMAGES[13, 9], FILTERS[3]), arguments)


def test_an_error_of_one_side_alone_is_not_passed_over(monkeypatch):
    monkeypatch.setattr(torch_ops, "conv2d", lambda *_, **__: torch.zeros(1))
    with pytest.raises(UsageError, match="unknown padding"):
        run("conv2d", *both(IMAGES[13, 9], FILTERS[3]), {"padding": "full"})


def naive_same_padding(images, kernel):
    """PyTorch's usual port of 'same': the same number of pixels on both sides."""
    return torch.nn.functional.conv2d(images, kernel, stride=2, padding=1)


def test_symmetric_padding_is_seen_at_even_sizes_and_hides_at_odd_ones():
    kernel = FILTERS[3][:, :3]
    errors = {}
    for size in ((12, 10), (13, 9)):
        right = keras_ops.conv2d(IMAGES[size], kernel, stride=2, padding="same")
        images = torch.from_numpy(nchw(IMAGES[size]))
        filters = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
        wrong = nhwc(naive_same_padding(images, filters).numpy())
        errors[size] = relative_error(wrong, right)
    assert errors[12, 10] > 0.1
    assert errors[13, 9] < TOLERANCES["outputs"]


@pytest.mark.parametrize(
    "fault",
    [
        lambda kernel: kernel.transpose(3, 2, 1, 0),  # H and W swapped
        lambda kernel: kernel.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1].copy(),  # flipped
        lambda kernel: kernel.transpose(3, 2, 0, 1)[:, [1, 0, 2]],  # channels swapped
    ],
)
def test_a_wrong_kernel_is_seen(fault):
    kernel = FILTERS[3][:, :3]
    right = keras_ops.conv2d(IMAGES[13, 9], kernel)
    wrong = torch_ops.conv2d(nchw(IMAGES[13, 9]), fault(kernel))
    assert relative_error(nhwc(wrong.numpy()), right) > 0.1


def test_padding_with_zeros_is_seen_in_max_pooling():
    images = IMAGES[13, 9] - 5  # negative: a zero at the border would be the maximum
    right = keras_ops.max_pool2d(images, kernel_size=3, stride=2, padding="same")
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wrong = torch_ops.max_pool2d(nchw(padded), kernel_size=3, stride=2)
    assert relative_error(nhwc(wrong.numpy()), right) > 0.1


def test_counting_the_padding_is_seen_in_average_pooling():
    right = keras_ops.avg_pool2d(IMAGES[13, 9], kernel_size=3, stride=2, padding="same")
    images = torch.from_numpy(nchw(IMAGES[13, 9]))
    wrong = torch.nn.functional.avg_pool2d(images, 3, 2, padding=1)
    assert relative_error(nhwc(wrong.numpy()), right) > 0.1


def test_other_faults_are_seen():
    images, depthwise = IMAGES[13, 9], draw_kernel(3, 3, 3, 2)
    right = keras_ops.depthwise_conv2d(images, depthwise).numpy()
    mixed = depthwise.transpose(3, 2, 0, 1).reshape(6, 1, 3, 3)  # multiplier first
    wrong = torch_ops.depthwise_conv2d(nchw(images), mixed)
    assert relative_error(nhwc(wrong), right) > 0.1
    kernel = FILTERS[3][:, :3]
    right = keras_ops.conv2d_transpose(
        images, kernel.transpose(0, 1, 3, 2), stride=2, padding="same"
    )
    wrong = torch.nn.functional.conv_transpose2d(
        torch.tensor(nchw(images)),
        torch.tensor(kernel.transpose(2, 3, 0, 1)),
        stride=2,
        padding=1,
        output_padding=1,
    )
    assert wrong.shape[2:] == right.shape[1:3]
    assert relative_error(nhwc(wrong), right) > 0.1  # shifted by one pixel


def test_a_rounding_bound_is_broken_by_a_wrong_digit():
    exact = np.ones(4)
    assert_rounded(exact + 9e-7, exact, exact, 16)
    with pytest.raises(AssertionError):
        assert_rounded(exact + 2e-6, exact, exact, 16)


def nchw(array):
    return to_torch(array, "maps")


def nhwc(array):
    return to_keras(np.asarray(array), "maps", ())

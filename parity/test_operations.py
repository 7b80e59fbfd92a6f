"""Rung 2: one operation at a time: TensorFlow, PyTorch and SciPy or NumPy agree."""

import itertools
import math

import numpy as np
import pytest
from scipy.signal import correlate2d

from parity.frameworks import tf, torch
from keras_impl import ops as keras_ops
from parity.comparison import TOLERANCES, relative_error
from parity.precision import select_keras_device, select_torch_device
from parity.spec.padding import same_padding
from torch_impl import ops as torch_ops

KERNELS, STRIDES, PADDINGS = (1, 2, 3, 5), (1, 2, 3), ("same", "valid")
SIZES = ((12, 10), (13, 9))  # even and odd; H, W and C all different
CASES = list(itertools.product(KERNELS, STRIDES, PADDINGS, SIZES))
CHANNELS, OUT_CHANNELS = 3, 4

random = np.random.default_rng(0)
IMAGES = {size: random.standard_normal((2, *size, CHANNELS)) - 1 for size in SIZES}
FILTERS = {
    size: random.standard_normal((size, size + 1, CHANNELS, OUT_CHANNELS))
    for size in KERNELS
}


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "size"), CASES)
def test_conv2d(kernel_size, stride, padding, size, device):
    images, kernel = IMAGES[size], FILTERS[kernel_size]
    settings = {"stride": stride, "padding": padding}
    arguments = (images, kernel), (to_nchw(images), kernel.transpose(3, 2, 0, 1))
    keras_results, torch_results = run("conv2d", *arguments, settings, device)
    expected = correlate(pad(images, kernel.shape[:2], stride, padding, 0), kernel)
    assert_equal(keras_results[0], expected[:, ::stride, ::stride])
    assert_equal(to_nhwc(torch_results[0]), keras_results[0])
    assert_equal(to_nhwc(torch_results[1]), keras_results[1])  # by the images
    assert_equal(torch_results[2].transpose(2, 3, 1, 0), keras_results[2])


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(("kernel_size", "stride", "padding", "size"), CASES)
def test_pooling(name, kernel_size, stride, padding, size, device):
    images = IMAGES[size]
    settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    arguments = (images,), (to_nchw(images),)
    keras_results, torch_results = run(name, *arguments, settings, device)
    padded = pad(images, (kernel_size, kernel_size), stride, padding, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (kernel_size, kernel_size), axis=(1, 2)
    )[:, ::stride, ::stride]
    reduce = np.nanmax if name == "max_pool2d" else np.nanmean
    assert_equal(keras_results[0], reduce(windows, axis=(-2, -1)))
    assert_equal(to_nhwc(torch_results[0]), keras_results[0])
    assert_equal(to_nhwc(torch_results[1]), keras_results[1])


def naive_same_padding(images, kernel):
    """PyTorch's usual port of 'same': the same number of pixels on both sides."""
    return torch.nn.functional.conv2d(images, kernel, stride=2, padding=1)


def test_symmetric_padding_is_seen_at_even_sizes_and_hides_at_odd_ones():
    kernel = FILTERS[3][:, :3]
    errors = {}
    for size in ((12, 10), (13, 9)):
        right = keras_ops.conv2d(IMAGES[size], kernel, stride=2, padding="same")
        images = torch.from_numpy(to_nchw(IMAGES[size]))
        filters = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
        wrong = to_nhwc(naive_same_padding(images, filters).numpy())
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
    wrong = torch_ops.conv2d(to_nchw(IMAGES[13, 9]), fault(kernel))
    assert relative_error(to_nhwc(wrong.numpy()), right) > 0.1


def test_padding_with_zeros_is_seen_in_max_pooling():
    images = IMAGES[13, 9] - 5  # negative: a zero at the border would be the maximum
    right = keras_ops.max_pool2d(images, kernel_size=3, stride=2, padding="same")
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wrong = torch_ops.max_pool2d(to_nchw(padded), kernel_size=3, stride=2)
    assert relative_error(to_nhwc(wrong.numpy()), right) > 0.1


def test_counting_the_padding_is_seen_in_average_pooling():
    right = keras_ops.avg_pool2d(IMAGES[13, 9], kernel_size=3, stride=2, padding="same")
    images = torch.from_numpy(to_nchw(IMAGES[13, 9]))
    wrong = torch.nn.functional.avg_pool2d(images, 3, 2, padding=1)
    assert relative_error(to_nhwc(wrong.numpy()), right) > 0.1


def run(name, keras_arrays, torch_arrays, settings, device):
    """Returns each side's output and the gradients of its weighted sum."""
    place = select_keras_device(device)
    with tf.device(place), tf.GradientTape() as tape:
        tensors = [tf.constant(array) for array in keras_arrays]
        tape.watch(tensors)
        output = getattr(keras_ops, name)(*tensors, **settings)
        target = weights(output.shape) * output
    ours = [output, *tape.gradient(target, tensors)]
    tensors = [
        torch.tensor(array, requires_grad=True, device=select_torch_device(device))
        for array in torch_arrays
    ]
    output = getattr(torch_ops, name)(*tensors, **settings)
    nchw = to_nchw(weights([output.shape[axis] for axis in (0, 2, 3, 1)]))
    (torch.from_numpy(nchw).to(output.device) * output).sum().backward()
    theirs = [output.detach(), *(tensor.grad for tensor in tensors)]
    return [x.numpy() for x in ours], [x.cpu().numpy() for x in theirs]


def weights(shape):
    return np.linspace(-1, 1, math.prod(shape)).reshape(shape)


def correlate(images, kernel):
    channels = range(images.shape[3])
    return np.stack(
        [
            [
                sum(correlate2d(x[..., c], filter[..., c], "valid") for c in channels)
                for filter in np.moveaxis(kernel, 3, 0)
            ]
            for x in images
        ]
    ).transpose(0, 2, 3, 1)


def pad(images, kernel_sizes, stride, padding, value):
    if padding == "valid":
        return images
    rows, columns = (
        same_padding(size, kernel_size, stride)
        for size, kernel_size in zip(images.shape[1:3], kernel_sizes, strict=True)
    )
    return np.pad(images, ((0, 0), rows, columns, (0, 0)), constant_values=value)


def to_nchw(array):
    return np.ascontiguousarray(np.moveaxis(array, 3, 1))


def to_nhwc(array):
    return np.moveaxis(np.asarray(array), 1, 3)


def assert_equal(value, reference):
    assert relative_error(value, reference) < TOLERANCES["outputs"]

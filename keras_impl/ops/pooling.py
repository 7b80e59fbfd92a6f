"""Pooling of NHWC images, written with TensorFlow.

`padding` is as in a convolution. A window that sees nothing but padding raises
UsageError, a ValueError.
"""

import tensorflow as tf

from keras_impl.ops.convolution import border
from parity.spec.padding import pair, place_pooling


def max_pool2d(
    images, *, kernel_size, stride=None, padding="valid", dilation=1, ceil_mode=False
):
    """Returns the maxima of windows; padding counts as -inf.

    On the CPU TensorFlow's maximum passes over NaN, PyTorch's is NaN then.

    Args:
        images: (N, H, W, C), tensor or NumPy array.
        kernel_size: of the windows, an integer or (rows, columns).
        stride: from one window to the next; None sets them side by side.
        padding: as in conv2d.
        dilation: likewise.
        ceil_mode: whether a last window that the border cuts off counts.
    """
    images = tf.convert_to_tensor(images)
    windows = place_pooling(
        images.shape[1:3], kernel_size, stride, padding, dilation, ceil_mode=ceil_mode
    )
    images = border(images, _around(windows), -float("inf"))
    if windows.dilation == (1, 1):
        return tf.nn.max_pool2d(images, windows.kernel_size, windows.stride, "VALID")
    outputs = tf.nn.pool(
        images, windows.kernel_size, "MAX", dilations=windows.dilation, padding="VALID"
    )
    return outputs[:, :: windows.stride[0], :: windows.stride[1]]


def avg_pool2d(
    images,
    *,
    kernel_size,
    stride=None,
    padding="valid",
    ceil_mode=False,
    count_include_pad=False,
):
    """Returns the means of windows.

    Args:
        images: (N, H, W, C).
        kernel_size: as in max_pool2d.
        stride: likewise.
        padding: likewise.
        ceil_mode: likewise.
        count_include_pad: whether the zeros of the padding count, as they do in
            PyTorch unless told otherwise, and never do in Keras.
    """
    images = tf.convert_to_tensor(images)
    windows = place_pooling(
        images.shape[1:3], kernel_size, stride, padding, 1, ceil_mode=ceil_mode
    )
    counted = border(
        tf.ones_like(images), windows.padding, 1.0 if count_include_pad else 0.0
    )
    counted = border(counted, tuple((0, size) for size in windows.missing))
    images = border(images, _around(windows))
    sums, counts = (
        tf.nn.avg_pool2d(x, windows.kernel_size, windows.stride, "VALID")
        for x in (images, counted)
    )
    return sums / counts


def adaptive_avg_pool2d(images, output_size):
    """Returns the means of output_size windows that cover the image.

    Window i has the pixels from floor(i * H / size) to ceil((i + 1) * H / size).

    Args:
        images: (N, H, W, C).
        output_size: an integer or (rows, columns).
    """
    return _adaptive(tf.nn.avg_pool2d, images, output_size)


def adaptive_max_pool2d(images, output_size):
    """Returns the maxima of output_size windows that cover the image.

    Args:
        images: (N, H, W, C).
        output_size: an integer or (rows, columns), as in adaptive_avg_pool2d.
    """
    return _adaptive(tf.nn.max_pool2d, images, output_size)


def global_avg_pool2d(images):
    """Returns the mean of each channel, (N, C)."""
    return tf.reduce_mean(images, (1, 2))


def global_max_pool2d(images):
    """Returns the maximum of each channel, (N, C); equal ones share the gradient."""
    return tf.reduce_max(images, (1, 2))


def _around(windows):
    """Returns the padding, with what cut-off windows lack."""
    pairs = zip(windows.padding, windows.missing, strict=True)
    return tuple((before, after + missing) for (before, after), missing in pairs)


def _adaptive(pool, images, output_size):
    images = tf.convert_to_tensor(images)
    rows, columns = (
        [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(
            images.shape[1:3], pair("output_size", output_size), strict=True
        )
    )
    lines = []
    for row in rows:
        cells = [images[:, row, column] for column in columns]
        cells = [pool(cell, cell.shape[1:3], 1, "VALID") for cell in cells]
        lines.append(tf.concat(cells, 2))
    return tf.concat(lines, 1)

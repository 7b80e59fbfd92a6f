"""Convolutions of NHWC images, written with TensorFlow.

`padding` is "same", "valid", a number of pixels, a pair of them for (rows, columns),
or ((top, bottom), (left, right)); stride and dilation are an integer or a pair. Values
that do not fit raise UsageError, a ValueError.
"""

import tensorflow as tf

from parity.spec.padding import check_groups, pair, place, transposed
from parity.spec.padding import output_size as output_size


def conv2d(images, kernel, *, stride=1, padding="valid", dilation=1, groups=1):
    """Returns the cross-correlation of images with a kernel, as networks have it.

    Args:
        images: (N, H, W, I), tensor or NumPy array.
        kernel: (h, w, I / groups, O), of the same dtype.
        stride: pixels from one output to the next.
        padding: "same", "valid" or pixels of 0; "same" puts an odd one behind.
        dilation: pixels from one pixel that the kernel sees to the next.
        groups: parts into which channels are divided, each with its own filters.
    """
    images, kernel = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    windows = place(images.shape[1:3], kernel.shape[:2], stride, padding, dilation)
    check_groups(images.shape[3], kernel.shape[2], kernel.shape[3], groups)
    around = [(0, 0), *windows.padding, (0, 0)]
    # On the CPU TensorFlow has no gradient of a dilated or grouped convolution.
    kernel = _spread(kernel, windows.dilation)
    parts = zip(tf.split(images, groups, 3), tf.split(kernel, groups, 3), strict=True)
    return tf.concat([tf.nn.conv2d(x, k, windows.stride, around) for x, k in parts], 3)


def depthwise_conv2d(images, kernel, *, stride=1, padding="valid", dilation=1):
    """Returns each channel's cross-correlation with M filters of its own.

    Args:
        images: (N, H, W, C).
        kernel: (h, w, C, M); output channel c * M + m is filter m of channel c.
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.
    """
    images, kernel = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    windows = place(images.shape[1:3], kernel.shape[:2], stride, padding, dilation)
    check_groups(images.shape[3], 1, kernel.shape[2], images.shape[3])
    images = border(images, windows.padding)
    kernel = _spread(kernel, windows.dilation)
    # TensorFlow's strides have to be equal here.
    outputs = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID")
    return outputs[:, :: windows.stride[0], :: windows.stride[1]]


def separable_conv2d(
    images,
    depthwise_kernel,
    pointwise_kernel,
    *,
    stride=1,
    padding="valid",
    dilation=1,
):
    """Returns a depthwise convolution's channels mixed by a 1x1 one, nothing between.

    Args:
        images: (N, H, W, C).
        depthwise_kernel: (h, w, C, M).
        pointwise_kernel: (1, 1, C * M, O).
        stride: of the first, as in conv2d.
        padding: likewise.
        dilation: likewise.
    """
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return conv2d(
        depthwise_conv2d(images, depthwise_kernel, **settings), pointwise_kernel
    )


def conv2d_transpose(images, kernel, *, stride=1, padding="valid", output_padding=0):
    """Returns the gradient of conv2d by its images, as a layer that enlarges.

    The output has (H - 1) * stride + h - padding + output_padding pixels, with "same"
    H * stride.

    Args:
        images: (N, H, W, I).
        kernel: (h, w, O, I), not flipped: that of the convolution from O to I.
        stride: pixels of the output from one pixel of the input to the next.
        padding: what the convolution pads, and this cuts off.
        output_padding: rows and columns added behind, which the convolution would
            have dropped; less than the stride. They move nothing.
    """
    images, kernel = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    sizes, cut = transposed(
        images.shape[1:3], kernel.shape[:2], stride, padding, output_padding
    )
    check_groups(images.shape[3], kernel.shape[3], kernel.shape[2], 1)
    return tf.nn.conv2d_transpose(
        images,
        kernel,
        (tf.shape(images)[0], *sizes, kernel.shape[2]),
        pair("stride", stride),
        [(0, 0), *cut, (0, 0)],
    )


def conv2d_1x1(images, kernel):
    """Returns a dense layer at every pixel: a 1x1 convolution as a matrix product.

    Args:
        images: (N, H, W, I).
        kernel: (I, O).
    """
    return tf.einsum("nhwi,io->nhwo", images, kernel)


def convolve2d(images, kernel, *, padding="valid"):
    """Returns the convolution of mathematics, whose kernel is turned by 180 degrees.

    Args:
        images: (N, H, W, I).
        kernel: (h, w, I, O).
        padding: as in conv2d.
    """
    return conv2d(images, tf.reverse(kernel, (0, 1)), padding=padding)


def unfold(images, kernel_size, *, stride=1, padding="valid", dilation=1):
    """Returns what each window of a convolution sees, as one vector.

    Args:
        images: (N, H, W, C).
        kernel_size: of the window.
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.

    Returns:
        (N, OH, OW, h * w * C), of a window row by row, pixel by pixel, all channels.
    """
    images = tf.convert_to_tensor(images)
    windows = place(images.shape[1:3], kernel_size, stride, padding, dilation)
    images = border(images, windows.padding)
    return tf.concat([images[area] for area in _areas(windows)], 3)


def conv2d_as_dense(images, kernel, *, stride=1, padding="valid", dilation=1):
    """Returns conv2d as a perceptron that looks at each window: a matrix product.

    Args:
        images: (N, H, W, I).
        kernel: (h, w, I, O).
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.
    """
    height, width, channels, filters = kernel.shape
    patches = unfold(
        images, (height, width), stride=stride, padding=padding, dilation=dilation
    )
    check_groups(images.shape[3], channels, filters, 1)
    return conv2d_1x1(patches, tf.reshape(kernel, (-1, filters)))


def border(images, padding, value=0.0):
    """Returns images with ((top, bottom), (left, right)) pixels of a value around."""
    return tf.pad(images, [(0, 0), *padding, (0, 0)], constant_values=value)


def _spread(kernel, dilation):
    """Returns a kernel with zeros between its pixels."""
    for axis, step in enumerate(dilation):
        if step > 1:
            pixels = tf.unstack(kernel, axis=axis)
            gap = [tf.zeros_like(pixels[0])] * (step - 1)
            spread = [x for pixel in pixels[:-1] for x in (pixel, *gap)]
            kernel = tf.stack([*spread, pixels[-1]], axis)
    return kernel


def _areas(windows):
    """Yields, for each pixel of a window, where all the windows see it."""
    (height, width), (down, across) = windows.output_size, windows.stride
    for row in range(windows.kernel_size[0]):
        for column in range(windows.kernel_size[1]):
            top, left = row * windows.dilation[0], column * windows.dilation[1]
            rows = slice(top, top + (height - 1) * down + 1, down)
            columns = slice(left, left + (width - 1) * across + 1, across)
            yield slice(None), rows, columns

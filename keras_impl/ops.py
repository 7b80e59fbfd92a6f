"""One function per operation on NHWC images, written with TensorFlow."""

import tensorflow as tf


def conv2d(images, kernel, *, stride=1, padding="valid"):
    """Returns the cross-correlation of images (N, H, W, I) with a kernel (h, w, I, O).

    Args:
        images: tensor or NumPy array.
        kernel: likewise, of the same dtype.
        stride: pixels from one output to the next along both axes.
        padding: "same" or "valid".
    """
    return tf.nn.conv2d(images, kernel, stride, padding.upper())


def max_pool2d(images, *, kernel_size, stride, padding="valid"):
    """Returns the maxima of the windows of images (N, H, W, C)."""
    return tf.nn.max_pool2d(images, kernel_size, stride, padding.upper())


def avg_pool2d(images, *, kernel_size, stride, padding="valid"):
    """Returns the means of the windows of images (N, H, W, C), padding not counted."""
    return tf.nn.avg_pool2d(images, kernel_size, stride, padding.upper())

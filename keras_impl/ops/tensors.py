"""What moves, cuts or resamples pixels of NHWC images, written with TensorFlow.

Values that do not fit raise UsageError, a ValueError.
"""

import numpy as np
import tensorflow as tf

from parity.spec import resampling
from parity.spec.checks import (
    check,
    check_crop,
    check_integer,
    check_labels,
    check_name,
    check_shape,
)
from parity.spec.padding import explicit_border, pair


def flatten(images):
    """Returns vectors (N, H * W * C): row by row, pixel by pixel, all channels.

    PyTorch's go channel by channel, so that a dense layer's kernel behind one of them
    has its rows in another order.
    """
    images = tf.convert_to_tensor(images)
    return tf.reshape(images, (tf.shape(images)[0], -1))


def dense(features, kernel, bias=None):
    """Returns a dense layer's outputs (N, O).

    Args:
        features: (N, I), tensor or NumPy array.
        kernel: (I, O), of the same dtype.
        bias: (O,) or None.
    """
    check_shape("kernel", kernel.shape, (features.shape[1], kernel.shape[-1]))
    outputs = tf.matmul(features, kernel)
    if bias is None:
        return outputs
    check_shape("bias", bias.shape, (kernel.shape[1],))
    return outputs + bias


def resize(images, size, *, method="bilinear", antialias=False):
    """Returns images of another size; pixels are areas whose centres are compared.

    Nearest takes the pixel that holds the centre, of two the second. Bilinear and
    bicubic (Keys's kernel with a = -0.5) weigh the pixels around it, of which there are
    more where antialias widens the kernel by the factor of a reduction; pixels outside
    the image do not count. PyTorch's own bicubic without antialias has a = -0.75 and
    repeats the border. Source: Keys 1981, "Cubic Convolution Interpolation for Digital
    Image Processing".

    Args:
        images: (N, H, W, C).
        size: an integer or (rows, columns).
        method: "nearest", "bilinear" or "bicubic".
        antialias: whether a reduction sees all the pixels; changes no "nearest".
    """
    images, size = tf.convert_to_tensor(images), pair("size", size)
    check_name("method", method, resampling.METHODS)
    axes = list(zip(images.shape[1:3], size, strict=True))
    if method == "nearest":
        rows, columns = (resampling.nearest(*axis) for axis in axes)
        return tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)
    # TensorFlow's own gives float32, and a bicubic kernel from a table.
    weights = (resampling.weights(*axis, method, antialias) for axis in axes)
    rows, columns = (tf.cast(x, images.dtype) for x in weights)
    return tf.einsum("ph,nhwc,qw->npqc", rows, images, columns)


def pad(images, padding, *, mode="constant", value=0.0):
    """Returns images with a border.

    Args:
        images: (N, H, W, C).
        padding: pixels of it, an integer, a pair for (rows, columns), or
            ((top, bottom), (left, right)).
        mode: "constant"; "reflect" mirrors the image, its last pixel not repeated;
            "edge" repeats that.
        value: of a constant border.
    """
    images = tf.convert_to_tensor(images)
    border = explicit_border(padding, images.shape[1:3], mode)
    if mode == "edge":
        for axis, (before, after) in enumerate(border, 1):
            size = images.shape[axis]
            pixels = np.clip(np.arange(-before, size + after), 0, size - 1)
            images = tf.gather(images, pixels, axis=axis)
        return images
    around = [(0, 0), *border, (0, 0)]
    return tf.pad(images, around, mode.upper(), constant_values=value)


def pixel_shuffle(images, factor):
    """Returns images factor times as large, whose pixels lay in the channels.

    Channel c * factor ** 2 + i * factor + j holds row i and column j of channel c, as
    in PyTorch; in tf.nn.depth_to_space it is channel (i * factor + j) * C + c.
    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution", CVPR 2016.

    Args:
        images: (N, H, W, C * factor ** 2).
        factor: an integer.
    """
    images = tf.convert_to_tensor(images)
    check_integer("factor", factor, 1)
    _, height, width, channels = images.shape
    wanted = f"a multiple of factor {factor} squared"
    check("number of channels", channels, channels % factor**2 == 0, wanted)
    apart = tf.reshape(
        images, (-1, height, width, channels // factor**2, factor, factor)
    )
    apart = tf.transpose(apart, (0, 1, 4, 2, 5, 3))
    return tf.reshape(apart, (-1, height * factor, width * factor, apart.shape[5]))


def pixel_unshuffle(images, factor):
    """Returns the images of which pixel_shuffle makes these.

    Args:
        images: (N, H, W, C), H and W multiples of the factor.
        factor: an integer.
    """
    images = tf.convert_to_tensor(images)
    check_integer("factor", factor, 1)
    _, height, width, channels = images.shape
    for name, size in (("height", height), ("width", width)):
        check(name, size, size % factor == 0, f"a multiple of factor {factor}")
    rows, columns = height // factor, width // factor
    apart = tf.reshape(images, (-1, rows, factor, columns, factor, channels))
    apart = tf.transpose(apart, (0, 1, 3, 5, 2, 4))
    return tf.reshape(apart, (-1, rows, columns, channels * factor**2))


def crop(images, top, left, height, width):
    """Returns the part of images from row top and column left on.

    Args:
        images: (N, H, W, C).
        top: rows that are left out above.
        left: columns that are left out before.
        height: rows that stay.
        width: columns that stay.
    """
    images = tf.convert_to_tensor(images)
    check_crop(images.shape[1:3], top, left, height, width)
    return images[:, top : top + height, left : left + width]


def center_crop(images, size):
    """Returns the middle of images; an odd pixel goes behind it.

    torchvision rounds half of it to the even number, and pads smaller images.

    Args:
        images: (N, H, W, C).
        size: an integer or (rows, columns).
    """
    images = tf.convert_to_tensor(images)
    height, width = pair("size", size)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return crop(images, max(top, 0), max(left, 0), height, width)


def one_hot(labels, num_classes):
    """Returns float32 (N, num_classes), 1 at the label and else 0.

    TensorFlow's own gives 0 throughout for a label outside the classes.

    Args:
        labels: integers (N,).
        num_classes: an integer.
    """
    labels = tf.convert_to_tensor(labels)
    check_integer("num_classes", num_classes, 1)
    known = tf.get_static_value(labels)
    if known is not None:
        check_labels(known, num_classes)
    return tf.one_hot(labels, num_classes)


def top_k(scores, k):
    """Returns the k largest scores, falling, and their classes, int64, both (N, k).

    Of equal scores the first class comes first, which PyTorch's own does not promise.
    Where one is NaN the sides part: it is the largest in PyTorch only.

    Args:
        scores: (N, K).
        k: an integer up to K.
    """
    scores = tf.convert_to_tensor(scores)
    check_integer("k", k, 1, scores.shape[1])
    values, classes = tf.math.top_k(scores, k)
    return values, tf.cast(classes, tf.int64)

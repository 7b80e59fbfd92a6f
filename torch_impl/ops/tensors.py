"""What moves, cuts or resamples pixels of NCHW images, written with PyTorch.

Values that do not fit raise UsageError, a ValueError.
"""

import torch
import torch.nn.functional as F

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
    """Returns vectors (N, C * H * W): channel by channel, row by row.

    Keras's go pixel by pixel, so that a dense layer's kernel behind one of them has its
    rows in another order.
    """
    return torch.as_tensor(images).flatten(1)


def dense(features, kernel, bias=None):
    """Returns a dense layer's outputs (N, O).

    Args:
        features: (N, I), tensor or NumPy array.
        kernel: (O, I), of the same dtype.
        bias: (O,) or None.
    """
    shape = tuple(reversed(kernel.shape))  # (I, O), as the other side has it
    check_shape("kernel", shape, (features.shape[1], shape[-1]))
    features, kernel = torch.as_tensor(features), torch.as_tensor(kernel)
    if bias is None:
        return F.linear(features, kernel)
    check_shape("bias", bias.shape, (kernel.shape[0],))
    return F.linear(features, kernel, torch.as_tensor(bias))


def resize(images, size, *, method="bilinear", antialias=False):
    """Returns images of another size; pixels are areas whose centres are compared.

    Nearest takes the pixel that holds the centre, of two the second. Bilinear and
    bicubic (Keys's kernel with a = -0.5) weigh the pixels around it, of which there are
    more where antialias widens the kernel by the factor of a reduction; pixels outside
    the image do not count. PyTorch's own bicubic without antialias has a = -0.75 and
    repeats the border. Source: Keys 1981, "Cubic Convolution Interpolation for Digital
    Image Processing".

    Args:
        images: (N, C, H, W).
        size: an integer or (rows, columns).
        method: "nearest", "bilinear" or "bicubic".
        antialias: whether a reduction sees all the pixels; changes no "nearest".
    """
    images, size = torch.as_tensor(images), pair("size", size)
    check_name("method", method, resampling.METHODS)
    axes = list(zip(images.shape[2:], size, strict=True))
    if method == "nearest":
        rows, columns = (resampling.nearest(*axis) for axis in axes)
        return images[:, :, rows][..., columns]
    if method == "bilinear" and not antialias:
        return F.interpolate(images, size, mode=method)
    # PyTorch's own repeats one row in a single column (antialias, 2.14, CPU).
    weights = (resampling.weights(*axis, method, antialias) for axis in axes)
    rows, columns = (torch.from_numpy(x).to(images) for x in weights)
    return torch.einsum("ph,nchw,qw->ncpq", rows, images, columns)


def pad(images, padding, *, mode="constant", value=0.0):
    """Returns images with a border.

    Args:
        images: (N, C, H, W).
        padding: pixels of it, an integer, a pair for (rows, columns), or
            ((top, bottom), (left, right)).
        mode: "constant"; "reflect" mirrors the image, its last pixel not repeated;
            "edge" repeats that.
        value: of a constant border.
    """
    images = torch.as_tensor(images)
    border = explicit_border(padding, images.shape[2:], mode)
    (top, bottom), (left, right) = border
    around = (left, right, top, bottom)  # the last axis comes first
    if mode == "constant":
        return F.pad(images, around, value=value)
    return F.pad(images, around, "replicate" if mode == "edge" else mode)


def pixel_shuffle(images, factor):
    """Returns images factor times as large, whose pixels lay in the channels.

    Channel c * factor ** 2 + i * factor + j holds row i and column j of channel c, as
    in PyTorch; in tf.nn.depth_to_space it is channel (i * factor + j) * C + c.
    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution", CVPR 2016.

    Args:
        images: (N, C * factor ** 2, H, W).
        factor: an integer.
    """
    images = torch.as_tensor(images)
    check_integer("factor", factor, 1)
    channels, wanted = images.shape[1], f"a multiple of factor {factor} squared"
    check("number of channels", channels, channels % factor**2 == 0, wanted)
    return F.pixel_shuffle(images, factor)


def pixel_unshuffle(images, factor):
    """Returns the images of which pixel_shuffle makes these.

    Args:
        images: (N, C, H, W), H and W multiples of the factor.
        factor: an integer.
    """
    images = torch.as_tensor(images)
    check_integer("factor", factor, 1)
    for name, size in zip(("height", "width"), images.shape[2:], strict=True):
        check(name, size, size % factor == 0, f"a multiple of factor {factor}")
    return F.pixel_unshuffle(images, factor)


def crop(images, top, left, height, width):
    """Returns the part of images from row top and column left on.

    Args:
        images: (N, C, H, W).
        top: rows that are left out above.
        left: columns that are left out before.
        height: rows that stay.
        width: columns that stay.
    """
    images = torch.as_tensor(images)
    check_crop(images.shape[2:], top, left, height, width)
    return images[:, :, top : top + height, left : left + width]


def center_crop(images, size):
    """Returns the middle of images; an odd pixel goes behind it.

    torchvision rounds half of it to the even number, and pads smaller images.

    Args:
        images: (N, C, H, W).
        size: an integer or (rows, columns).
    """
    images = torch.as_tensor(images)
    height, width = pair("size", size)
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return crop(images, max(top, 0), max(left, 0), height, width)


def one_hot(labels, num_classes):
    """Returns float32 (N, num_classes), 1 at the label and else 0.

    TensorFlow's own gives 0 throughout for a label outside the classes.

    Args:
        labels: integers (N,).
        num_classes: an integer.
    """
    labels = torch.as_tensor(labels)
    check_integer("num_classes", num_classes, 1)
    check_labels(labels.numpy(force=True), num_classes)
    return F.one_hot(labels.long(), num_classes).float()


def top_k(scores, k):
    """Returns the k largest scores, falling, and their classes, int64, both (N, k).

    Of equal scores the first class comes first, which PyTorch's own does not promise.
    Where one is NaN the sides part: it is the largest in PyTorch only.

    Args:
        scores: (N, K).
        k: an integer up to K.
    """
    scores = torch.as_tensor(scores)
    check_integer("k", k, 1, scores.shape[1])
    values, classes = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :k], classes[:, :k]

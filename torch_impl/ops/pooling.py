"""Pooling of NCHW images, written with PyTorch.

`padding` is as in a convolution. A window that sees nothing but padding raises
UsageError, a ValueError.
"""

import torch
import torch.nn.functional as F

from parity.spec.padding import pair, place_pooling
from torch_impl.ops.convolution import border


def max_pool2d(
    images, *, kernel_size, stride=None, padding="valid", dilation=1, ceil_mode=False
):
    """Returns the maxima of windows; padding counts as -inf.

    On the CPU TensorFlow's maximum passes over NaN, PyTorch's is NaN then.

    Args:
        images: (N, C, H, W), tensor or NumPy array.
        kernel_size: of the windows, an integer or (rows, columns).
        stride: from one window to the next; None sets them side by side.
        padding: as in conv2d.
        dilation: likewise.
        ceil_mode: whether a last window that the border cuts off counts.
    """
    images = torch.as_tensor(images)
    windows = place_pooling(
        images.shape[2:], kernel_size, stride, padding, dilation, ceil_mode=ceil_mode
    )
    images = border(images, _around(windows), -torch.inf)
    return F.max_pool2d(
        images, windows.kernel_size, windows.stride, dilation=windows.dilation
    )


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
        images: (N, C, H, W).
        kernel_size: as in max_pool2d.
        stride: likewise.
        padding: likewise.
        ceil_mode: likewise.
        count_include_pad: whether the zeros of the padding count, as they do in
            PyTorch unless told otherwise, and never do in Keras.
    """
    images = torch.as_tensor(images)
    windows = place_pooling(
        images.shape[2:], kernel_size, stride, padding, 1, ceil_mode=ceil_mode
    )
    counted = border(
        torch.ones_like(images), windows.padding, 1.0 if count_include_pad else 0.0
    )
    counted = border(counted, tuple((0, size) for size in windows.missing))
    images = border(images, _around(windows))
    sums, counts = (
        F.avg_pool2d(x, windows.kernel_size, windows.stride) for x in (images, counted)
    )
    return sums / counts


def adaptive_avg_pool2d(images, output_size):
    """Returns the means of output_size windows that cover the image.

    Window i has the pixels from floor(i * H / size) to ceil((i + 1) * H / size).

    Args:
        images: (N, C, H, W).
        output_size: an integer or (rows, columns).
    """
    size = pair("output_size", output_size)
    return F.adaptive_avg_pool2d(torch.as_tensor(images), size)


def adaptive_max_pool2d(images, output_size):
    """Returns the maxima of output_size windows that cover the image.

    Args:
        images: (N, C, H, W).
        output_size: an integer or (rows, columns), as in adaptive_avg_pool2d.
    """
    size = pair("output_size", output_size)
    return F.adaptive_max_pool2d(torch.as_tensor(images), size)


def global_avg_pool2d(images):
    """Returns the mean of each channel, (N, C)."""
    return torch.as_tensor(images).mean((2, 3))


def global_max_pool2d(images):
    """Returns the maximum of each channel, (N, C); equal ones share the gradient."""
    return torch.as_tensor(images).amax((2, 3))


def _around(windows):
    """Returns the padding, with what cut-off windows lack."""
    pairs = zip(windows.padding, windows.missing, strict=True)
    return tuple((before, after + missing) for (before, after), missing in pairs)

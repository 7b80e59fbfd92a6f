"""One function per operation on NCHW images, written with PyTorch."""

import torch
import torch.nn.functional as F

from parity.spec.padding import same_padding


def conv2d(images, kernel, *, stride=1, padding="valid"):
    """Returns the cross-correlation of images (N, I, H, W) with a kernel (O, I, h, w).

    Args:
        images: tensor or NumPy array.
        kernel: likewise, of the same dtype.
        stride: pixels from one output to the next along both axes.
        padding: "same" or "valid".
    """
    images, kernel = torch.as_tensor(images), torch.as_tensor(kernel)
    images = _pad(images, kernel.shape[2:], stride, padding, 0.0)
    return F.conv2d(images, kernel, stride=stride)


def max_pool2d(images, *, kernel_size, stride, padding="valid"):
    """Returns the maxima of the windows of images (N, C, H, W)."""
    sizes = (kernel_size, kernel_size)
    images = _pad(torch.as_tensor(images), sizes, stride, padding, -torch.inf)
    return F.max_pool2d(images, kernel_size, stride)


def avg_pool2d(images, *, kernel_size, stride, padding="valid"):
    """Returns the means of the windows of images (N, C, H, W), padding not counted."""
    images = torch.as_tensor(images)
    sizes = (kernel_size, kernel_size)
    inside = _pad(torch.ones_like(images), sizes, stride, padding, 0.0)
    images = _pad(images, sizes, stride, padding, 0.0)
    return F.avg_pool2d(images, kernel_size, stride) / F.avg_pool2d(
        inside, kernel_size, stride
    )


def _pad(images, kernel_sizes, stride, padding, value):
    if padding == "valid":
        return images
    (top, bottom), (left, right) = (
        same_padding(size, kernel_size, stride)
        for size, kernel_size in zip(images.shape[2:], kernel_sizes, strict=True)
    )
    return F.pad(images, (left, right, top, bottom), value=value)

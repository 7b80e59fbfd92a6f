"""Convolutions of NCHW images, written with PyTorch.

`padding` is "same", "valid", a number of pixels, a pair of them for (rows, columns),
or ((top, bottom), (left, right)); stride and dilation are an integer or a pair. Values
that do not fit raise UsageError, a ValueError.
"""

import torch
import torch.nn.functional as F

from parity.spec.padding import check_groups, pair, place, transposed
from parity.spec.padding import output_size as output_size


def conv2d(images, kernel, *, stride=1, padding="valid", dilation=1, groups=1):
    """Returns the cross-correlation of images with a kernel, as networks have it.

    Args:
        images: (N, I, H, W), tensor or NumPy array.
        kernel: (O, I / groups, h, w), of the same dtype.
        stride: pixels from one output to the next.
        padding: "same", "valid" or pixels of 0; "same" puts an odd one behind.
        dilation: pixels from one pixel that the kernel sees to the next.
        groups: parts into which channels are divided, each with its own filters.
    """
    images, kernel = torch.as_tensor(images), torch.as_tensor(kernel)
    windows = place(images.shape[2:], kernel.shape[2:], stride, padding, dilation)
    check_groups(images.shape[1], kernel.shape[1], kernel.shape[0], groups)
    images = border(images, windows.padding)
    settings = {"stride": windows.stride, "dilation": windows.dilation}
    return F.conv2d(images, kernel, groups=groups, **settings)


def depthwise_conv2d(images, kernel, *, stride=1, padding="valid", dilation=1):
    """Returns each channel's cross-correlation with M filters of its own.

    Args:
        images: (N, C, H, W).
        kernel: (C * M, 1, h, w); output channel c * M + m is filter m of channel c.
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.
    """
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    return conv2d(images, kernel, groups=images.shape[1], **settings)


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
        images: (N, C, H, W).
        depthwise_kernel: (C * M, 1, h, w).
        pointwise_kernel: (O, C * M, 1, 1).
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
        images: (N, I, H, W).
        kernel: (I, O, h, w), not flipped: that of the convolution from O to I.
        stride: pixels of the output from one pixel of the input to the next.
        padding: what the convolution pads, and this cuts off.
        output_padding: rows and columns added behind, which the convolution would
            have dropped; less than the stride. They move nothing.
    """
    images, kernel = torch.as_tensor(images), torch.as_tensor(kernel)
    sizes, ((top, _), (left, _)) = transposed(
        images.shape[2:], kernel.shape[2:], stride, padding, output_padding
    )
    check_groups(images.shape[1], kernel.shape[0], kernel.shape[1], 1)
    outputs = F.conv_transpose2d(images, kernel, stride=pair("stride", stride))
    bottom, right = (
        max(0, cut + size - full)
        for cut, size, full in zip((top, left), sizes, outputs.shape[2:], strict=True)
    )
    outputs = border(outputs, ((0, bottom), (0, right)))
    return outputs[:, :, top : top + sizes[0], left : left + sizes[1]]


def conv2d_1x1(images, kernel):
    """Returns a dense layer at every pixel: a 1x1 convolution as a matrix product.

    Args:
        images: (N, I, H, W).
        kernel: (O, I).
    """
    return torch.einsum("nihw,oi->nohw", *map(torch.as_tensor, (images, kernel)))


def convolve2d(images, kernel, *, padding="valid"):
    """Returns the convolution of mathematics, whose kernel is turned by 180 degrees.

    Args:
        images: (N, I, H, W).
        kernel: (O, I, h, w).
        padding: as in conv2d.
    """
    return conv2d(images, torch.as_tensor(kernel).flip(2, 3), padding=padding)


def unfold(images, kernel_size, *, stride=1, padding="valid", dilation=1):
    """Returns what each window of a convolution sees, as one vector.

    Args:
        images: (N, C, H, W).
        kernel_size: of the window.
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.

    Returns:
        (N, C * h * w, OH, OW), of a window channel by channel, row by row.
    """
    images = torch.as_tensor(images)
    windows = place(images.shape[2:], kernel_size, stride, padding, dilation)
    images = border(images, windows.padding)
    patches = F.unfold(
        images, windows.kernel_size, windows.dilation, stride=windows.stride
    )
    return patches.unflatten(2, windows.output_size)


def conv2d_as_dense(images, kernel, *, stride=1, padding="valid", dilation=1):
    """Returns conv2d as a perceptron that looks at each window: a matrix product.

    Args:
        images: (N, I, H, W).
        kernel: (O, I, h, w).
        stride: as in conv2d.
        padding: likewise.
        dilation: likewise.
    """
    kernel = torch.as_tensor(kernel)
    filters, channels, height, width = kernel.shape
    patches = unfold(
        images, (height, width), stride=stride, padding=padding, dilation=dilation
    )
    check_groups(images.shape[1], channels, filters, 1)
    return conv2d_1x1(patches, kernel.flatten(1))


def border(images, padding, value=0.0):
    """Returns images with ((top, bottom), (left, right)) pixels of a value around."""
    (top, bottom), (left, right) = padding
    return F.pad(images, (left, right, top, bottom), value=value)

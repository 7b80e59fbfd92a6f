"""The arithmetic of 'same' padding, in the one place that has it."""


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Returns the pixels that 'same' adds before and after one axis.

    The output has ceil(size / stride) pixels; an odd total puts the extra pixel
    after the image. Source: tf.nn.convolution's documentation.

    >>> same_padding(28, 5, 1), same_padding(28, 3, 2), same_padding(27, 3, 2)
    ((2, 2), (0, 1), (1, 1))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def ceil_padding(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """Returns the pixels that a last window, cut off by the border, lacks behind it.

    Windows start at every `stride` pixels as long as they start inside the image or
    its padding in front (PyTorch's `ceil_mode`).

    Args:
        size: of the image along one axis.
        kernel_size: of the window.
        stride: of the window.
        padding: pixels on either side.
    """
    count = -(-(size + 2 * padding - kernel_size) // stride) + 1
    if (count - 1) * stride >= size + padding:
        count -= 1
    return max(0, (count - 1) * stride + kernel_size - size - 2 * padding)

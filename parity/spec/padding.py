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

"""The arithmetic of resizing one axis; pixels are areas whose centres are compared."""

import numpy as np

METHODS = ("nearest", "bilinear", "bicubic")


def nearest(size: int, count: int) -> list[int]:
    """Returns the pixel that holds each of count new centres, of two the second.

    In integers: the frameworks' own round their positions to float32.
    """
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def weights(size: int, count: int, method: str, antialias: bool) -> np.ndarray:
    """Returns what each pixel adds to each of count new ones, float64 (count, size).

    Pixels outside the image do not count. Source: Keys 1981, "Cubic Convolution
    Interpolation for Digital Image Processing", equation 15, for the bicubic ones.

    Args:
        size: pixels of the axis.
        count: new ones.
        method: "bilinear" or "bicubic".
        antialias: whether the kernel is as much wider as a reduction is strong.
    """
    scale = size / count
    width = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(count) + 0.5) * scale - 0.5
    x = np.abs(np.arange(size) - centres[:, None]) / width
    if method == "bilinear":
        values = np.maximum(1 - x, 0)
    else:
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        values = np.where(x < 1, near, np.where(x < 2, far, 0))
    return values / values.sum(1, keepdims=True)

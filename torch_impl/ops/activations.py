"""Activations of tensors or NumPy arrays, written with PyTorch.

Those without an axis take any shape. Values that do not fit raise UsageError.
"""

import torch
import torch.nn.functional as F

from parity.spec.checks import check, check_shape


def relu(x):
    """Returns x where it is positive, else 0; its slope at 0 is 0."""
    return F.relu(torch.as_tensor(x))


def relu6(x):
    """Returns x where it lies between 0 and 6, else the nearer of them."""
    return F.relu6(torch.as_tensor(x))


def leaky_relu(x, *, negative_slope=0.01):
    """Returns x where it is positive, else negative_slope * x.

    Keras's layer has a slope of 0.3, its function and TensorFlow's one of 0.2.
    """
    return F.leaky_relu(torch.as_tensor(x), negative_slope)


def prelu(images, slopes):
    """Returns images where they are positive, else each channel's slope times them.

    Keras's layer has a slope for every pixel unless told otherwise, PyTorch's one for
    all channels.

    Args:
        images: (N, C, H, W) or (N, C).
        slopes: (C,), or (1,) for all channels.
    """
    images, slopes = torch.as_tensor(images), torch.as_tensor(slopes)
    check_shape("slopes", slopes.shape, (images.shape[1],), (1,))
    return F.prelu(images, slopes)


def elu(x, *, alpha=1.0):
    """Returns x where it is positive, else alpha * (exp(x) - 1)."""
    return F.elu(torch.as_tensor(x), alpha)


def selu(x):
    """Returns elu with the alpha and the scale that keep mean 0 and variance 1."""
    return F.selu(torch.as_tensor(x))


def celu(x, *, alpha=1.0):
    """Returns x where it is positive, else alpha * (exp(x / alpha) - 1)."""
    return F.celu(torch.as_tensor(x), alpha)


def gelu(x, *, approximate=False):
    """Returns x times the normal distribution's share below x.

    Approximated is that by a tanh, which keras.ops.gelu does unless told otherwise and
    Keras's activation of the name does not.
    """
    return F.gelu(torch.as_tensor(x), approximate="tanh" if approximate else "none")


def silu(x):
    """Returns x * sigmoid(x), also called swish."""
    return F.silu(torch.as_tensor(x))


def mish(x):
    """Returns x * tanh(softplus(x))."""
    return F.mish(torch.as_tensor(x))


def hard_sigmoid(x):
    """Returns relu6(x + 3) / 6; before version 3 Keras had 0.2 * x + 0.5, cut off."""
    # PyTorch's own rounds its slope, a sixth, to float32.
    return F.relu6(torch.as_tensor(x) + 3) / 6


def hard_swish(x):
    """Returns x * relu6(x + 3) / 6."""
    return F.hardswish(torch.as_tensor(x))


def sigmoid(x):
    """Returns 1 / (1 + exp(-x))."""
    return torch.sigmoid(torch.as_tensor(x))


def tanh(x):
    """Returns the hyperbolic tangent."""
    return torch.tanh(torch.as_tensor(x))


def softplus(x):
    """Returns log(1 + exp(x)); PyTorch takes x above 20 unless told otherwise."""
    # From 40 on exp(-x) is no digit of float64.
    return F.softplus(torch.as_tensor(x), threshold=40.0)


def softsign(x):
    """Returns x / (1 + |x|)."""
    return F.softsign(torch.as_tensor(x))


def softmax(x):
    """Returns probabilities over the channels, of (N, K) or (N, K, H, W).

    Without an axis Keras takes the last one, PyTorch one that depends on the rank.
    """
    return F.softmax(torch.as_tensor(x), 1)


def log_softmax(x):
    """Returns the logarithms of softmax, also where that is 0 by rounding."""
    return F.log_softmax(torch.as_tensor(x), 1)


def dropout(x, mask, *, rate):
    """Returns x / (1 - rate) where the mask is true, else 0.

    The two sides' generators never draw the same mask, so that it is given here. One of
    (N, C, 1, 1) drops channels, as Keras's SpatialDropout2D and PyTorch's Dropout2d do.

    Args:
        x: of any shape.
        mask: of a shape that broadcasts; true, or 1, is kept.
        rate: the share that is dropped in the mean, below 1.
    """
    check("rate", rate, 0 <= rate < 1, "from 0 to below 1")
    x = torch.as_tensor(x)
    return x * torch.as_tensor(mask).to(x.dtype) / (1 - rate)

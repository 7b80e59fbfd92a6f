"""Normalization of NCHW images, written with PyTorch.

Epsilon is added to the variance. Values that do not fit raise UsageError, a ValueError.
"""

import torch
import torch.nn.functional as F

from parity.spec.checks import check, check_channels, check_integer


def batch_norm(images, mean, variance, gamma, beta, *, epsilon=1e-5):
    """Returns images normalised by given statistics, as in inference.

    The statistics are measured and not learnt: no gradient goes to them. Keras's layer
    has an epsilon of 1e-3 where nothing else is said.

    Args:
        images: (N, C, H, W), tensor or NumPy array.
        mean: (C,), of the same dtype.
        variance: (C,).
        gamma: (C,), the factor.
        beta: (C,), what is added then.
        epsilon: added to the variance.
    """
    images, gamma, beta = map(torch.as_tensor, (images, gamma, beta))
    check_channels(
        images.shape[1], mean=mean, variance=variance, gamma=gamma, beta=beta
    )
    mean, variance = (torch.as_tensor(x).detach() for x in (mean, variance))
    return F.batch_norm(images, mean, variance, gamma, beta, eps=epsilon)


def batch_norm_training(
    images, gamma, beta, running_mean, running_variance, *, momentum=0.1, epsilon=1e-5
):
    """Returns images normalised by their own statistics, as in training.

    Normalised is with the biased variance of the batch, which Keras's layer averages
    too; averaged here is the unbiased one.
    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2.

    Args:
        images: (N, C, H, W).
        gamma: (C,).
        beta: (C,).
        running_mean: (C,), so far; it stays as it is.
        running_variance: (C,), likewise.
        momentum: the share of this batch in the new averages, 1 minus that of Keras.
        epsilon: as in batch_norm.

    Returns:
        The normalised images, the new mean and the new variance.
    """
    images, gamma, beta = map(torch.as_tensor, (images, gamma, beta))
    running = {"running_mean": running_mean, "running_variance": running_variance}
    check_channels(images.shape[1], gamma=gamma, beta=beta, **running)
    check("momentum", momentum, 0 <= momentum <= 1, "from 0 to 1")
    count = images.numel() // images.shape[1]
    check("number of values per channel", count, count > 1, "2 or more")
    # PyTorch changes the averages in place.
    mean, variance = (torch.as_tensor(x).detach().clone() for x in running.values())
    settings = {"training": True, "momentum": momentum, "eps": epsilon}
    outputs = F.batch_norm(images, mean, variance, gamma, beta, **settings)
    return outputs, mean, variance


def layer_norm(images, gamma, beta, *, epsilon=1e-5):
    """Returns images of which each pixel is normalised over its channels.

    Keras's layer does so, with an epsilon of 1e-3 where nothing else is said;
    PyTorch's normalises over the last axes, which hold no channels in NCHW.
    Source: Ba, Kiros & Hinton, "Layer Normalization", arXiv:1607.06450.

    Args:
        images: (N, C, H, W).
        gamma: (C,).
        beta: (C,).
        epsilon: as in batch_norm.
    """
    images, gamma, beta = map(torch.as_tensor, (images, gamma, beta))
    check_channels(images.shape[1], gamma=gamma, beta=beta)
    pixels = images.movedim(1, 3)
    return F.layer_norm(pixels, gamma.shape, gamma, beta, epsilon).movedim(3, 1)


def group_norm(images, gamma, beta, *, groups, epsilon=1e-5):
    """Returns images normalised over all pixels of each group of channels.

    Source: Wu & He, "Group Normalization", ECCV 2018, arXiv:1803.08494.

    Args:
        images: (N, C, H, W).
        gamma: (C,), a factor for each channel.
        beta: (C,).
        groups: parts of neighbouring channels; 1 is all, C is each alone.
        epsilon: as in batch_norm.
    """
    images, gamma, beta = map(torch.as_tensor, (images, gamma, beta))
    check_channels(images.shape[1], gamma=gamma, beta=beta)
    channels = images.shape[1]
    check_integer("groups", groups, 1)
    check("groups", groups, channels % groups == 0, f"a divisor of {channels} channels")
    return F.group_norm(images, groups, gamma, beta, epsilon)


def local_response_norm(images, *, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Returns images / (k + alpha * sum of squares over `size` channels) ** beta.

    TensorFlow's own sums 2 * depth_radius + 1 channels, PyTorch's divides alpha by the
    size. Source: Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3.

    Args:
        images: (N, C, H, W).
        size: neighbouring channels; of an even number one more lies before.
        alpha: the factor of the sum.
        beta: the exponent.
        k: added to the sum.
    """
    images = torch.as_tensor(images)
    check_integer("size", size, 1)
    return F.local_response_norm(images, size, alpha * size, beta, k)

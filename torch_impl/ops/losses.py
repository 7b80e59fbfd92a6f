"""Losses of predictions against targets, one number each, written with PyTorch.

Probabilities are taken as they are: Keras cuts them off at 1e-7, where gradients end,
PyTorch their logarithms at -100 in the binary case. Values that do not fit raise
UsageError, a ValueError.
"""

import torch
import torch.nn.functional as F

from parity.spec.checks import check, check_shape, check_share
from torch_impl.ops.tensors import one_hot


def cross_entropy(
    predictions,
    targets,
    *,
    from_logits=True,
    label_smoothing=0.0,
    class_weights=None,
    ignore_class=None,
):
    """Returns the mean of -target * log(probability), summed over the classes.

    With weights it is the weighted mean, divided by the sum of the targets' weights, as
    PyTorch does for labels; Keras divides by the number of images unless told
    otherwise, and so does PyTorch where targets are probabilities.

    Args:
        predictions: (N, K), tensor or NumPy array.
        targets: labels (N,), or probabilities (N, K) that sum to 1.
        from_logits: whether a softmax is still to come, as always in PyTorch and in
            Keras if told so.
        label_smoothing: the share of each target that is spread over all classes.
        class_weights: (K,), a factor for each class's term, or None.
        ignore_class: a label whose images do not count; NaN if all are such.
    """
    predictions, targets = map(torch.as_tensor, (predictions, targets))
    count, classes = predictions.shape
    check_shape("targets", targets.shape, (count,), (count, classes))
    check_share("label_smoothing", label_smoothing)
    weights = torch.ones_like(predictions)
    if class_weights is not None:
        class_weights = torch.as_tensor(class_weights).to(predictions)
        check_shape("class_weights", class_weights.shape, (classes,))
        weights = weights * class_weights
    if ignore_class is not None:
        check("ignore_class", ignore_class, targets.ndim == 1, "for probabilities")
        kept = targets != ignore_class
        weights = weights * kept[:, None]
        targets = torch.where(kept, targets, 0)
    if targets.ndim == 1:
        targets = one_hot(targets, classes)
    targets = targets.to(predictions.dtype)
    smoothed = targets * (1 - label_smoothing) + label_smoothing / classes
    targeted = weights * smoothed
    terms = targeted * _logarithms(predictions, targeted, from_logits)
    return -terms.sum() / (weights * targets).sum()


def binary_cross_entropy(
    predictions, targets, *, from_logits=True, label_smoothing=0.0
):
    """Returns the mean cross-entropy of predictions that are each right or not.

    Args:
        predictions: of any shape.
        targets: of the same shape, 0, 1 or between.
        from_logits: whether a sigmoid is still to come.
        label_smoothing: the share of each target that becomes one half.
    """
    predictions, targets = _pair(predictions, targets)
    check_share("label_smoothing", label_smoothing)
    targets = targets * (1 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return F.binary_cross_entropy_with_logits(predictions, targets)
    right = targets * _logarithms(predictions, targets, False)
    wrong = (1 - targets) * _logarithms(1 - predictions, 1 - targets, False)
    return -(right + wrong).mean()


def mean_squared_error(predictions, targets):
    """Returns the mean of (prediction - target) ** 2 over all numbers."""
    predictions, targets = _pair(predictions, targets)
    return F.mse_loss(predictions, targets)


def huber(predictions, targets, *, delta=1.0):
    """Returns the mean of half the squared error, straight on where it exceeds delta.

    Source: Huber 1964, "Robust Estimation of a Location Parameter".

    Args:
        predictions: of any shape.
        targets: of the same shape.
        delta: the error from which on the loss is a straight line.
    """
    predictions, targets = _pair(predictions, targets)
    check("delta", delta, delta > 0, "more than 0")
    return F.huber_loss(predictions, targets, delta=delta)


def kl_divergence(probabilities, targets):
    """Returns the mean over images of the sum of target * log(target / probability).

    Args:
        probabilities: (N, K), predicted.
        targets: (N, K), likewise probabilities.
    """
    probabilities, targets = _pair(probabilities, targets)
    logarithms = _logarithms(targets, targets, False)
    logarithms = logarithms - _logarithms(probabilities, targets, False)
    return (targets * logarithms).sum(1).mean()


def _logarithms(predictions, targets, from_logits):
    """Returns the logarithms of probabilities, and 0 where the target is 0.

    So that 0 * log(0) is 0 and has no gradient, in place of NaN.
    """
    if from_logits:
        logarithms = F.log_softmax(predictions, 1)
    else:
        logarithms = torch.where(targets > 0, predictions, 1).log()
    return torch.where(targets > 0, logarithms, 0)


def _pair(predictions, targets):
    predictions = torch.as_tensor(predictions)
    targets = torch.as_tensor(targets).to(predictions.dtype)
    check_shape("targets", targets.shape, tuple(predictions.shape))
    return predictions, targets

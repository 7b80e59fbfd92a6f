"""Metrics of predictions (N, K) and labels (N,), written with PyTorch.

Labels that are no classes raise UsageError, a ValueError.
"""

import torch

from parity.spec.checks import check_labels, check_shape
from torch_impl.ops.tensors import top_k


def accuracy(predictions, labels):
    """Returns the fraction of images whose label has the largest prediction.

    Of equal ones the first counts. For a single logit Keras's metric of the name wants
    a probability, and compares it with a half.

    Args:
        predictions: (N, K), tensor or NumPy array; logits or probabilities.
        labels: integers (N,).
    """
    return top_k_accuracy(predictions, labels, k=1)


def top_k_accuracy(predictions, labels, *, k=5):
    """Returns the fraction of images whose label is among the k largest predictions.

    Of equal ones the first count; in Keras all that equal the last do, so that equal
    predictions are always right.

    Args:
        predictions: (N, K).
        labels: integers (N,).
        k: an integer up to K.
    """
    predictions, labels = map(torch.as_tensor, (predictions, labels))
    check_shape("labels", labels.shape, (predictions.shape[0],))
    check_labels(labels.numpy(force=True), predictions.shape[1])
    _, classes = top_k(predictions, k)
    right = (classes == labels[:, None]).any(1)
    return right.to(predictions.dtype).mean()

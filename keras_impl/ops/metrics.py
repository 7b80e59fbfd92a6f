"""Metrics of predictions (N, K) and labels (N,), written with TensorFlow.

Labels that are no classes raise UsageError, a ValueError.
"""

import tensorflow as tf

from keras_impl.ops.tensors import top_k
from parity.spec.checks import check_labels, check_shape


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
    predictions, labels = map(tf.convert_to_tensor, (predictions, labels))
    check_shape("labels", labels.shape, (predictions.shape[0],))
    known = tf.get_static_value(labels)
    if known is not None:
        check_labels(known, predictions.shape[1])
    _, classes = top_k(predictions, k)
    right = tf.reduce_any(classes == tf.cast(labels, classes.dtype)[:, None], 1)
    return tf.reduce_mean(tf.cast(right, predictions.dtype))

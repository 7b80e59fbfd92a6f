"""Activations of tensors or NumPy arrays, written with TensorFlow.

Those without an axis take any shape. Values that do not fit raise UsageError.
"""

import math

import tensorflow as tf

from parity.spec.checks import check, check_shape

# Klambauer et al., "Self-Normalizing Neural Networks", NIPS 2017, appendix A.1.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def relu(x):
    """Returns x where it is positive, else 0; its slope at 0 is 0."""
    return tf.nn.relu(x)


def relu6(x):
    """Returns x where it lies between 0 and 6, else the nearer of them."""
    return tf.nn.relu6(x)


def leaky_relu(x, *, negative_slope=0.01):
    """Returns x where it is positive, else negative_slope * x.

    Keras's layer has a slope of 0.3, its function and TensorFlow's one of 0.2.
    """
    x = tf.convert_to_tensor(x)
    # TensorFlow's own rounds the slope to float32.
    return tf.where(x > 0, x, negative_slope * x)


def prelu(images, slopes):
    """Returns images where they are positive, else each channel's slope times them.

    Keras's layer has a slope for every pixel unless told otherwise, PyTorch's one for
    all channels.

    Args:
        images: (N, H, W, C) or (N, C).
        slopes: (C,), or (1,) for all channels.
    """
    images = tf.convert_to_tensor(images)
    check_shape("slopes", slopes.shape, (images.shape[-1],), (1,))
    return tf.where(images > 0, images, slopes * images)


def elu(x, *, alpha=1.0):
    """Returns x where it is positive, else alpha * (exp(x) - 1)."""
    x = tf.convert_to_tensor(x)
    return tf.where(x > 0, x, alpha * tf.nn.elu(x))


def selu(x):
    """Returns elu with the alpha and the scale that keep mean 0 and variance 1."""
    # TensorFlow's own has another slope at exactly 0.
    return SELU_SCALE * elu(x, alpha=SELU_ALPHA)


def celu(x, *, alpha=1.0):
    """Returns x where it is positive, else alpha * (exp(x / alpha) - 1)."""
    x = tf.convert_to_tensor(x)
    return tf.where(x > 0, x, alpha * tf.nn.elu(x / alpha))


def gelu(x, *, approximate=False):
    """Returns x times the normal distribution's share below x.

    Approximated is that by a tanh, which keras.ops.gelu does unless told otherwise and
    Keras's activation of the name does not.
    """
    x = tf.convert_to_tensor(x)
    # TensorFlow's own rounds its constants to float32.
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + tf.tanh(inner))
    return 0.5 * x * tf.math.erfc(-x / math.sqrt(2))


def silu(x):
    """Returns x * sigmoid(x), also called swish."""
    return tf.nn.silu(x)


def mish(x):
    """Returns x * tanh(softplus(x))."""
    return x * tf.tanh(softplus(x))


def hard_sigmoid(x):
    """Returns relu6(x + 3) / 6; before version 3 Keras had 0.2 * x + 0.5, cut off."""
    return tf.nn.relu6(tf.convert_to_tensor(x) + 3) / 6


def hard_swish(x):
    """Returns x * relu6(x + 3) / 6."""
    return x * tf.nn.relu6(tf.convert_to_tensor(x) + 3) / 6


def sigmoid(x):
    """Returns 1 / (1 + exp(-x))."""
    return tf.sigmoid(x)


def tanh(x):
    """Returns the hyperbolic tangent."""
    return tf.tanh(x)


def softplus(x):
    """Returns log(1 + exp(x)); PyTorch takes x above 20 unless told otherwise."""
    return tf.math.softplus(x)


def softsign(x):
    """Returns x / (1 + |x|)."""
    return tf.nn.softsign(x)


def softmax(x):
    """Returns probabilities over the channels, of (N, K) or (N, H, W, K).

    Without an axis Keras takes the last one, PyTorch one that depends on the rank.
    """
    return tf.nn.softmax(x, -1)


def log_softmax(x):
    """Returns the logarithms of softmax, also where that is 0 by rounding."""
    return tf.nn.log_softmax(x, -1)


def dropout(x, mask, *, rate):
    """Returns x / (1 - rate) where the mask is true, else 0.

    The two sides' generators never draw the same mask, so that it is given here. One of
    (N, 1, 1, C) drops channels, as Keras's SpatialDropout2D and PyTorch's Dropout2d do.

    Args:
        x: of any shape.
        mask: of a shape that broadcasts; true, or 1, is kept.
        rate: the share that is dropped in the mean, below 1.
    """
    check("rate", rate, 0 <= rate < 1, "from 0 to below 1")
    x = tf.convert_to_tensor(x)
    return x * tf.cast(mask, x.dtype) / (1 - rate)

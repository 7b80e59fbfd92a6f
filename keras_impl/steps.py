"""Loss, gradients, training steps and predictions.

Losses and predictions run on any backend of Keras; gradients and steps are
TensorFlow's, and `other_backends.py` has the others'.
"""

import keras
import numpy as np
from keras import ops

from keras_impl.data import normalise
from parity.spec import devices, metrics
from parity.spec.recipes import AUXILIARY_WEIGHT

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf


def average_map(logits):
    """Returns logits (N, num_classes), of a map (N, H, W, num_classes) its mean."""
    return ops.mean(logits, (1, 2)) if len(logits.shape) == 4 else logits


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits and labels (N,).

    A map of logits is averaged over its positions; one column of them is the logit of
    the second of two classes.
    """
    logits = average_map(logits)
    if logits.shape[1] == 1:
        target = ops.cast(labels, logits.dtype)
        losses = ops.binary_crossentropy(target, logits[:, 0], from_logits=True)
    else:
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, True)
    return ops.mean(losses)


def training_loss(outputs, labels):
    """Returns the cross-entropy, with that of auxiliary heads times their weight."""
    if not isinstance(outputs, tuple):
        return cross_entropy(outputs, labels)
    logits, *auxiliary = outputs
    added = sum(cross_entropy(head, labels) for head in auxiliary)
    return cross_entropy(logits, labels) + AUXILIARY_WEIGHT * added


def compute_gradients(model, images, labels, scale=None):
    """Returns the loss and its gradient by each trainable variable.

    The gradient is that of the loss times a scale, if there is one.
    """
    with tf.GradientTape() as tape:
        loss = training_loss(widened(model(images, training=True)), labels)
        scaled = loss if scale is None else scale(loss)
    return loss, tape.gradient(scaled, model.trainable_variables)


def make_train_step(model, optimizer, compiled=False):
    """Returns a compiled function that makes one step and returns the loss.

    Args:
        model: whose layers have the precision's policy.
        optimizer: of its variables.
        compiled: whether by XLA.
    """
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True, autograph=False, jit_compile=compiled)
    def train_step(images, labels):
        loss, gradients = compute_gradients(model, images, labels, scale_of(optimizer))
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return train_step


def make_train_steps(train_step, tensors, mean, std):
    """Returns a function that makes the steps of several batches in one call.

    Args:
        train_step: of one batch.
        tensors: images uint8 (N, H, W, C) and labels (N,) that the batches are of.
        mean: per channel, of images scaled to 0 to 1.
        std: likewise.
    """
    images, labels = tensors

    def one_step(indices):
        batch = normalise(tf.gather(images, indices), mean, std)
        return tf.cast(train_step(batch, tf.gather(labels, indices)), tf.float64)

    # One graph for all numbers of batches and of images.
    any_number = tf.TensorSpec((None, None), tf.int64)

    @tf.function(input_signature=[any_number], autograph=False)
    def train_steps(order):
        return tf.map_fn(
            one_step,
            order,
            fn_output_signature=tf.float64,
            parallel_iterations=1,  # one after the other
        )

    return train_steps


def scale_of(optimizer):
    """Returns the function that scales a loss for float16, None for other types."""
    is_scaler = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.scale_loss if is_scaler else None


def make_loss_scaler(optimizer, precision):
    """Returns an optimizer that keeps the gradients of float16 within its range."""
    if precision != "float16":
        return optimizer
    return keras.optimizers.LossScaleOptimizer(
        optimizer,
        initial_scale=devices.LOSS_SCALE,
        dynamic_growth_steps=devices.LOSS_SCALE_STEPS,
    )


def widened(logits):
    """Returns logits, or a tuple of logits, of at least 32 bits."""
    if isinstance(logits, tuple):
        return tuple(map(widened, logits))
    short = keras.backend.standardize_dtype(logits.dtype) in ("bfloat16", "float16")
    return ops.cast(logits, "float32") if short else logits


def make_predictor(model):
    """Returns a function from images (N, H, W, C) to logits (N, num_classes) as NumPy.

    Images are predicted in batches; a map of logits is averaged.
    """
    if BACKEND == "tensorflow":

        @tf.function(autograph=False)
        def graph(images):
            return average_map(widened(model(images, training=False)))

        def forward(images):
            any_number = tf.TensorSpec((None, *images.shape[1:]), images.dtype)
            return graph.get_concrete_function(any_number)(images)

    else:

        def forward(images):
            return average_map(widened(model.predict_on_batch(images)))

    def predict(images):
        step = metrics.images_at_once(*images.shape[1:3])
        batches = (images[i : i + step] for i in range(0, len(images), step))
        return np.concatenate(
            [ops.convert_to_numpy(forward(batch)) for batch in batches]
        )

    return predict


def predict_all(predict, pipeline):
    """Returns the logits (N, num_classes) of all of a pipeline's images, in order."""
    order = metrics.in_order(len(pipeline), *pipeline.size)
    return np.concatenate([predict(images) for images, _ in pipeline.batches(order)])


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes) and labels (N,)."""
    loss = cross_entropy(ops.convert_to_tensor(logits), labels)
    return float(loss), metrics.accuracy(logits, labels)

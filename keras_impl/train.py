"""Trains a network: `python -m keras_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("keras_impl.train") if __name__ == "__main__" else None

import math
import time

import keras
import numpy as np
import tensorflow as tf

import keras_impl
from keras_impl import data, weights
from keras_impl.devices import select_device
from keras_impl.optim import create_optimizer, set_learning_rate
from parity.spec import files, metrics, runs
from parity.spec.recipes import AUXILIARY_WEIGHT


def average_map(logits):
    """Returns logits (N, num_classes), of a map (N, H, W, num_classes) its mean."""
    return tf.reduce_mean(logits, (1, 2)) if len(logits.shape) == 4 else logits


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits and labels (N,).

    A map of logits is averaged over its positions; one column of them is the logit of
    the second of two classes.
    """
    logits = average_map(logits)
    if logits.shape[1] == 1:
        target = tf.cast(labels, logits.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logits[:, 0])
    else:
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, True)
    return tf.reduce_mean(losses)


def training_loss(outputs, labels):
    """Returns the cross-entropy, with that of auxiliary heads times their weight."""
    if not isinstance(outputs, tuple):
        return cross_entropy(outputs, labels)
    logits, *auxiliary = outputs
    added = sum(cross_entropy(head, labels) for head in auxiliary)
    return cross_entropy(logits, labels) + AUXILIARY_WEIGHT * added


def compute_gradients(model, images, labels):
    """Returns the loss and its gradient by each trainable variable."""
    with tf.GradientTape() as tape:
        loss = training_loss(model(images, training=True), labels)
    return loss, tape.gradient(loss, model.trainable_variables)


def make_train_step(model, optimizer):
    """Returns a compiled function that makes one step and returns the loss."""
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def train_step(images, labels):
        loss, gradients = compute_gradients(model, images, labels)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return train_step


def make_predictor(model):
    """Returns a function from images (N, H, W, C) to logits (N, num_classes) as NumPy.

    Images are predicted in batches; a map of logits is averaged.
    """

    @tf.function(reduce_retracing=True)
    def forward(images):
        return average_map(model(images, training=False))

    def predict(images):
        step = metrics.images_at_once(*images.shape[1:3])
        starts = range(0, len(images), step)
        return np.concatenate([forward(images[i : i + step]).numpy() for i in starts])

    return predict


def predict_all(predict, pipeline):
    """Returns the logits (N, num_classes) of all of a pipeline's images, in order."""
    order = metrics.in_order(len(pipeline), *pipeline.size)
    return np.concatenate([predict(images) for images, _ in pipeline.batches(order)])


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes) and labels (N,)."""
    loss = cross_entropy(tf.constant(logits), labels)
    return float(loss), metrics.accuracy(logits, labels)


def train(options: runs.Options) -> runs.Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
    """
    device = select_device(options.device)
    dataset = options.scaled(data.load(**options.data_arguments()))
    shape = options.shape(dataset)
    with tf.device(device):
        model = keras_impl.create_model(
            options.model, **shape.arguments(), seed=options.seed
        )
        if options.weights:
            tensors, _ = files.load_weights(options.weights)
            weights.load_state_dict(model, tensors, str(options.weights))
        optimizer = create_optimizer(
            options.optimizer, options.learning_rate, **options.optimizer_arguments()
        )
        parameters = sum(math.prod(x.shape) for x in model.trainable_variables)
        versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
        run = runs.Run(options, "keras", versions)
        run.start(dataset, device, parameters)
        run.save_weights("initial", weights.state_dict(model), dataset)
        predictions = run_epochs(model, optimizer, dataset, run)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.keras", model.save)
    run.finish(dataset, predictions)
    return run


def run_epochs(model, optimizer, dataset, run):
    """Trains for the run's epochs; returns the predicted labels of the test images."""
    options = run.options
    settings = {
        "mean": dataset.mean,
        "std": dataset.std,
        "workers": options.workers,
    }
    train_part = (dataset.train_images, dataset.train_labels)
    train_set = data.Pipeline(
        *train_part, augment=options.augment, seed=options.seed, **settings
    )
    plain_set = data.Pipeline(*train_part, **settings) if options.augment else train_set
    test_set = data.Pipeline(dataset.test_images, dataset.test_labels, **settings)
    train_step = make_train_step(model, optimizer)
    predict = make_predictor(model)
    for epoch in range(options.epochs):
        start = time.perf_counter()
        earlier = [line["train_loss"] for line in run.epochs]
        learning_rate = options.epoch_learning_rate(epoch, earlier)
        set_learning_rate(optimizer, learning_rate)
        order = runs.batch_order(options, len(train_set), epoch)
        losses = [
            train_step(images, labels) * len(labels)
            for images, labels in run.progress(
                train_set.batches(order, epoch), len(order), epoch
            )
        ]
        train_loss = float(sum(losses)) / sum(map(len, order))
        seconds = time.perf_counter() - start
        train_logits = predict_all(predict, plain_set)
        _, train_accuracy = measure(train_logits, dataset.train_labels)
        logits = predict_all(predict, test_set)
        test_loss, test_accuracy = measure(logits, dataset.test_labels)
        top5 = {}
        if "top5" in options.metrics:
            top5 = {
                "train_top5": metrics.top5_accuracy(train_logits, dataset.train_labels),
                "test_top5": metrics.top5_accuracy(logits, dataset.test_labels),
            }
        run.log(
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            **top5,
            learning_rate=learning_rate,
            seconds=seconds,
        )
    return metrics.predicted_labels(logits)


def main() -> int:
    """Trains with the options of the command line."""
    train(OPTIONS)
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.train", main)

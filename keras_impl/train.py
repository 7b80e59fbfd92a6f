"""Trains a network: `python -m keras_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("keras_impl.train") if __name__ == "__main__" else None

import time

import keras
import numpy as np
import tensorflow as tf

import keras_impl
from keras_impl import data, weights
from keras_impl.devices import select_device
from keras_impl.optim import create_optimizer
from parity.spec import files, runs

EVALUATION_BATCH = 1024


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits (N, num_classes) and labels (N,)."""
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, True)
    return tf.reduce_mean(losses)


def compute_gradients(model, images, labels):
    """Returns the loss and its gradient by each trainable variable."""
    with tf.GradientTape() as tape:
        loss = cross_entropy(model(images, training=True), labels)
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
    """Returns a function from images (N, H, W, C) to logits, in batches, as NumPy."""
    forward = tf.function(lambda images: model(images, training=False))

    def predict(images):
        starts = range(0, len(images), EVALUATION_BATCH)
        logits = [forward(images[i : i + EVALUATION_BATCH]) for i in starts]
        return np.concatenate([batch.numpy() for batch in logits])

    return predict


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes)."""
    loss = cross_entropy(tf.constant(logits), labels)
    return float(loss), float(np.mean(logits.argmax(1) == labels.numpy()))


def train(options: runs.Options) -> runs.Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
    """
    device = select_device(options.device)
    size = options.image_size
    dataset = data.load(options.dataset, options.data_dir, size, size)
    with tf.device(device):
        model = keras_impl.create_model(
            options.model,
            num_classes=len(dataset.classes),
            image_size=size,
            in_channels=dataset.train_images.shape[-1],
            seed=options.seed,
        )
        if options.weights:
            tensors, _ = files.load_weights(options.weights)
            weights.load_state_dict(model, tensors, str(options.weights))
        optimizer = create_optimizer(options.optimizer, options.learning_rate)
        versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
        run = runs.Run(options, "keras", versions)
        run.start(dataset, device, model.count_params())
        run.save_weights("initial", weights.state_dict(model), dataset)
        predictions = run_epochs(model, optimizer, dataset, run)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.keras", model.save)
    run.finish(dataset, predictions)
    return run


def run_epochs(model, optimizer, dataset, run):
    """Trains for the run's epochs; returns the predicted labels of the test images."""
    options = run.options
    normalisation = (dataset.mean, dataset.std)
    train_set = data.to_tensors(
        dataset.train_images, dataset.train_labels, *normalisation
    )
    test_set = data.to_tensors(dataset.test_images, dataset.test_labels, *normalisation)
    train_step = make_train_step(model, optimizer)
    predict = make_predictor(model)
    for epoch in range(options.epochs):
        start = time.perf_counter()
        order = runs.batch_order(options, len(train_set[0]), epoch)
        losses = [
            train_step(images, labels) * len(labels)
            for images, labels in run.progress(
                data.batches(*train_set, order), len(order), epoch
            )
        ]
        train_loss = float(sum(losses)) / sum(map(len, order))
        seconds = time.perf_counter() - start
        _, train_accuracy = measure(predict(train_set[0]), train_set[1])
        logits = predict(test_set[0])
        test_loss, test_accuracy = measure(logits, test_set[1])
        run.log(
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            seconds=seconds,
        )
    return logits.argmax(1)


def main() -> int:
    """Trains with the options of the command line."""
    train(OPTIONS)
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.train", main)

"""Trains a network: `python -m torch_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("torch_impl.train") if __name__ == "__main__" else None

import time
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F

import torch_impl
from parity.spec import files, metrics, runs
from parity.spec.recipes import AUXILIARY_WEIGHT
from torch_impl import data, weights
from torch_impl.devices import select_device
from torch_impl.layers import seeded
from torch_impl.optim import create_optimizer, set_learning_rate


def average_map(logits):
    """Returns logits (N, num_classes), of a map (N, num_classes, H, W) its mean."""
    return logits.mean((2, 3)) if logits.ndim == 4 else logits


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits and labels (N,).

    A map of logits is averaged over its positions; one column of them is the logit of
    the second of two classes.
    """
    logits = average_map(logits)
    if logits.shape[1] == 1:
        target = labels.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits[:, 0], target)
    return F.cross_entropy(logits, labels)


def training_loss(outputs, labels):
    """Returns the cross-entropy, with that of auxiliary heads times their weight."""
    if not isinstance(outputs, tuple):
        return cross_entropy(outputs, labels)
    logits, *auxiliary = outputs
    added = sum(cross_entropy(head, labels) for head in auxiliary)
    return cross_entropy(logits, labels) + AUXILIARY_WEIGHT * added


def compute_gradients(model, images, labels):
    """Returns the loss and its gradient by each trainable parameter."""
    model.train()
    model.zero_grad()
    loss = training_loss(model(images), labels)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def make_train_step(model, optimizer):
    """Returns a function that makes one step and returns the loss."""

    def train_step(images, labels):
        loss, _ = compute_gradients(model, images, labels)
        optimizer.step()
        return loss

    return train_step


def make_predictor(model):
    """Returns a function from images (N, C, H, W) to logits (N, num_classes) as NumPy.

    Images are predicted in batches; a map of logits is averaged.
    """

    @torch.inference_mode()
    def predict(images):
        model.eval()
        batches = images.split(metrics.images_at_once(*images.shape[2:]))
        logits = [average_map(model(batch)).cpu().numpy() for batch in batches]
        return np.concatenate(logits)

    return predict


def predict_all(predict, pipeline):
    """Returns the logits (N, num_classes) of all of a pipeline's images, in order."""
    order = metrics.in_order(len(pipeline), *pipeline.size)
    return np.concatenate([predict(images) for images, _ in pipeline.batches(order)])


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes) and labels (N,)."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float(loss), metrics.accuracy(logits, labels)


def train(options: runs.Options) -> runs.Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
    """
    device = select_device(options.device)
    dataset = options.scaled(data.load(**options.data_arguments()))
    shape = options.shape(dataset)
    model = torch_impl.create_model(
        options.model, **shape.arguments(), seed=options.seed
    )
    if options.weights:
        tensors, _ = files.load_weights(options.weights)
        weights.load_state_dict(model, tensors, str(options.weights))
    model.to(device)
    optimizer = create_optimizer(
        options.optimizer,
        options.learning_rate,
        model.parameters(),
        **options.optimizer_arguments(),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    versions = {"torch": torch.__version__, "torchvision": version("torchvision")}
    run = runs.Run(options, "torch", versions)
    run.start(dataset, str(device), parameters)
    run.save_weights("initial", weights.state_dict(model), dataset)
    with seeded(options.seed):  # PyTorch draws dropout from one generator
        predictions = run_epochs(model, optimizer, dataset, run, device)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.pt", lambda path: torch.save(model.state_dict(), path))
    run.finish(dataset, predictions)
    return run


def run_epochs(model, optimizer, dataset, run, device):
    """Trains for the run's epochs; returns the predicted labels of the test images."""
    options = run.options
    settings = {
        "mean": dataset.mean,
        "std": dataset.std,
        "workers": options.workers,
        "device": device,
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
    cli.run("torch_impl.train", main)

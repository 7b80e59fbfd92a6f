"""Trains a network: `python -m torch_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("torch_impl.train") if __name__ == "__main__" else None

import time
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F

import torch_impl
from parity.spec import files, runs
from torch_impl import data, weights
from torch_impl.devices import select_device
from torch_impl.optim import create_optimizer

EVALUATION_BATCH = 1024


def cross_entropy(logits, labels):
    """Returns the mean cross-entropy of logits (N, num_classes) and labels (N,)."""
    return F.cross_entropy(logits, labels)


def compute_gradients(model, images, labels):
    """Returns the loss and its gradient by each trainable parameter."""
    model.train()
    model.zero_grad()
    loss = cross_entropy(model(images), labels)
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
    """Returns a function from images (N, C, H, W) to logits, in batches, as NumPy."""

    @torch.inference_mode()
    def predict(images):
        model.eval()
        batches = images.split(EVALUATION_BATCH)
        return np.concatenate([model(batch).cpu().numpy() for batch in batches])

    return predict


def measure(logits, labels):
    """Returns mean loss and accuracy of logits (N, num_classes)."""
    labels = labels.cpu()
    loss = cross_entropy(torch.from_numpy(logits), labels)
    return float(loss), float(np.mean(logits.argmax(1) == labels.numpy()))


def train(options: runs.Options) -> runs.Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
    """
    device = select_device(options.device)
    size = options.image_size
    dataset = data.load(options.dataset, options.data_dir, size, size)
    model = torch_impl.create_model(
        options.model,
        num_classes=len(dataset.classes),
        image_size=size,
        in_channels=dataset.train_images.shape[-1],
        seed=options.seed,
    )
    if options.weights:
        tensors, _ = files.load_weights(options.weights)
        weights.load_state_dict(model, tensors, str(options.weights))
    model.to(device)
    optimizer = create_optimizer(
        options.optimizer, options.learning_rate, model.parameters()
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    versions = {"torch": torch.__version__, "torchvision": version("torchvision")}
    run = runs.Run(options, "torch", versions)
    run.start(dataset, str(device), parameters)
    run.save_weights("initial", weights.state_dict(model), dataset)
    predictions = run_epochs(model, optimizer, dataset, run, device)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.pt", lambda path: torch.save(model.state_dict(), path))
    run.finish(dataset, predictions)
    return run


def run_epochs(model, optimizer, dataset, run, device):
    """Trains for the run's epochs; returns the predicted labels of the test images."""
    options = run.options
    normalisation = (dataset.mean, dataset.std)
    train_set = data.to_tensors(
        dataset.train_images, dataset.train_labels, *normalisation
    )
    test_set = data.to_tensors(dataset.test_images, dataset.test_labels, *normalisation)
    train_set = [tensor.to(device) for tensor in train_set]
    test_set = [tensor.to(device) for tensor in test_set]
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
    cli.run("torch_impl.train", main)

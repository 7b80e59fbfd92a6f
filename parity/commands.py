"""What `python -m parity` does, as functions."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import create_model as create_keras_model
from keras_impl import data as keras_data
from keras_impl import weights as keras_weights
from parity import probe
from parity.comparison import compare, compare_gradients
from parity.report import Report
from parity.spec import recipes, runs
from parity.training import LockstepReport, lockstep
from parity.weights import copy_weights, read_weights
from torch_impl import create_model as create_torch_model
from torch_impl import data as torch_data
from torch_impl import weights as torch_weights


def create_twins(
    name: str, shape: recipes.Shape, seed: int = 0, **architecture: object
) -> tuple[keras.Model, torch.nn.Module]:
    """Returns both sides' model with the same probe weights.

    Args:
        name: the model.
        shape: its input and output.
        seed: of the probe weights.
        architecture: further arguments of the model's class.
    """
    arguments = shape.arguments() | architecture
    keras_model = create_keras_model(name, **arguments)
    torch_model = create_torch_model(name, **arguments)
    shapes = torch_weights.named_weights(torch_model)
    shapes = {name: tuple(tensor.shape) for name, tensor in shapes.items()}
    tensors = probe.weights(shapes, seed)
    torch_weights.load_state_dict(torch_model, tensors, "the probe")
    copy_weights(torch_model, keras_model)
    return keras_model, torch_model


def compare_sides(
    name: str,
    shape: recipes.Shape,
    keras_file: Path | None = None,
    torch_file: Path | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
) -> tuple[Report, Report]:
    """Compares the outputs and the gradients of both sides of a model.

    Args:
        name: the model.
        shape: its input and output.
        keras_file: weights of the Keras side, in any format.
        torch_file: weights of the PyTorch side. Where one is given, both sides take
            it; where none is, both take the same probe weights.
        dtype: "float64" or "float32".
        device: "cpu" or "gpu".
    """
    keras_model, torch_model = create_twins(name, shape)
    for file, others in ((keras_file, torch_file), (torch_file, keras_file)):
        if file is None:
            continue
        tensors, _ = read_weights(name, file, shape)
        if file is keras_file or others is None:
            keras_weights.load_state_dict(keras_model, tensors, str(file))
        if file is torch_file or others is None:
            torch_weights.load_state_dict(torch_model, tensors, str(file))
    settings = {"dtype": dtype, "device": device}
    return (
        compare(keras_model, torch_model, **settings),
        compare_gradients(keras_model, torch_model, **settings),
    )


def train_sides(
    options: runs.Options,
    steps: int | None = None,
    *,
    dtype: str = "float64",
    device: str = "cpu",
) -> LockstepReport:
    """Trains both sides in lockstep from the weights of the PyTorch side's seed.

    Each side reads its own batches, except from image files and with augmentation:
    those pixels may differ by one grey level (`parity/test_images.py`), and then both
    sides take PyTorch's. Of image files at most 1,024 test images count.

    Args:
        options: of the training; its device and output are not used.
        steps: how many; None makes the options' epochs.
        dtype: "float64" or "float32".
        device: "cpu" or "gpu".
    """
    shared = bool(options.augment) or options.dataset == "folder"
    pipelines, tests = [], []
    for data in (torch_data,) if shared else (keras_data, torch_data):
        dataset = options.scaled(data.load(**options.data_arguments()))
        settings = {
            "mean": dataset.mean,
            "std": dataset.std,
            "workers": options.workers,
        }
        pipelines.append(
            data.Pipeline(
                dataset.train_images,
                dataset.train_labels,
                augment=options.augment,
                seed=options.seed,
                **settings,
            )
        )
        test = data.Pipeline(dataset.test_images, dataset.test_labels, **settings)
        count = min(len(test), 1024) if options.dataset == "folder" else len(test)
        tests.append(next(iter(test.batches([np.arange(count)]))))
    plan = _plan(options, len(pipelines[0]), steps)
    batches = [_Batches(pipeline, plan) for pipeline in pipelines]
    if shared:
        batches.insert(0, _Converted(batches[0]))
        tests.insert(0, _to_keras(*tests[0]))
    arguments = options.shape(dataset).arguments() | {"seed": options.seed}
    keras_model = create_keras_model(options.model, **arguments)
    torch_model = create_torch_model(options.model, **arguments)
    copy_weights(torch_model, keras_model)
    return lockstep(
        keras_model,
        torch_model,
        *batches,
        optimizer=options.optimizer,
        learning_rate=[options.epoch_learning_rate(epoch) for epoch, _ in plan],
        **options.optimizer_arguments(),
        dtype=dtype,
        device=device,
        keras_test=tests[0],
        torch_test=tests[1],
    )


Plan = list[tuple[int, np.ndarray]]


def _plan(options: runs.Options, size: int, steps: int | None) -> Plan:
    """Returns the epoch and the indices of each step."""
    epochs = itertools.count() if steps else range(options.epochs)
    every = (
        (epoch, indices)
        for epoch in epochs
        for indices in runs.batch_order(options, size, epoch)
    )
    return list(itertools.islice(every, steps))


@dataclass(frozen=True)
class _Batches:
    """A pipeline's batches of each step, as often as they are asked for."""

    pipeline: keras_data.Pipeline | torch_data.Pipeline
    plan: Plan

    def __iter__(self) -> Iterator:
        for epoch, steps in itertools.groupby(self.plan, lambda step: step[0]):
            order = [indices for _, indices in steps]
            yield from self.pipeline.batches(order, epoch)


@dataclass(frozen=True)
class _Converted:
    """PyTorch's batches as TensorFlow's tensors."""

    batches: Iterable

    def __iter__(self) -> Iterator:
        return itertools.starmap(_to_keras, iter(self.batches))


def _to_keras(images: torch.Tensor, labels: torch.Tensor) -> tuple:
    return tf.constant(np.moveaxis(images.numpy(), 1, 3)), tf.constant(labels.numpy())

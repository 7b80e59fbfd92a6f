"""What `python -m parity` does, as functions."""

import itertools
from pathlib import Path

from parity.frameworks import keras, torch
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

    Args:
        options: of the training; its device and output are not used.
        steps: how many; None makes the options' epochs.
        dtype: "float64" or "float32".
        device: "cpu" or "gpu".
    """
    size = options.image_size
    sets = []
    for data in (keras_data, torch_data):
        dataset = data.load(options.dataset, options.data_dir, size, size)
        statistics = (dataset.mean, dataset.std)
        train = (dataset.train_images, dataset.train_labels, *statistics)
        test = (dataset.test_images, dataset.test_labels, *statistics)
        sets.append((data.to_tensors(*train), data.to_tensors(*test)))
    (keras_train, keras_test), (torch_train, torch_test) = sets
    arguments = {
        "num_classes": len(dataset.classes),
        "image_size": size,
        "in_channels": dataset.train_images.shape[-1],
        "seed": options.seed,
    }
    keras_model = create_keras_model(options.model, **arguments)
    torch_model = create_torch_model(options.model, **arguments)
    copy_weights(torch_model, keras_model)
    epochs = itertools.count() if steps else range(options.epochs)
    order = itertools.chain.from_iterable(
        runs.batch_order(options, len(keras_train[0]), epoch) for epoch in epochs
    )
    order = list(itertools.islice(order, steps))
    return lockstep(
        keras_model,
        torch_model,
        keras_data.batches(*keras_train, order),
        torch_data.batches(*torch_train, order),
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        dtype=dtype,
        device=device,
        keras_test=keras_test,
        torch_test=torch_test,
    )

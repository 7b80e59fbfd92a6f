"""Trains a network: `python -m keras_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("keras_impl.train") if __name__ == "__main__" else None

import contextlib
import math
from dataclasses import replace
from importlib.metadata import version

import keras

import keras_impl
from keras_impl import data, weights
from keras_impl.devices import allow_tf32, select_device
from keras_impl.optim import create_optimizer
from keras_impl.steps import make_loss_scaler
from parity.spec import checkpoints, devices, loop, runs, trials
from parity.spec.errors import OUT_OF_MEMORY, Failure
from parity.spec.run_folder import Run

if keras.backend.backend() == "tensorflow":
    from keras_impl.processes import join
    from keras_impl.trainer import Trainer
else:
    from keras_impl.other_backends import Trainer, join


def train(options: runs.Options) -> Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
        Failure: the training was stopped, or its loss is not finite.
    """
    with join(options) as group:
        try:
            return train_in_group(options, group)
        except Exception as error:
            if type(error).__name__ != "ResourceExhaustedError":  # TensorFlow's
                raise
            raise Failure(OUT_OF_MEMORY) from None


def train_in_group(options, group):
    """Trains in a group of processes, each of which does the same."""
    if group.rank:
        options = replace(options, quiet=True)
    device = select_device(
        group.device(options.device),
        tf32=options.precision == "tf32",
        deterministic=options.deterministic,
    )
    kind = "gpu" if "GPU" in device else "cpu"
    devices.check_precision(options.precision, kind)
    with group.in_turn():
        dataset = options.scaled(data.load(**options.data_arguments()))
    backend = keras.backend.backend()
    versions = {"keras": keras.__version__, backend: version(backend)}
    with group.scope(device):
        if options.fast and not options.resume:
            place = (create_trainer, device, group)
            options = trials.fastest(options, dataset, kind, *place)
        trainer = create_trainer(options, dataset, device, group)
        model = trainer.model
        run = Run(
            options,
            "keras",
            versions,
            writes=group.rank == 0,
            event_writer=event_writer,
        )
        group.share(run.folder)
        parameters = sum(math.prod(x.shape) for x in model.trainable_variables)
        run.start(dataset, device, parameters, group.size)
        if not (run.folder / "initial.safetensors").exists():
            run.save_weights("initial", weights.state_dict(model), dataset)
        predictions = loop.train(trainer, run, dataset)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.keras", model.save)
    run.finish(dataset, predictions)
    return run


def create_trainer(options, dataset, device, group):
    """Returns the trainer of a run, at its beginning."""
    allow_tf32(options.precision == "tf32")
    arguments = options.shape(dataset).arguments() | {"seed": options.seed}
    tensors = None
    if options.weights:
        tensors = checkpoints.load_weights(options.weights)
    elif options.precision == "float64":  # draws other numbers from the same seed
        model = keras_impl.create_model(options.model, **arguments)
        tensors = weights.state_dict(model)
    with precision_policy(options.precision):
        model = keras_impl.create_model(options.model, **arguments)
        if tensors:
            weights.load_state_dict(model, tensors, str(options.weights))
        model = group.prepare(model, options.sync_bn)
        optimizer = create_optimizer(
            options.optimizer, options.learning_rate, **options.optimizer_arguments()
        )
        optimizer = make_loss_scaler(optimizer, options.precision)
        return Trainer(model, optimizer, dataset, options, device, group)


@contextlib.contextmanager
def precision_policy(precision):
    """Makes the layers and optimizers made inside compute in a precision."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        if precision == "float64":
            keras.config.set_floatx(precision)
        short = precision in ("bfloat16", "float16")
        name = f"mixed_{precision}" if short else keras.config.floatx()
        keras.config.set_dtype_policy(name)
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def event_writer(folder, first_epoch):
    """Returns what writes a run's epochs for TensorBoard."""
    from keras_impl.records import EventWriter

    return EventWriter(folder, first_epoch)


def main() -> int:
    """Trains with the options of the command line."""
    train(OPTIONS)
    return 0


if __name__ == "__main__":
    cli.run("keras_impl.train", main)

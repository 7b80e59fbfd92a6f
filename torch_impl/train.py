"""Trains a network: `python -m torch_impl.train lenet5`."""

from parity.spec import cli

OPTIONS = cli.parse_train("torch_impl.train") if __name__ == "__main__" else None

from dataclasses import replace
from importlib.metadata import version

import torch

import torch_impl
from parity.spec import checkpoints, devices, loop, runs, trials
from parity.spec.errors import OUT_OF_MEMORY, Failure, UsageError
from parity.spec.run_folder import Run
from torch_impl import data, weights
from torch_impl.devices import allow_tf32, select_device
from torch_impl.layers import seeded
from torch_impl.optim import create_optimizer
from torch_impl.processes import join
from torch_impl.trainer import Trainer


def train(options: runs.Options) -> Run:
    """Trains a model and returns its run folder; prints as it goes.

    Raises:
        UsageError: data, weights, device or folder that are not there or do not fit.
        Failure: the training was stopped, or its loss is not finite.
    """
    with join(options) as group:
        try:
            return train_in_group(options, group)
        except torch.OutOfMemoryError:
            raise Failure(OUT_OF_MEMORY) from None
        except RuntimeError as error:
            if "does not have a deterministic implementation" not in str(error):
                raise
            what = str(error).partition(" does not")[0]
            raise UsageError(
                f"--deterministic: PyTorch has no {what} that is"
            ) from None


def train_in_group(options, group):
    """Trains in a group of processes, each of which does the same."""
    if group.rank:
        options = replace(options, quiet=True)
    device = select_device(
        group.device(options.device),
        tf32=options.precision == "tf32",
        deterministic=options.deterministic,
    )
    kind = "cpu" if device.type == "cpu" else "gpu"
    devices.check_precision(options.precision, kind)
    with group.in_turn():
        dataset = options.scaled(data.load(**options.data_arguments()))
    versions = {"torch": torch.__version__, "torchvision": version("torchvision")}
    if options.fast and not options.resume:
        options = trials.fastest(options, dataset, kind, create_trainer, device, group)
    # PyTorch draws dropout from one generator, each process its own.
    with seeded(options.seed + group.rank):
        trainer = create_trainer(options, dataset, device, group)
        model = trainer.model
        run = Run(
            options,
            "torch",
            versions,
            writes=group.rank == 0,
            event_writer=event_writer,
        )
        group.share(run.folder)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        run.start(dataset, str(device), parameters, group.size)
        if not (run.folder / "initial.safetensors").exists():
            run.save_weights("initial", weights.state_dict(model), dataset)
        predictions = loop.train(trainer, run, dataset)
    run.save_weights("final", weights.state_dict(model), dataset)
    run.save("model.pt", lambda path: torch.save(model.state_dict(), path))
    run.finish(dataset, predictions)
    return run


def create_trainer(options, dataset, device, group):
    """Returns the trainer of a run, at its beginning."""
    allow_tf32(options.precision == "tf32")
    model = torch_impl.create_model(
        options.model, **options.shape(dataset).arguments(), seed=options.seed
    )
    if options.weights:
        tensors = checkpoints.load_weights(options.weights)
        weights.load_state_dict(model, tensors, str(options.weights))
    model.to(device, torch.float64 if options.precision == "float64" else None)
    model = group.prepare(model, options.sync_bn)
    optimizer = create_optimizer(
        options.optimizer,
        options.learning_rate,
        model.parameters(),
        **options.optimizer_arguments(),
    )
    return Trainer(model, optimizer, dataset, options, device, group)


def event_writer(folder, first_epoch):
    """Returns what writes a run's epochs for TensorBoard."""
    from torch_impl.records import EventWriter

    return EventWriter(folder, first_epoch)


def main() -> int:
    """Trains with the options of the command line."""
    train(OPTIONS)
    return 0


if __name__ == "__main__":
    cli.run("torch_impl.train", main)

"""What a training is asked to do, and what is needed to use what it made."""

import json
import os
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import UnionType

import numpy as np

from parity.spec import (
    augmentation,
    checkpoints,
    datasets,
    devices,
    files,
    metrics,
    recipes,
)
from parity.spec.datasets import Dataset
from parity.spec.errors import UsageError, unknown

LAST_CHECKPOINT = Path("checkpoints", "last.safetensors")


@dataclass(frozen=True)
class Options:
    """What a training is asked to do; the fields are the command line's flags."""

    model: str
    recipe: str
    dataset: str
    data_dir: Path
    image_size: int
    epochs: int
    batch_size: int | str
    drop_last: bool
    optimizer: str
    learning_rate: float
    scheduler: str
    augment: tuple[str, ...]
    normalise: bool
    weight_decay: float = 0.0
    clip_norm: float | None = None
    metrics: tuple[str, ...] = ("top1",)
    label_names: str | None = None
    strict_data: bool = False
    workers: int = 0
    seed: int = 0
    weights: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False
    fast: bool = False
    deterministic: bool = False
    sync_bn: bool = False
    checkpoint_every: int | None = None
    tensorboard: bool = False
    output: Path | None = None
    resume: Path | None = None
    quiet: bool = False

    def data_arguments(self) -> dict[str, object]:
        """Returns the arguments with which either side loads the data set."""
        num_outputs = recipes.find(self.model).num_classes
        return {
            "name": self.dataset,
            "data_dir": self.data_dir,
            "height": self.image_size,
            "width": self.image_size,
            "only_labels": only_labels(self.dataset, num_outputs),
            "label_names": self.label_names,
            "strict": self.strict_data,
        }

    def optimizer_arguments(self) -> dict[str, object]:
        """Returns the arguments of `create_optimizer` apart from name and rate."""
        return {"weight_decay": self.weight_decay, "clip_norm": self.clip_norm}

    def scaled(self, dataset: Dataset) -> Dataset:
        """Returns a data set with the mean and deviation to normalise it by."""
        if self.normalise:
            return dataset
        channels = dataset.train_images.shape[-1]
        return replace(dataset, mean=(0.0,) * channels, std=(1.0,) * channels)

    def shape(self, dataset: Dataset) -> recipes.Shape:
        """Returns the shape of the model for a data set."""
        recipe = recipes.find(self.model)
        num_outputs = recipes.num_outputs(recipe, len(dataset.classes))
        return recipes.Shape(*dataset.train_images.shape[1:], num_classes=num_outputs)

    def epoch_learning_rate(self, epoch: int, losses: Sequence[float] = ()) -> float:
        """Returns the learning rate of an epoch, counted from 0.

        Args:
            epoch: from 0.
            losses: the training loss of each epoch before, which "plateau" follows.
        """
        return recipes.learning_rate(
            self.scheduler, self.learning_rate, epoch, self.epochs, losses
        )


def only_labels(dataset: str, num_outputs: int) -> tuple[int, int] | None:
    """Returns the labels that a network tells apart; None for all.

    One logit tells zeros from ones, or a catalogue set's first two classes. An image
    folder is to have two.
    """
    return (0, 1) if num_outputs == 1 and dataset != "folder" else None


def check_folder_flags(dataset: str, label_names: str | None, strict: bool) -> None:
    """Raises UsageError for flags of image folders with another data set."""
    if dataset != "folder" and (label_names or strict):
        flag = "--label-names" if label_names else "--strict-data"
        raise UsageError(f"{flag} goes with --dataset folder, not {dataset}")


def batch_order(options: Options, size: int, epoch: int) -> list[np.ndarray]:
    """Returns the indices of each batch of one epoch (from 0) over `size` images.

    A last batch of a single image joins the one before it: of one pixel there is no
    variance, and batch normalisation after the last pooling may see no more.

    Raises:
        UsageError: the only batch is not full and is to be dropped.
    """
    batch_size = size if options.batch_size == "full" else options.batch_size
    order = datasets.epoch_batches(
        size,
        batch_size,
        drop_last=options.drop_last,
        seed=options.seed,
        epoch=epoch,
    )
    if not (order := list(order)):
        raise UsageError(
            f"{size} training images do not fill a batch of {batch_size}, and recipe "
            f"{options.recipe} drops a last one: --batch-size {size} would do"
        )
    if len(order) > 1 and len(order[-1]) == 1 < len(order[-2]):
        order[-2:] = [np.concatenate(order[-2:])]
    return order


def check_parts(
    options: Options, dataset: Dataset, processes: int, normalises_batches: bool
) -> None:
    """Raises UsageError where a batch does not go round the processes.

    Of one image in a process batch normalisation has no variance, unless it is that of
    all processes.
    """
    if processes == 1:
        return
    two = normalises_batches and not options.sync_bn
    order = batch_order(options, len(dataset.train_images), 0)
    for name, count, each in (
        ("a batch", min(map(len, order)), 1 + two),
        ("the test part", len(dataset.test_images), 1),
    ):
        if count < each * processes:
            share = "two images each, to normalise" if each == 2 else "an image each"
            raise UsageError(
                f"{processes} processes want {share}, and {name} is of {count}; fewer "
                "processes or another --batch-size would do"
            )


def options(model: str, recipe: str | None = None, **changes: object) -> Options:
    """Returns the options of a model's training, with changes; None changes nothing.

    Args:
        model: a model's name.
        recipe: a training's name; None takes the model's.
        changes: fields of Options.

    Raises:
        UsageError: there is no such model or training, or the image size does not suit
            the model.
    """
    network = recipes.find(model)
    name = recipe or network.training
    training = recipes.training(name)
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("fast") and (given.get("precision") or given.get("compile")):
        flag = "--precision" if given.get("precision") else "--compile"
        raise UsageError(f"--fast chooses the precision and compilation; leave {flag}")
    defaults = {
        "dataset": training.dataset,
        "data_dir": Path("data"),
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "drop_last": training.drop_last,
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "scheduler": training.scheduler,
        "augment": training.augment,
        "normalise": training.normalise,
    }
    values = defaults | given
    constants = recipes.optimizer_settings(values["optimizer"])
    values = {
        "image_size": _image_size(network, values["dataset"]),
        "weight_decay": constants.get("weight_decay", 0.0),
    } | values
    result = Options(model, name, **values)
    check_folder_flags(result.dataset, result.label_names, result.strict_data)
    recipes.shape(network, image_size=result.image_size)
    return result


def folder_of(resume: Path) -> Path:
    """Returns the run folder of what --resume names: it or a checkpoint in it."""
    resume = Path(resume)
    if resume.suffix == ".safetensors":
        return Path(os.path.abspath(resume)).parent.parent
    if resume.is_file():
        raise UsageError(
            f"{resume} is neither a run folder nor a checkpoint in one, "
            f"DIR/{LAST_CHECKPOINT}"
        )
    return resume


def checkpoint_of(resume: Path) -> Path | None:
    """Returns the checkpoint to go on from; None where a run has none yet.

    Raises:
        UsageError: there was one.
    """
    resume = Path(resume)
    if resume.suffix == ".safetensors":
        return resume
    last = resume / LAST_CHECKPOINT
    if last.exists():
        return last
    for name in ("previous", "best"):
        if (other := last.with_stem(name)).exists():
            raise UsageError(f"{last} is not there; --resume {other} would do")
    if (resume / "metrics.jsonl").exists():
        raise UsageError(
            f"{resume} has no checkpoint to go on from; {resume}/final.safetensors, "
            "if it is there, starts another run with --weights"
        )
    return None


def read_arguments(folder: Path) -> dict[str, object]:
    """Returns what args.json of a run folder says, or else its last checkpoint.

    Raises:
        UsageError: neither is there, or args.json is not whole.
    """
    path, last = Path(folder) / "args.json", Path(folder) / LAST_CHECKPOINT
    if last.exists() and not path.exists():
        return checkpoints.load(last)[2]
    try:
        arguments = json.loads(path.read_text("utf-8"))
        if not isinstance(arguments, dict):
            raise ValueError("not an object")
        return arguments
    except OSError as error:
        raise UsageError(f"{folder} holds no run: {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        hint = "; without it the checkpoint's would do" if last.exists() else ""
        raise UsageError(f"{path} is damaged: {error}{hint}") from None


# What may be another when a run goes on; all else is part of what it computes.
CHANGEABLE = ("epochs", "data_dir", "workers", "device", "checkpoint_every", "quiet")
FIXED = tuple(
    name
    for name in Options.__dataclass_fields__
    if name not in (*CHANGEABLE, "weights", "tensorboard", "output", "resume")
)


def resumed(path: Path, model: str | None = None, **changes: object) -> Options:
    """Returns the options of a run to go on with; None changes nothing.

    Args:
        path: the run folder, or a checkpoint in it.
        model: the run's model or None.
        changes: fields of Options, of those in CHANGEABLE.

    Raises:
        UsageError: there is no such run, it is damaged, or a change is not possible.
    """
    folder = folder_of(path)
    arguments = read_arguments(folder)
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        known = {name: arguments[name] for name in Options.__dataclass_fields__}
    except KeyError as error:
        raise UsageError(f"{folder / 'args.json'} does not say {error}") from None
    if model not in (None, known["model"]):
        raise UsageError(f"{folder} is a run of {known['model']}, not {model}")
    for name in given:
        if name not in CHANGEABLE:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} cannot be another when a run goes on; these can: "
                + ", ".join("--" + name.replace("_", "-") for name in CHANGEABLE)
            )
    known = {name: _value(name, value, folder) for name, value in known.items()}
    _check_names(known, folder)
    if known["weights"] and not known["weights"].exists():
        known["weights"] = folder / "initial.safetensors"  # the same numbers
    return Options(**known | given | {"resume": Path(path)})


def _value(name: str, value: object, folder: Path) -> object:
    """Returns an option's value out of what args.json says.

    Raises:
        UsageError: it is not of the option's type, or no number for it.
    """
    kinds = typing.get_type_hints(Options)[name]
    kinds = typing.get_args(kinds) if isinstance(kinds, UnionType) else (kinds,)
    least = 0 if name in ("seed", "workers", "weight_decay") else 1
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            if isinstance(value, list) and all(isinstance(x, str) for x in value):
                return tuple(value)
        elif kind is Path:
            if isinstance(value, str):
                return Path(value)
        elif kind is int:
            if type(value) is int and least <= value < 2**63:
                return value
        elif kind is float:
            if type(value) in (int, float) and (value > 0 or value == least == 0):
                return value
        elif type(value) is kind:
            return value
    raise UsageError(f"{folder / 'args.json'} is damaged: {name} is {value!r}")


def _check_names(known: dict[str, object], folder: Path) -> None:
    """Raises UsageError where args.json names what there is not."""
    try:
        recipes.find(known["model"])
        recipes.training(known["recipe"])
        recipes.optimizer_settings(known["optimizer"])
        devices.parse(known["device"])
        for kind, choices in (
            ("dataset", datasets.NAMES),
            ("scheduler", recipes.SCHEDULERS),
            ("precision", devices.PRECISIONS),
            ("augment", augmentation.NAMES),
            ("metrics", metrics.METRICS),
        ):
            names = known[kind] if isinstance(known[kind], tuple) else (known[kind],)
            for name in names:
                if name not in choices:
                    raise unknown(kind, name, choices)
        if isinstance(known["batch_size"], str) and known["batch_size"] != "full":
            raise unknown("batch size", known["batch_size"], ("full",))
    except UsageError as error:
        raise UsageError(f"{folder / 'args.json'} is damaged: {error}") from None


def _image_size(network: recipes.Recipe, dataset: str) -> int:
    """Returns the size to train at: the network's, where the images are as large.

    The catalogue's images are small: they are not shrunk, and not enlarged beyond 64.
    """
    if dataset not in datasets.CATALOGUE:
        return network.image_size
    original = datasets.CATALOGUE[dataset].image_shape[0]
    return max(min(network.image_size, 64), original)


def describe(
    model: str, shape: recipes.Shape, dataset: Dataset | None
) -> dict[str, str]:
    """Returns a weights file's metadata, each value as JSON."""
    facts = {"model": model} | asdict(shape)
    if dataset is not None:
        facts |= {
            "dataset": dataset.name,
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
        }
    return {name: json.dumps(value) for name, value in facts.items()}


def _describe_checkpoint(arguments: dict[str, object]) -> dict[str, str]:
    """Returns the metadata of a weights file out of a checkpoint's arguments."""
    recipe, size = recipes.find(arguments["model"]), arguments["image_size"]
    outputs = recipes.num_outputs(recipe, len(arguments["classes"]))
    facts = {name: arguments[name] for name in ("model", "dataset", "classes")}
    facts |= {name: arguments[name] for name in ("mean", "std")}
    facts |= asdict(recipes.Shape(size, size, len(arguments["mean"]), outputs))
    return {name: json.dumps(value) for name, value in facts.items()}


@dataclass(frozen=True)
class Trained:
    """Trained weights in the common form, and what is needed to use them."""

    path: Path
    tensors: dict[str, np.ndarray]
    model: str
    shape: recipes.Shape
    dataset: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def only_labels(self) -> tuple[int, int] | None:
        """The labels of a data set that the network tells apart; None for all."""
        return only_labels(self.dataset, self.shape.num_classes)

    def check(self, dataset: Dataset) -> None:
        """Raises UsageError when a data set's classes or channels are others."""
        channels = dataset.train_images.shape[-1]
        if channels != self.shape.in_channels:
            raise UsageError(
                f"{self.path} takes images of {self.shape.in_channels} channels; "
                f"{dataset.name} has {channels}"
            )
        if list(dataset.classes) != list(self.classes):
            ours, theirs = (
                ", ".join(classes[:10]) for classes in (self.classes, dataset.classes)
            )
            raise UsageError(
                f"{self.path} tells the classes {ours} apart; {dataset.name} has "
                f"{theirs}; are --label-names those of the training?"
            )


def find_trained(path: Path) -> Trained:
    """Returns the final weights of a run folder, or those of a file in it.

    Raises:
        UsageError: there is no such run or file, or it does not say its model.
    """
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / "final.safetensors"
        best = folder / "checkpoints" / "best.safetensors"
        if best.exists() and not path.exists():
            raise UsageError(
                f"{folder} is not finished; to train with --resume {folder} would do, "
                f"or to give its best checkpoint, {best}"
            )
    tensors, metadata = files.load_weights(path)
    try:
        if "format" in metadata:
            state, _, arguments = checkpoints.load(path)
            tensors = checkpoints.part(state, "model")
            metadata = _describe_checkpoint(arguments)
        facts = {name: json.loads(value) for name, value in metadata.items()}
        shape = recipes.Shape(
            *(facts[name] for name in recipes.Shape.__dataclass_fields__)
        )
        rest = (facts[name] for name in ("dataset", "classes", "mean", "std"))
        return Trained(path, tensors, facts["model"], shape, *rest)
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} does not say how it was trained ({error}); "
            "give a run folder or the weights file of one"
        ) from None

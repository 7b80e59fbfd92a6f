"""Speed of training: `python benchmarks/train.py [--models NAMES] [--rounds N]`.

Each side's own steps (those of `python -m keras_impl.train` and `torch_impl.train`)
beside others of the same network in the same process and the same round:

limit    the same step on one batch that stays where it is
plain    a loop by hand, over normalised images in memory
fit      keras.Model.fit, without XLA, which is slower on a CPU
lecture  torchvision's network, if it has it, and a DataLoader that turns one image
         after the other into a tensor and normalises it

A ratio is the median over the rounds, with the least and the greatest. The time to the
first step and the peak of memory are those of the whole program, in a process of its
own. On a busy machine `--clock cpu --threads 1` gives steady ratios.
"""

import argparse
import contextlib
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import common

from parity.spec import cli, datasets, devices, runs

# Image size, channels, images per batch and batches per round.
SETTINGS = {
    "lenet5": (28, 1, 128, 24),
    "cnn_two_layer": (28, 1, 128, 8),
    "resnet18": (64, 3, 32, 4),
    "vgg16": (64, 3, 32, 2),
    "googlenet": (64, 3, 32, 4),
}
# Beside float32, where no --precision names another.
ALSO = {"resnet18": "bfloat16"}
SIDES = ("keras", "torch")
LEARNING_RATE = 1e-3
CHILD_STEPS = 4


def options_of(name: str, arguments: argparse.Namespace, **changes) -> runs.Options:
    """Returns the options of a network's training here."""
    size, _, batch_size, _ = SETTINGS[name]
    return runs.options(
        name,
        dataset="digits",
        image_size=size,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=LEARNING_RATE,
        augment=(),
        epochs=1,
        device=arguments.device,
        quiet=True,
        **changes,
    )


def make_trainer(side: str, options: runs.Options, dataset: datasets.Dataset):
    """Returns one side's trainer, as its program makes it."""
    if side == "keras":
        from keras_impl import devices as side_devices
        from keras_impl import processes, train
    else:
        from torch_impl import devices as side_devices
        from torch_impl import processes, train
    group = processes.Group()
    device = side_devices.select_device(
        options.device, deterministic=options.deterministic
    )
    return train.create_trainer(options, dataset, device, group)


def engine_loops(side, trainer, order) -> dict[str, Callable[[], None]]:
    """Returns an epoch of one side's steps, and as many on one batch."""
    resident = next(trainer.train_set.batches(order[:1]))

    def engine() -> None:
        trainer.to_host(list(trainer.steps(order, 0)))

    def limit() -> None:
        trainer.to_host([trainer.train_step(*resident) for _ in order])

    return {f"{side} engine": engine, f"{side} limit": limit}


def keras_loops(options, dataset, order) -> dict[str, Callable[[], None]]:
    """Returns an epoch of a loop by hand, and of fit."""
    from parity.frameworks import keras, tf
    from keras_impl import create_model
    from parity.spec.recipes import AUXILIARY_WEIGHT

    pixels = datasets.normalise(dataset.train_images, dataset.mean, dataset.std)
    images, labels = tf.constant(pixels), tf.constant(dataset.train_labels)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def make_model():
        return create_model(options.model, **options.shape(dataset).arguments())

    model, optimizer = make_model(), keras.optimizers.Adam(LEARNING_RATE)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            heads = outputs if isinstance(outputs, tuple) else (outputs,)
            losses = [criterion(targets, logits) for logits in heads]
            loss = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return loss

    def plain() -> None:
        losses = [
            step(tf.gather(images, indices), tf.gather(labels, indices))
            for indices in order
        ]
        float(tf.reduce_mean(losses))

    loops = {"keras plain": plain}
    fitted = make_model()
    heads = fitted(images[:1], training=True)
    # Model.fit wants as many labels as there are outputs, in training and out of it.
    if not isinstance(heads, tuple):
        fitted.compile(
            keras.optimizers.Adam(LEARNING_RATE), criterion, jit_compile=False
        )
        count = sum(map(len, order))
        own = images[:count], labels[:count]

        def fit() -> None:
            fitted.fit(*own, batch_size=options.batch_size, verbose=0)

        loops["keras fit"] = fit
    return loops


def torch_loops(options, dataset, order) -> dict[str, Callable[[], None]]:
    """Returns an epoch of a loop by hand, and of the lecture's."""
    from parity.frameworks import torch
    from parity.spec.recipes import AUXILIARY_WEIGHT
    from torch_impl import create_model

    pixels = datasets.normalise(dataset.train_images, dataset.mean, dataset.std)
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(dataset.train_labels)
    criterion = torch.nn.CrossEntropyLoss()

    def make_step(model):
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

        def step(inputs, targets):
            optimizer.zero_grad()
            outputs = model(inputs)
            heads = outputs if isinstance(outputs, tuple) else (outputs,)
            losses = [criterion(logits, targets) for logits in heads]
            loss = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:])
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def make_model():
        return create_model(options.model, **options.shape(dataset).arguments())

    plain_step = make_step(make_model())
    lecture_step = make_step(torchvision_model(options.model) or make_model())
    loader = lecture_loader(dataset, sum(map(len, order)), options.batch_size)

    def plain() -> None:
        for indices in order:
            indices = torch.from_numpy(indices)
            plain_step(images[indices], labels[indices])

    def lecture() -> None:
        for inputs, targets in loader:
            lecture_step(inputs, targets)

    return {"torch plain": plain, "torch lecture": lecture}


def torchvision_model(name: str):
    """Returns torchvision's network of that name, of ten classes; None if none is."""
    from parity.frameworks import torchvision

    if name == "googlenet":  # with batch normalisation, and 3x3 for the table's 5x5
        return torchvision.models.googlenet(
            num_classes=common.CLASSES, aux_logits=True, init_weights=False
        )
    if name not in torchvision.models.list_models():
        return None
    return torchvision.models.get_model(name, num_classes=common.CLASSES)


def lecture_loader(dataset: datasets.Dataset, count: int, batch_size: int):
    """Returns a loader that decodes, converts and normalises image by image."""
    from torchvision import transforms

    from parity.frameworks import torch

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple:
            picture = transforms.functional.to_pil_image(dataset.train_images[index])
            return transform(picture), int(dataset.train_labels[index])

    return torch.utils.data.DataLoader(Images(), batch_size=batch_size, shuffle=True)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Returns images per second, ratios, and what its processes say."""
    importlib.import_module("parity.frameworks")  # before one of them alone
    size, channels, batch_size, steps = SETTINGS[name]
    count = batch_size * steps
    dataset = common.made_up(common.random_images(count, size, channels))
    options = options_of(name, arguments)
    order = runs.batch_order(options, count, 0)
    also = arguments.precision or ALSO.get(name)
    also = None if also == "float32" else also
    loops = {}
    for side in SIDES:
        trainer = make_trainer(side, options, dataset)
        loops |= engine_loops(side, trainer, order)
        if also:
            trainer = make_trainer(side, replace(options, precision=also), dataset)
            other = engine_loops(side, trainer, order)
            loops[f"{side} {also}"] = other[f"{side} engine"]
    loops |= keras_loops(options, dataset, order)
    loops |= torch_loops(options, dataset, order)
    times = common.time_rounds(loops, arguments.rounds, arguments.clock)
    engines = {side: times[f"{side} engine"] for side in SIDES}
    speeds = {
        loop: {
            "images_per_second": count / statistics.median(values),
            "to_limit": common.ratio(values, times[f"{loop.split()[0]} limit"]),
            "engine": common.ratio(engines[loop.split()[0]], values),
        }
        for loop, values in times.items()
    }
    return {"loops": speeds, "programs": measure_programs(name, arguments)}


def measure_programs(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Returns first step and memory of each side's program, in its own process."""
    kinds = {"": ()} | (
        {"deterministic": ("--deterministic",)} if arguments.deterministic else {}
    )
    found = {}
    for side in SIDES:
        for kind, flags in kinds.items():
            given = ("--models", name, "--device", arguments.device, *flags)
            results = [
                common.run_child(__file__, side, *given)
                for _ in range(arguments.processes)
            ]
            found[f"{side} {kind}".strip()] = {
                key: statistics.median(result[key] for result in results)
                for key in (results[0] if results else ())
            }
    return found


def child(side: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns what the first steps of one side's program take, from its start on."""
    for framework in {
        "keras": ("tensorflow", "keras"),
        "torch": ("torch", "torchvision"),
    }[side]:
        importlib.import_module(framework)
    imported, processor = time.time(), time.process_time()
    program = importlib.import_module(f"{side}_impl.train")
    Trainer = program.Trainer
    stamps = []
    steps = Trainer.steps

    class Enough(Exception):
        """Ends the program."""

    def stamped(self, order, epoch):
        done = 0
        for losses in steps(self, order, epoch):
            done += len(self.to_host([losses]))
            stamps.append((time.time(), time.process_time(), done))
            yield losses
            if done > CHILD_STEPS:
                raise Enough

    Trainer.steps = stamped
    (name,) = arguments.models
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(
            name,
            arguments,
            output=Path(folder) / "run",
            precision=arguments.precision or "float32",
            deterministic=arguments.deterministic,
        )
        with contextlib.suppress(Enough):
            program.train(options)
    (first, computed, before), *_, (last, _, done) = stamps
    return {
        "first_step": first - arguments.started,
        "after_import": first - imported,
        "processor_after_import": computed - processor,
        "step": (last - first) / (done - before),
        "peak_mib": common.mebibytes("VmHWM"),
    }


def show(name: str, result: dict[str, object]) -> str:
    """Returns a network's tables."""
    rows = [
        (
            loop,
            f"{values['images_per_second']:.0f}",
            common.show_ratio(values["to_limit"]),
            common.show_ratio(values["engine"]),
        )
        for loop, values in sorted(result["loops"].items())
    ]
    header = (
        name,
        "images/s",
        "to its side's limit",
        "engine is so many times as fast",
    )
    text = common.show_table(header, rows)
    programs = [
        (
            program,
            f"{values['first_step']:.1f}",
            f"{values['after_import']:.1f}",
            f"{values['processor_after_import']:.1f}",
            f"{values['step'] * 1e3:.0f}",
            f"{values['peak_mib']:.0f}",
        )
        for program, values in result["programs"].items()
        if values
    ]
    if programs:
        header = (name, "first step, s", "after the import", "of the CPU")
        header += ("step, ms", "peak, MiB")
        text += "\n\n" + common.show_table(header, programs)
    return text


def draw(results: dict[str, dict], path: Path) -> None:
    """Draws each loop's speed as a part of its side's limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axes, side in zip(figure.subplots(2, 1), SIDES, strict=True):
        kinds = dict.fromkeys(
            loop.split()[1]
            for result in results.values()
            for loop in result["loops"]
            if loop.startswith(side) and not loop.endswith("limit")
        )
        width = 0.8 / len(kinds)
        for place, kind in enumerate(kinds):
            for at, result in enumerate(results.values()):
                if not (found := result["loops"].get(f"{side} {kind}")):
                    continue
                value = found["to_limit"]
                middle = value["median"]
                axes.bar(
                    at + (place - (len(kinds) - 1) / 2) * width,
                    middle,
                    width * 0.92,
                    yerr=[[middle - value["min"]], [value["max"] - middle]],
                    color=f"C{place}",
                    label=None,
                    error_kw={"elinewidth": 0.8, "capsize": 2},
                )
            axes.bar(0, 0, color=f"C{place}", label=kind)
        axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(results)), results)
        axes.set_ylabel("speed / limit")
        axes.set_title({"keras": "Keras", "torch": "PyTorch"}[side])
        axes.legend(ncols=len(kinds), fontsize="small", loc="upper right")
        axes.margins(y=0.2)
    figure.savefig(path, dpi=120)


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Returns the arguments of the command line."""
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    flags.add_argument(
        "--models",
        type=lambda text: text.split(","),
        default=list(SETTINGS),
        metavar="NAMES",
        help=f"some of {','.join(SETTINGS)} (default: all)",
    )
    flags.add_argument("--rounds", type=cli.positive, default=7, metavar="N")
    flags.add_argument(
        "--processes",
        type=cli.natural,
        default=3,
        metavar="N",
        help="of each program, for its first step and memory (default: 3)",
    )
    flags.add_argument("--json", type=Path, metavar="FILE")
    flags.add_argument("--chart", type=Path, metavar="FILE.png")
    flags.add_argument("--device", default="cpu")
    flags.add_argument(
        "--precision",
        choices=devices.PRECISIONS,
        help="beside float32 (default: bfloat16 for resnet18)",
    )
    flags.add_argument(
        "--deterministic", action="store_true", help="what --deterministic costs"
    )
    flags.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    flags.add_argument("--threads", type=cli.positive, metavar="N")
    flags.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    flags.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = flags.parse_args(given)
    for name in arguments.models:
        if name not in SETTINGS:
            flags.error(f"unknown model {name!r}; choose from {', '.join(SETTINGS)}")
    return arguments


def main() -> None:
    """Prints each network's tables; writes JSON and a chart if asked to."""
    arguments = parse()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments)))
        return
    common.use_processors(arguments.threads)
    found = common.environment()
    found |= {"rounds": arguments.rounds, "clock": arguments.clock}
    print(common.show_environment(found))
    results = {}
    for name in arguments.models:
        results[name] = measure(name, arguments)
        print(f"\n{show(name, results[name])}", flush=True)
    if arguments.json:
        report = {"environment": found, "models": results}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.chart:
        draw(results, arguments.chart)


if __name__ == "__main__":
    main()

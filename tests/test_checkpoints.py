"""Checkpoints and the run folder as files, under a trainer of NumPy alone."""

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from parity.spec import checkpoints, files, loop, runs
from parity.spec.checkpoints import Progress
from parity.spec.datasets import Dataset
from parity.spec.errors import Failure, UsageError
from parity.spec.run_folder import OF_A_RUN, Run

SPEEDS = ("seconds", "images_per_second", "memory_mib")


class Linear:
    """A linear classifier with momentum and a dropout of its inputs."""

    alone = True

    def __init__(self, options, dataset):
        self.dataset = dataset
        self.weight = np.random.default_rng(options.seed).normal(size=(16, 10)) / 10
        self.velocity = np.zeros_like(self.weight)
        self.draws = np.zeros(1, np.int64)

    def set_learning_rate(self, learning_rate):
        self.learning_rate = learning_rate

    def logits(self, images):
        return images.reshape(len(images), -1) / 255 @ self.weight

    def loss(self, logits, labels):
        logits = logits - logits.max(1, keepdims=True)
        logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -logarithms[np.arange(len(labels)), labels].mean(), np.exp(logarithms)

    def steps(self, order, epoch):
        for indices in order:
            self.draws += 1
            kept = np.random.default_rng(self.draws).random((len(indices), 16)) < 0.5
            inputs = self.dataset.train_images[indices].reshape(-1, 16) / 255 * kept
            labels = self.dataset.train_labels[indices]
            loss, probabilities = self.loss(inputs @ self.weight, labels)
            probabilities[np.arange(len(labels)), labels] -= 1
            gradient = inputs.T @ probabilities / len(labels)
            self.velocity = 0.9 * self.velocity + gradient
            self.weight = self.weight - self.learning_rate * self.velocity
            yield np.float64(loss)

    def to_host(self, losses):
        return np.array(losses)

    def predict(self, part):
        return self.logits(getattr(self.dataset, f"{part}_images"))

    def measure(self, logits, labels):
        return float(self.loss(logits, labels)[0]), float(
            np.mean(logits.argmax(1) == labels)
        )

    def state(self):
        return {
            "model/weight": self.weight,
            "optimizer/velocity": self.velocity,
            "random/draws": self.draws,
        }

    def load(self, state):
        self.weight = state["model/weight"]
        self.velocity = state["optimizer/velocity"]
        self.draws = state["random/draws"]

    def first_not_finite(self, indices, epoch):
        return "weight"

    def any_process(self, flag):
        return flag

    def memory(self):
        return 0


def small_dataset() -> Dataset:
    random = np.random.default_rng(0)
    parts = []
    for size in (60, 20):
        images = random.integers(0, 256, (size, 4, 4, 1), np.uint8)
        parts += [images, images[:, 0, :2, 0].sum(1, dtype=np.int64) % 10]
    classes = tuple("0123456789")
    return Dataset("digits", classes, *parts, mean=(0.5,), std=(0.25,))


def train(options: runs.Options, trainer_class: type = Linear) -> Run:
    """Trains as the two sides' programs do."""
    dataset = small_dataset()
    trainer = trainer_class(options, dataset)
    run = Run(options, "numpy", {})
    run.start(dataset, "cpu", trainer.weight.size)
    if not (run.folder / "initial.safetensors").exists():
        run.save_weights("initial", {"weight": trainer.weight}, dataset)
    predictions = loop.train(trainer, run, dataset)
    run.save_weights("final", {"weight": trainer.weight}, dataset)
    run.save("curves.png", lambda path: path.write_text("curves"))
    run.save("predictions.png", lambda path: path.write_bytes(bytes(predictions)))
    run.close()
    return run


def small_options(folder: Path, **changes) -> runs.Options:
    values = {"epochs": 3, "batch_size": 16, "optimizer": "momentum", "quiet": True}
    values |= {"learning_rate": 0.1, "scheduler": "plateau", "checkpoint_every": 2}
    return runs.options("lenet5", output=folder, **(values | changes))


def result(folder: Path) -> tuple:
    """What is to be the same after a resumption, bit for bit."""
    lines = [
        {name: value for name, value in json.loads(line).items() if name not in SPEEDS}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    weights = [
        files.load_weights(folder / f"{name}.safetensors")[0]["weight"].tobytes()
        for name in ("initial", "final")
    ]
    return lines, weights, (folder / "predictions.png").read_bytes()


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Nothing here ends the machine itself."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nothing interrupts."""
    return train(small_options(tmp_path_factory.mktemp("whole") / "run")).folder


def checkpoint(folder: Path, name: str = "last") -> Path:
    return folder / "checkpoints" / f"{name}.safetensors"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def stopped(tmp_path, monkeypatch) -> Path:
    """A run that was stopped in its second epoch."""
    folder = tmp_path / "run"
    with pytest.raises(Failure) as failure:
        train(small_options(folder), stopping_after(5))
    assert failure.value.code == 128 + signal.SIGTERM
    return folder


def stopping_after(steps: int, number: int = signal.SIGTERM) -> type:
    class Stopping(Linear):
        done = 0

        def steps(self, order, epoch):
            for loss in super().steps(order, epoch):
                type(self).done += 1
                if self.done == steps:
                    os.kill(os.getpid(), number)
                yield loss

    return Stopping


def test_what_ended_an_earlier_training_goes_when_it_goes_on(tmp_path):
    folder = train(small_options(tmp_path / "run")).folder
    (folder / "model.pt").write_bytes(b"of the third epoch")
    with pytest.raises(Failure):
        train(runs.resumed(folder, epochs=5), stopping_after(2))
    for name in ("final.safetensors", "model.pt", "predictions.png"):
        assert not (folder / name).exists()


@pytest.mark.parametrize("best_epoch", [1, 3])
def test_the_best_of_an_epoch_that_is_made_again_goes(best_epoch, tmp_path):
    folder = train(small_options(tmp_path / "run")).folder
    best, previous = checkpoint(folder, "best"), checkpoint(folder, "previous")
    state, progress, arguments = checkpoints.load(checkpoint(folder))
    best.unlink()
    older = dataclasses.replace(progress, epoch=best_epoch, step=0, losses=np.empty(0))
    older.epochs = progress.epochs[:best_epoch]
    checkpoints.save(best, state, older, arguments)
    assert checkpoints.load(previous)[1].epoch == 2
    seen = []

    class Looking(Linear):
        def steps(self, order, epoch):
            seen.append(best.exists())
            yield from super().steps(order, epoch)

    train(runs.resumed(previous), Looking)
    assert seen[0] == (best_epoch == 1)


@pytest.mark.parametrize("steps", range(1, 13))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_step_and_resumed(steps, number, whole, tmp_path):
    folder = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(Failure, match=f"stopped by {number.name} ") as failure:
        train(small_options(folder), stopping_after(steps, number))
    assert failure.value.code == 128 + number
    assert str(failure.value).endswith(f"; --resume {folder} goes on")
    assert signal.getsignal(number) == before
    done = checkpoints.load(checkpoint(folder))[1]
    assert 4 * done.epoch + done.step == steps
    train(runs.resumed(folder))
    assert result(folder) == result(whole)


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(small_options(tmp_path / "run"), stopping_after(3, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_second_signal_ends_at_once(tmp_path):
    class Twice(Linear):
        def steps(self, order, epoch):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            yield from super().steps(order, epoch)

    with pytest.raises(KeyboardInterrupt):
        train(small_options(tmp_path / "run"), Twice)
    assert checkpoints.load(checkpoint(tmp_path / "run"))[1].step == 0


# Of the moments at which something happens, in the quick tests and in all.
STRIDES = [11, pytest.param(1, marks=pytest.mark.slow)]


class Killed(BaseException):
    """What ends a program without a chance to tidy up."""


class Calls:
    """Counts the operating system's calls that change a file; some end otherwise."""

    NAMES = ("replace", "fsync", "link", "mkdir", "rmdir", "unlink")

    def __init__(self, patch: pytest.MonkeyPatch, ends, error: BaseException):
        """Replaces the calls.

        Args:
            patch: puts them back.
            ends: says of a call's number, from 1, whether it ends with the error.
            error: how they end.
        """
        self.number = 0
        for name in self.NAMES:
            patch.setattr(os, name, self.counted(getattr(os, name), ends, error))

    def counted(self, call, ends, error):
        def called(*arguments, **options):
            self.number += 1
            if ends(self.number):
                raise error
            return call(*arguments, **options)

        return called


def killed_at(count: int, options: runs.Options) -> bool:
    """Trains until the count-th call and no call further; returns whether it came."""
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch, lambda number: number >= count, Killed())
        try:
            train(options)
        except Killed:
            return True
        assert calls.number < count
        return False


def on_with(folder: Path) -> runs.Options:
    """Returns the options to begin, or to go on, with."""
    is_run = (folder / "args.json").exists()
    return runs.resumed(folder) if is_run else small_options(folder)


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_between_any_two_calls_and_resumed(stride, whole, tmp_path):
    """Every moment that differs on the disk, and once more on the way from there."""
    for count in itertools.count(1, stride):
        folder = tmp_path / str(count)
        if not killed_at(count, small_options(folder)):
            break
        if not (folder / "predictions.png").exists():
            killed_at(count % 40, on_with(folder))
        if not (folder / "predictions.png").exists():
            train(on_with(folder))
        assert result(folder) == result(whole)
        assert set(content(folder)) == set(content(whole))
    assert count > 80


@pytest.mark.parametrize("stride", STRIDES)
def test_a_disk_that_is_full_at_any_call(stride, whole, tmp_path):
    """What was saved before is whole, and what is not saved is made again."""
    full = OSError(errno.ENOSPC, "No space left on device")
    failed = 0
    for count in itertools.count(1, stride):
        folder = tmp_path / str(count)
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, lambda number, count=count: number == count, full)
            try:
                train(small_options(folder))
            except UsageError as error:
                assert "No space left on device" in str(error)  # noqa: PT017
                failed += 1
        if calls.number < count:
            break
        for path in folder.glob("checkpoints/*.safetensors"):
            checkpoints.load(path)
        if not (folder / "predictions.png").exists():
            train(on_with(folder))
        assert result(folder) == result(whole)
    assert count > stride * failed > 50


def test_a_longer_training_is_not_taken_for_finished(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with pytest.raises(UsageError, match="is finished: 3 epochs; a larger --epochs"):
        train(runs.resumed(folder))
    with pytest.raises(UsageError, match="is beyond --epochs 2: 3 are done"):
        train(runs.resumed(folder, epochs=2))
    assert content(folder) == content(whole)
    for count in (3, 20, 40):
        assert killed_at(count, runs.resumed(folder, epochs=5))

    def end(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "save_weights", end)
        train(runs.resumed(folder))
    assert checkpoints.load(checkpoint(folder))[1].epoch == 5
    train(runs.resumed(folder))
    train(small_options(tmp_path / "long", epochs=5))
    assert result(folder) == result(tmp_path / "long")


def test_the_names_of_the_last_checkpoints(tmp_path):
    state = {"model/weight": np.ones(3, np.float32)}
    run = Run(small_options(tmp_path / "run"), "numpy", {})
    for step, best in enumerate((True, False, True, False)):
        losses = np.zeros(step)
        run.checkpoint(state, Progress(0, step, losses, seconds=1.0), best)
    steps = {
        path.stem: checkpoints.load(path)[1].step
        for path in (run.folder / "checkpoints").iterdir()
    }
    assert steps == {"last": 3, "previous": 2, "best": 2}
    os.umask(umask := os.umask(0))
    modes = {path.stat().st_mode & 0o777 for path in run.folder.rglob("*.safetensors")}
    assert modes == {0o666 & ~umask}


def test_a_file_system_without_links(whole, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    train(small_options(tmp_path / "run"))
    assert result(tmp_path / "run") == result(whole)
    checkpoints.load(checkpoint(tmp_path / "run", "previous"))


def test_a_checkpoint_keeps_all_as_it_was(tmp_path):
    state = {
        "model/a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "optimizer/0": np.float64(3.25),
        "optimizer/1": np.zeros((0, 4)),
        "random/0": np.arange(5, dtype=np.uint8),
        "random/1": np.array([2**63, 1], np.uint64),
    }
    line = dict.fromkeys(checkpoints.LOGGED, 0.1) | {"epoch": 1, "test_loss": np.nan}
    progress = Progress(1, 2, np.array([1 / 3, 0.1]), 0.5, [line])
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, state, progress, {"model": "lenet5", "data_dir": Path("x")})
    loaded, again, arguments = checkpoints.load(path)
    assert list(loaded) and set(loaded) == set(state)
    for name, array in state.items():
        array = np.asarray(array)
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(loaded[name], array)
    assert np.isnan(again.epochs[0].pop("test_loss"))
    line.pop("test_loss")
    assert again.epochs == [line]
    assert (again.epoch, again.step, again.seconds) == (1, 2, 0.5)
    assert again.losses.tobytes() == progress.losses.tobytes()
    assert arguments == {"model": "lenet5", "data_dir": "x"}


def mutations(good: bytes, random: np.random.Generator) -> bytes:
    """Returns what may become of a file."""
    bad = bytearray(good)
    header = 8 + int.from_bytes(good[:8], "little")
    kind = random.integers(7)
    place = int(random.integers(header if random.random() < 0.5 else len(bad)))
    if kind == 0:
        bad[place] ^= 1 << int(random.integers(8))
    elif kind == 1:
        for place in random.integers(len(bad), size=20):
            bad[place] = int(random.integers(256))
    elif kind == 2:
        del bad[place:]
    elif kind == 3:
        bad[place:place] = random.bytes(int(random.integers(1, 9)))
    elif kind == 4:
        del bad[place : place + int(random.integers(1, 9))]
    elif kind == 5:
        size = int(random.choice([0, 1, header - 9, header - 7, 2**31, 2**60, 2**63]))
        bad[:8] = size.to_bytes(8, "little")
    else:  # a number in the header
        digits = [i for i in range(8, header) if chr(bad[i]).isdigit()]
        place = int(random.choice(digits))
        bad[place : place + 1] = str(int(random.choice([0, 7, 10**12]))).encode()
    return bytes(bad)


def test_whatever_becomes_of_the_bytes(tmp_path):
    """Nothing but what was written is loaded; the rest is one line, and no memory."""
    path = tmp_path / "last.safetensors"
    random = np.random.default_rng(0)
    state = {"model/a": random.random((3, 4), np.float32), "random/0": np.arange(3)}
    checkpoints.save(path, state, Progress(), {"model": "lenet5"})
    good, wanted = path.read_bytes(), checkpoints.load(path)
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(600):
            path.write_bytes(mutations(good, random))
            try:
                loaded, progress, arguments = checkpoints.load(path)
            except UsageError as error:
                assert str(path) in str(error) and "\n" not in str(error)  # noqa: PT017
                refused += 1
                continue
            assert arguments == wanted[2]
            assert progress.epochs == wanted[1].epochs
            assert {name: x.tobytes() for name, x in loaded.items()} == {
                name: x.tobytes() for name, x in wanted[0].items()
            }
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert refused > 500


def forged(path: Path, tensors=None, sign=True, **metadata) -> Path:
    """Writes a checkpoint of anything, whose digest is right."""
    progress = {"epoch": 0, "step": 0, "seconds": 0.0, "epochs": []}
    tensors = {"losses": np.empty(0)} if tensors is None else tensors
    metadata = {
        "format": checkpoints.FORMAT,
        "arguments": "{}",
        "progress": json.dumps(progress | metadata.pop("progress", {})),
    } | metadata
    if sign:
        metadata["sha256"] = checkpoints._digest(tensors, metadata)
    files.save_weights(path, tensors, metadata)
    return path


LINE = dict.fromkeys(checkpoints.LOGGED, 0.5) | {"epoch": 1, "test_loss": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": "[]"},
        {"arguments": "{"},
        {"arguments": "[" * 100_000},
        {"progress": {"epoch": -1}},
        {"progress": {"epoch": 10**20}},
        {"progress": {"epoch": True}},
        {"progress": {"epoch": "0"}},
        {"progress": {"step": 1, "seconds": 1.0}},
        {"progress": {"step": 0.0}},
        {"progress": {"seconds": "NaN"}},
        {"progress": {"seconds": -1}},
        {"progress": {"seconds": None}},
        {"progress": {"epochs": [LINE]}},
        {"progress": {"epochs": 3}},
        {"progress": {"epoch": 1, "epochs": [LINE | {"epoch": 2}]}},
        {"progress": {"epoch": 1, "epochs": [LINE | {"train_loss": "NaN"}]}},
        {"progress": {"epoch": 1, "epochs": [LINE | {"train_loss": 10**400}]}},
        {"progress": {"epoch": 1, "epochs": [LINE | {"other": [1]}]}},
        {"progress": {"epoch": 1, "epochs": [{"epoch": 1}]}},
        {"progress": {"epoch": 1, "epochs": ["x"]}},
        {"tensors": {}},
        {"tensors": {"losses": np.empty(0, np.float32)}},
        {"tensors": {"losses": np.empty((0, 2**40))}},
        {"tensors": {"losses": np.ones(1)}, "progress": {"step": 1}},
        {
            "tensors": {"losses": np.array([np.nan])},
            "progress": {"step": 1, "seconds": 1.0},
        },
        {"sign": False},
        {"sign": False, "sha256": "0"},
        {"format": "another"},
    ],
    ids=str,
)
def test_a_forged_checkpoint(changes, tmp_path):
    checkpoints.load(forged(tmp_path / "a.safetensors"))
    path = forged(tmp_path / "b.safetensors", **changes)
    with pytest.raises(UsageError, match="is not a|is damaged") as error:
        checkpoints.load(path)
    assert "\n" not in str(error.value)


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):  # noqa: D105
        return Path.write_text, (self.trace, "executed")


def test_a_pickle_is_not_executed(stopped, tmp_path):
    trace = tmp_path / "trace"
    last = checkpoint(stopped)
    last.write_bytes(pickle.dumps(Malicious(trace)))
    other = tmp_path / "model.pt"
    other.write_bytes(last.read_bytes())
    for path, message in (
        (stopped, "is not a whole safetensors file.*--resume .*previous.safetensors"),
        (last, "is not a whole safetensors file"),
        (other, "is neither a run folder nor a checkpoint in one"),
    ):
        before = content(stopped)
        with pytest.raises(UsageError, match=message):
            train(runs.resumed(path))
        assert content(stopped) == before
    assert not trace.exists()
    pickle.loads(last.read_bytes())
    assert trace.exists()  # it would have been


def test_where_the_last_is_damaged_the_previous_would_do(stopped, whole):
    last = checkpoint(stopped)
    damaged = bytearray(last.read_bytes())
    damaged[-3] ^= 1
    last.write_bytes(damaged)
    with pytest.raises(UsageError, match="is damaged.*; --resume .*") as error:
        train(runs.resumed(stopped))
    path = str(error.value).split("--resume ")[1].removesuffix(" would do")
    assert path == str(checkpoint(stopped, "previous"))
    train(runs.resumed(Path(path)))
    assert result(stopped) == result(whole)


def test_a_last_one_that_is_gone(stopped, whole):
    for name, message in (
        ("last", "is not there; --resume .*previous.safetensors would do"),
        ("previous", "is not there; --resume .*best.safetensors would do"),
        ("best", "has no checkpoint to go on from"),
    ):
        checkpoint(stopped, name).unlink()
        before = content(stopped)
        with pytest.raises(UsageError, match=message):
            train(runs.resumed(stopped))
        assert content(stopped) == before


def test_going_on_from_the_best(stopped, whole):
    train(runs.resumed(checkpoint(stopped, "best")))
    assert result(stopped) == result(whole)


def edited(name: str, value: object):
    def edit(text: str) -> str:
        return json.dumps(json.loads(text) | {name: value})

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: "[" * 100_000,
        lambda _: "\udcff",
        lambda _: "{}",
        edited("learning_rate", 0.2),
        edited("learning_rate", "0.1"),
        edited("learning_rate", -1),
        edited("learning_rate", True),
        edited("seed", 1),
        edited("seed", 2**70),
        edited("epochs", 0),
        edited("epochs", "3"),
        edited("epochs", None),
        edited("batch_size", 32),
        edited("batch_size", "half"),
        edited("batch_size", 0),
        edited("model", "lenet6"),
        edited("model", "lenet5_1998"),
        edited("model", ["lenet5"]),
        edited("recipe", "none"),
        edited("dataset", "mnist2"),
        edited("optimizer", "adam"),
        edited("optimizer", "eval"),
        edited("scheduler", "never"),
        edited("precision", "float8"),
        edited("device", "tpu"),
        edited("augment", ["rotate"]),
        edited("augment", "flip"),
        edited("augment", [1]),
        edited("checkpoint_every", -5),
        edited("framework", "torch"),
        edited("classes", []),
        edited("train_size", 59),
        edited("mean", [0.51]),
        edited("mean", "0.5"),
    ],
)
def test_args_json_damaged_or_edited(edit, stopped):
    path = stopped / "args.json"
    text = edit(path.read_text())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = content(stopped)
    with pytest.raises(UsageError) as error:
        train(runs.resumed(stopped))
    assert re.search("args.json| began with ", str(error.value))
    assert "\n" not in str(error.value)
    assert content(stopped) == before


def test_without_args_json_the_checkpoint_says_the_same(stopped, whole):
    (stopped / "args.json").unlink()
    train(runs.resumed(stopped))
    assert result(stopped) == result(whole)
    assert json.loads((stopped / "args.json").read_text())["model"] == "lenet5"


def test_what_may_be_another_and_what_not(stopped, tmp_path):
    options = runs.resumed(stopped, "lenet5", epochs=9, device="cpu", workers=2)
    assert (options.epochs, options.device, options.workers) == (9, "cpu", 2)
    for arguments, changes, message in (
        (("lenet5_1998",), {}, "is a run of lenet5, not lenet5_1998"),
        ((), {"seed": 1}, "--seed cannot be another when a run goes on"),
        ((), {"learning_rate": 1.0}, "--learning-rate cannot be another"),
    ):
        with pytest.raises(UsageError, match=message):
            runs.resumed(stopped, *arguments, **changes)
    with pytest.raises(UsageError, match="holds no run: .*args.json: No such file"):
        runs.resumed(tmp_path)


def test_the_device_is_the_one_that_was_asked_for(stopped):
    """Not where that was: several GPUs would become the first one."""
    path = stopped / "args.json"
    path.write_text(edited("device", "gpu:0,gpu:1")(path.read_text()))
    assert runs.resumed(stopped).device == "gpu:0,gpu:1"


def test_the_weights_that_it_started_from_are_gone(whole, tmp_path):
    folder, weights = tmp_path / "run", tmp_path / "weights.safetensors"
    shutil.copyfile(whole / "initial.safetensors", weights)
    with pytest.raises(Failure):
        train(small_options(folder, weights=weights), stopping_after(5))
    weights.unlink()
    train(runs.resumed(folder))
    assert result(folder) == result(whole)


@pytest.mark.parametrize("name", ["model/weight", "optimizer/velocity", "random/draws"])
def test_a_checkpoint_of_other_tensors(name, stopped, tmp_path):
    path = checkpoint(stopped)
    state, progress, arguments = checkpoints.load(path)
    without = {key: array for key, array in state.items() if key != name}
    for other, message in (
        (without, "is missing"),
        (without | {f"{name}2": state[name]}, "is missing"),
        (state | {name: np.ones((2, 3, 4))}, "is \\("),
        (state | {name: state[name].astype(np.float32)}, "float32"),
        (state | {"model/more": np.ones(2)}, "left over"),
    ):
        checkpoints.save(path, other, progress, arguments)
        before = content(stopped)
        with pytest.raises(UsageError, match=f"checkpoint does not fit: .*{message}"):
            train(runs.resumed(stopped))
        assert content(stopped) == before


def test_more_steps_than_an_epoch_has(stopped):
    path = checkpoint(stopped)
    state, progress, arguments = checkpoints.load(path)
    progress.step, progress.losses, progress.seconds = 9, np.ones(9), 1.0
    checkpoints.save(path, state, progress, arguments)
    with pytest.raises(UsageError, match="9 steps are done, and an epoch has 4"):
        train(runs.resumed(stopped))


def test_a_load_that_fails_is_one_line(stopped):
    class Failing(Linear):
        def load(self, state):
            raise RuntimeError("not\nso")

    before = content(stopped)
    with pytest.raises(UsageError, match="does not fit: RuntimeError: not so"):
        train(runs.resumed(stopped), Failing)
    assert content(stopped) == before


def test_the_checkpoint_of_another_run(stopped, tmp_path):
    other = train(small_options(tmp_path / "other", seed=1)).folder
    shutil.copyfile(checkpoint(other), checkpoint(stopped))
    before = content(stopped)
    with pytest.raises(UsageError, match="made with the seed 1, and now it is 0; if"):
        train(runs.resumed(stopped))
    shutil.copyfile(other / "final.safetensors", checkpoint(stopped))
    with pytest.raises(UsageError, match="is not a checkpoint of this program"):
        train(runs.resumed(stopped))
    shutil.copyfile(checkpoint(stopped, "previous"), checkpoint(stopped))
    assert set(content(stopped)) == set(before)


def not_a_number(step: int, what: str) -> type:
    """A trainer whose loss or weight is not finite after a step, counted from 1."""

    class Diverging(Linear):
        done = 0

        def steps(self, order, epoch):
            for loss in super().steps(order, epoch):
                self.done += 1
                if self.done == step and what == "weight":
                    self.weight[0, 0] = np.inf
                diverged = self.done == step and what == "loss"
                yield np.float64(np.nan) if diverged else loss

    return Diverging


@pytest.mark.parametrize("step", [1, 3, 4, 6, 12])
def test_a_loss_that_is_not_finite(step, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Failure) as failure:
        train(small_options(folder), not_a_number(step, "loss"))
    assert failure.value.code == 1
    epoch, number = divmod(step - 1, 4)
    indices = runs.batch_order(small_options(folder), 60, epoch)[number]
    assert str(failure.value).startswith(
        f"the loss is nan at step {number + 1} of epoch {epoch + 1}, on the training "
        f"images {', '.join(map(str, indices[:8]))}, ...; it is first seen in the "
        "output of weight; a lower --learning-rate"
    )
    for path in folder.glob("checkpoints/*"):
        state, progress, _ = checkpoints.load(path)
        assert np.isfinite(state["model/weight"]).all()
        assert 4 * progress.epoch + progress.step < step


@pytest.mark.parametrize("step", [2, 4, 8, 12])
def test_weights_that_are_not_finite_are_no_checkpoint(step, tmp_path):
    """The loss before the last step is finite, and the weights after it are not."""
    folder = tmp_path / "run"
    options = small_options(folder, checkpoint_every=None if step != 2 else 2)
    with pytest.raises(Failure, match="the weights weight are not finite") as failure:
        train(options, not_a_number(step, "weight"))
    epoch, number = divmod(step - 1, 4)
    assert f" after step {number + 1} of epoch {epoch + 1}, on" in str(failure.value)
    assert failure.value.code == 1
    for path in folder.glob("checkpoints/*"):
        state, progress, _ = checkpoints.load(path)
        assert np.isfinite(state["model/weight"]).all()
        assert 4 * progress.epoch + progress.step < step
    lines = folder / "metrics.jsonl"
    assert (len(lines.read_text().splitlines()) if epoch else 0) == epoch


def test_initial_weights_that_are_not_finite(tmp_path):
    class Infinite(Linear):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.weight[2, 3] = np.nan

    with pytest.raises(Failure, match="the initial weights weight are not finite"):
        train(small_options(tmp_path / "run"), Infinite)
    assert not checkpoint(tmp_path / "run").exists()


def test_a_test_loss_that_is_not_finite_is_kept(tmp_path):
    class Overflowing(stopping_after(6)):
        def measure(self, logits, labels):
            return np.inf, super().measure(logits, labels)[1]

    folder = tmp_path / "run"
    with pytest.raises(Failure):
        train(small_options(folder), Overflowing)
    assert '"test_loss": "Infinity"' in (folder / "metrics.jsonl").read_text()
    assert train(runs.resumed(folder)).epochs[0]["test_loss"] == np.inf


def child(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def test_one_program_at_a_time(stopped, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from parity.spec import files\n"
        f"keep = files.lock(Path({str(stopped)!r}), files)\n"
        "if os.fork():\n    print(flush=True)\n"
        "sys.stdin.read(1)\n"
    )
    options = runs.resumed(stopped)
    before = content(stopped)
    with child(code) as other:
        other.stdout.readline()
        for busy in (options, small_options(stopped)):
            with pytest.raises(UsageError, match="another program is writing to .*run"):
                train(busy)
        assert content(stopped) == before
        other.kill()  # what it forked lives on, and has no part in the lock
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        train(options)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_folder_that_holds_a_run(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="holds a run already; choose another --outp"):
        train(small_options(tmp_path))
    assert not content(tmp_path)


def test_a_file_in_the_place_of_a_folder(stopped, tmp_path):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").write_text("a file")
    (stopped / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="cannot write .*checkpoints"):
        train(runs.resumed(stopped))
    for path in (tmp_path / "file", Path("/proc/none")):
        path.parent == tmp_path and path.write_text("a file")
        with pytest.raises(UsageError, match="cannot make"):
            train(small_options(path))


def test_a_checkpoint_is_a_trained_network(stopped, tmp_path):
    with pytest.raises(UsageError, match="is not finished; .*--resume .*best.safetens"):
        runs.find_trained(stopped)
    trained = runs.find_trained(checkpoint(stopped, "best"))
    assert trained.model == "lenet5"
    assert (trained.shape.height, trained.shape.num_classes) == (28, 10)
    assert list(trained.tensors) == ["weight"]
    assert np.array_equal(
        checkpoints.load_weights(checkpoint(stopped, "best"))["weight"],
        trained.tensors["weight"],
    )
    damaged = bytearray(checkpoint(stopped).read_bytes())
    damaged[-1] ^= 1
    checkpoint(stopped).write_bytes(damaged)
    for load in (runs.find_trained, checkpoints.load_weights):
        with pytest.raises(UsageError, match="is damaged"):
            load(checkpoint(stopped))
    with pytest.raises(UsageError, match="does not say how it was trained"):
        runs.find_trained(forged(tmp_path / "a.safetensors"))


def test_the_digest_is_of_names_types_shapes_and_numbers():
    arrays = {"a": np.arange(4, dtype=np.float32)}
    digests = {
        checkpoints._digest(tensors, metadata)
        for tensors, metadata in (
            (arrays, {}),
            (arrays, {"b": "c"}),
            ({"b": arrays["a"]}, {}),
            ({"a": arrays["a"].view(np.int32)}, {}),
            ({"a": arrays["a"].reshape(2, 2)}, {}),
            ({"a": arrays["a"] + 1}, {}),
        )
    }
    assert len(digests) == 6
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in digests)

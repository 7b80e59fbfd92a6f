"""A run is never lost: both sides' trainings, killed, stopped, damaged and resumed.

A training that went on is to have the same bits as one that nobody interrupted, in
float32 on one thread of the CPU. With two, the networks here came out the same as
well, run after run and on both sides; but no framework promises that, and another
number of threads splits sums otherwise.
"""

import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import keras_impl.evaluate
import keras_impl.train
import torch_impl.evaluate
import torch_impl.train
from parity.frameworks import torch
from parity.spec import checkpoints, files, runs
from parity.spec.errors import Failure, UsageError

SIDES = {"keras": keras_impl, "torch": torch_impl}
SPEEDS = ("seconds", "images_per_second", "memory_mib")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}

# Starts trainings in processes of their own, which have the framework already, and
# ends each at its moment. Arguments: side, folder, seed, moments, flags.
KILLER = """
import importlib, os, random, shutil, signal, sys, time
from pathlib import Path
from parity.spec import cli

side, folder, seed, moments, *flags = sys.argv[1:]
folder, chance = Path(folder), random.Random(int(seed))
program = importlib.import_module(f"{side}_impl.train")
last = folder / "checkpoints" / "last.safetensors"


def written():
    return last.stat().st_mtime_ns if last.exists() else 0


def come(moment, before, start, state):
    if moment == "start":
        return time.monotonic() > start + state["delay"]
    if moment == "writing":
        names = set(folder.glob("checkpoints/.writing-*"))
        state["seen"] |= names
        return bool(names) and len(state["seen"]) >= state["count"]
    if moment == "training" and written() != before and "since" not in state:
        state["since"] = time.monotonic()
    if moment == "training":
        return "since" in state and time.monotonic() > state["since"] + state["delay"]
    return (folder / moment).exists()


kills = missed = 0
waiting = [*moments.split(","), None]
while waiting:
    moment = waiting[0]
    if (folder / "args.json").exists():
        arguments = ["--resume", str(folder)]
    else:
        arguments = [*flags, "--output", str(folder)]
    child = os.fork()
    if child == 0:
        options = cli.parse_train("train", [*arguments, "--quiet"])
        cli.run("train", lambda: program.train(options) and 0)
    state = {"delay": chance.uniform(0, 0.6), "count": chance.randint(1, 3)}
    state["seen"] = set()
    before, start = written(), time.monotonic()
    while not (moment and come(moment, before, start, state)):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and (status or (moment and missed == 5)):
            sys.exit(f"it ended before {moment}: {status}")
        if ended and moment:  # too fast to be caught, on a busy machine: once more
            missed += 1
            shutil.rmtree(folder)
            break
        if ended:
            waiting.pop(0)
            break
        time.sleep(0.001)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        waiting.pop(0)
        kills += 1
print(kills)
"""


def result(folder: Path) -> tuple[list, dict]:
    """What is to be the same after a resumption, bit for bit."""
    lines = [
        {name: value for name, value in json.loads(line).items() if name not in SPEEDS}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    tensors, _ = files.load_weights(folder / "final.safetensors")
    return lines, {name: tensor.tobytes() for name, tensor in tensors.items()}


def program(*arguments: object, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ONE_THREAD,
        **more,
    )


def last_line(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "flags, moments",
    [
        (
            "cnn_padded_pool --augment flip --optimizer momentum --checkpoint-every 1",
            "start,writing,training,writing,writing,training,final.safetensors",
        ),
        (
            "lenet5 --optimizer adam --scheduler plateau --checkpoint-every 7",
            "start,writing,training,writing,curves.png",
        ),
    ],
    ids=["dropout", "adam"],
)
def test_killed_at_any_moment(side, flags, moments, tmp_path):
    """Twelve kills on each side, as many times in two runs that go on to their ends."""
    flags = (*flags.split(), "--epochs", "4")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = program("-m", f"{side}_impl.train", *flags, "--output", whole)
    assert done.returncode == 0, done.stderr
    seed = len(moments)
    done = program("-c", KILLER, side, killed, seed, moments, *flags)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == len(moments.split(","))
    assert result(killed) == result(whole)
    assert not list(killed.rglob(f"{files.UNFINISHED}*"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keeps PyTorch's sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_options(
    folder: Path, model: str = "cnn_padded_pool", **changes
) -> runs.Options:
    values = {"epochs": 2, "batch_size": 256, "optimizer": "momentum", "quiet": True}
    return runs.options(model, output=folder, **(values | changes))


def stopped_run(side: str, folder: Path, steps: int, **changes) -> Path:
    """Returns the folder of a run that a signal stopped after some steps."""
    trainer = SIDES[side].trainer.Trainer
    original, done = trainer.steps, []

    def counted(self, order, epoch):
        for losses in original(self, order, epoch):
            done.append(int(np.prod(losses.shape)))
            if sum(done) >= steps:
                os.kill(os.getpid(), signal.SIGTERM)
            yield losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "steps", counted)
        with pytest.raises(Failure, match="stopped by SIGTERM after") as failure:
            SIDES[side].train.train(small_options(folder, **changes))
    assert failure.value.code == 128 + signal.SIGTERM
    return folder


@pytest.fixture(scope="module", params=SIDES)
def stopped(request, tmp_path_factory) -> tuple[str, Path]:
    """A run of each side that was stopped in its second epoch; for copying only."""
    folder = tmp_path_factory.mktemp("stopped") / request.param
    stopped_run(request.param, folder, 8, checkpoint_every=3)
    return request.param, folder


@pytest.fixture
def copied(stopped, tmp_path) -> tuple[str, Path]:
    """A copy of the stopped run."""
    side, folder = stopped
    return side, Path(shutil.copytree(folder, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_stopped_and_resumed(copied, tmp_path):
    side, folder = copied
    train = SIDES[side].train.train
    train(runs.resumed(folder))
    train(small_options(tmp_path / "whole", checkpoint_every=3))
    assert result(folder) == result(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"augment": ("crop", "flip"), "optimizer": "adamw", "clip_norm": 1.0},
        {"precision": "float16", "optimizer": "adam"},
        {"precision": "bfloat16", "optimizer": "rmsprop"},
        {"precision": "float64", "optimizer": "nesterov", "scheduler": "plateau"},
        {"model": "cnn_binary", "batch_size": 32, "optimizer": "adagrad"},
    ],
    ids=["augmented", "float16", "bfloat16", "float64", "batchnorm"],
)
@pytest.mark.parametrize("side", SIDES)
def test_all_that_a_step_depends_on_is_kept(side, changes, tmp_path):
    train = SIDES[side].train.train
    folder, whole = tmp_path / "run", tmp_path / "whole"
    stopped_run(side, folder, 8, **changes)
    train(runs.resumed(folder))
    train(small_options(whole, **changes))
    assert result(folder) == result(whole)


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):  # noqa: D105
        return Path.write_text, (self.trace, "executed")


def test_what_is_no_checkpoint_of_the_run(copied, tmp_path):
    """One line, nothing executed, and every file as it was."""
    side, folder = copied
    trace, last = tmp_path / "trace", folder / "checkpoints" / "last.safetensors"
    whole = last.read_bytes()
    weights = (folder / "initial.safetensors").read_bytes()
    plain = safetensors.numpy.save({"model/a": np.ones(3)})
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 64
    for damaged, message in (
        (whole[:-100], "is not a whole safetensors file"),
        (whole[:100], "is not a whole safetensors file"),
        (b"", "is not a whole safetensors file"),
        (flipped, "is damaged"),
        (weights, "is not a checkpoint of this program"),
        (plain, "is not a checkpoint of this program"),
        (pickle.dumps(Malicious(trace)), "is not a whole safetensors file"),
    ):
        last.write_bytes(damaged)
        before = content(folder)
        with pytest.raises(UsageError, match=message) as error:
            SIDES[side].train.train(runs.resumed(folder))
        assert str(error.value).endswith("previous.safetensors would do")
        assert "\n" not in str(error.value)
        assert content(folder) == before
    model = tmp_path / "model.pt"
    torch.save(Malicious(trace), model)
    with pytest.raises(UsageError, match="is neither a run folder nor a checkpoint"):
        runs.resumed(model)
    assert not trace.exists()


def test_tensors_that_do_not_fit(copied):
    side, folder = copied
    path = folder / "checkpoints" / "last.safetensors"
    state, progress, arguments = checkpoints.load(path)
    weight = next(name for name in state if name.endswith(".weight"))
    momentum = [name for name in state if name.startswith("optimizer/")][-1]
    random = next(name for name in state if name.startswith("random/"))

    def without(name):
        return {key: array for key, array in state.items() if key != name}

    for other in (
        without(weight),
        without(momentum),
        without(random),
        {},
        state | {weight: state[weight].astype(np.float64)},
        state | {weight: state[weight][..., None]},
        state | {momentum: np.ones((2, 3), np.float32)},
        state | {random: state[random].astype(np.int16)},
        without(momentum) | {"optimizer/first/x": state[momentum]},
        without(momentum) | {"optimizer/999": state[momentum]},
        state | {"model/more": state[momentum]},
    ):
        checkpoints.save(path, other, progress, arguments)
        before = content(folder)
        with pytest.raises(UsageError, match="does not fit") as error:
            SIDES[side].train.train(runs.resumed(folder))
        assert "\n" not in str(error.value)
        assert content(folder) == before


def test_the_other_sides_and_another_models_checkpoint(copied, tmp_path):
    side, folder = copied
    last = folder / "checkpoints" / "last.safetensors"
    state, progress, arguments = checkpoints.load(last)
    other = next(name for name in SIDES if name != side)
    with pytest.raises(UsageError, match=f"python -m {side}_impl.train goes on"):
        SIDES[other].train.train(runs.resumed(folder))
    for change, message in (
        ({"framework": other}, f"was made with the framework {other}, and now it is"),
        ({"model": "lenet5"}, "was made with the model lenet5, and now it is cnn_pa"),
    ):
        checkpoints.save(last, state, progress, arguments | change)
        with pytest.raises(UsageError, match=message):
            SIDES[side].train.train(runs.resumed(folder))


@pytest.mark.slow
def test_a_disk_that_fills_up(copied, tmp_path, monkeypatch):
    """The last checkpoint stays, and the run goes on once there is space."""
    side, folder = copied
    train, save = SIDES[side].train.train, safetensors.numpy.save_file
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    before = content(folder / "checkpoints")

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(UsageError, match="cannot write .*last.*: No space left on dev"):
        train(runs.resumed(folder))
    assert content(folder / "checkpoints") == before
    monkeypatch.setattr(safetensors.numpy, "save_file", save)
    for path in (folder, whole):
        train(runs.resumed(path))
    assert result(folder) == result(whole)


@pytest.mark.parametrize("layer", ["conv2.0", "classifier.4"])
@pytest.mark.parametrize("side", SIDES)
def test_the_first_layer_that_is_not_finite(side, layer, tmp_path):
    """A weight near the end of float32, whose products are beyond it."""
    weights, folder = tmp_path / "weights.safetensors", tmp_path / "run"
    model = SIDES[side].create_model("cnn_padded_pool")
    tensors = dict(SIDES[side].weights.state_dict(model))
    tensors[f"{layer}.weight"] = np.full_like(tensors[f"{layer}.weight"], 3e38)
    files.save_weights(weights, tensors, {})
    options = small_options(folder, weights=weights)
    with pytest.raises(Failure) as failure:
        SIDES[side].train.train(options)
    first = runs.batch_order(options, 1437, 0)[0][:8]
    assert failure.value.code == 1
    assert re.match("the (loss|weights .*) (is|are) ", str(failure.value))
    assert (
        f" step 1 of epoch 1, on the training images {', '.join(map(str, first))}, "
        f"...; it is first seen in the output of {layer}; a lower --learning-rate"
    ) in str(failure.value)
    state, progress, _ = checkpoints.load(folder / "checkpoints" / "last.safetensors")
    assert (progress.epoch, progress.step) == (0, 0)
    assert checkpoints.not_finite(state) is None


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_a_learning_rate_that_is_too_large(side, tmp_path):
    """Then from the last good state, with a smaller one."""
    folder = tmp_path / "run"
    changes = {"optimizer": "sgd", "learning_rate": 1e18}
    with pytest.raises(Failure, match="the (loss|weights) .* step . of ep") as failure:
        SIDES[side].train.train(small_options(folder, **changes))
    last = folder / "checkpoints" / "last.safetensors"
    assert str(failure.value).endswith(f"with --weights {last}")
    state = checkpoints.load(last)[0]
    assert checkpoints.not_finite(state) is None
    run = SIDES[side].train.train(
        small_options(tmp_path / "again", epochs=1, weights=last)
    )
    initial, _ = files.load_weights(run.folder / "initial.safetensors")
    assert all(np.array_equal(initial[x], state[f"model/{x}"]) for x in initial)


@pytest.mark.parametrize("side", SIDES)
def test_weights_that_are_not_finite_after_the_last_step(side, tmp_path):
    folder, trainer = tmp_path / "run", SIDES[side].trainer.Trainer
    original = trainer.steps

    def planting(self, order, epoch):
        yield from original(self, order, epoch)
        if epoch == 1 and len(order) == 6:
            tensors = dict(SIDES[side].weights.state_dict(self.model))
            tensors["conv2.0.bias"] = np.full_like(tensors["conv2.0.bias"], np.nan)
            SIDES[side].weights.load_state_dict(self.model, tensors, "planted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "steps", planting)
        with pytest.raises(Failure, match="conv2.0.bias are not .* step 6 of epoch 2"):
            SIDES[side].train.train(small_options(folder))
    state, progress, _ = checkpoints.load(folder / "checkpoints" / "last.safetensors")
    assert (progress.epoch, progress.step) == (1, 0)
    assert checkpoints.not_finite(state) is None


@pytest.mark.parametrize("side", SIDES)
def test_initial_weights_that_are_not_finite(side, tmp_path):
    weights = tmp_path / "weights.safetensors"
    model = SIDES[side].create_model("cnn_padded_pool")
    tensors = dict(SIDES[side].weights.state_dict(model))
    planted = tensors["conv2.0.weight"].copy()
    planted[1, 2, 0, 1] = np.nan
    files.save_weights(weights, tensors | {"conv2.0.weight": planted}, {})
    with pytest.raises(Failure, match="the initial weights conv2.0.weight are not fin"):
        SIDES[side].train.train(small_options(tmp_path / "run", weights=weights))


def test_evaluating_a_run_that_is_not_finished(stopped):
    side, folder = stopped
    best = folder / "checkpoints" / "best.safetensors"
    with pytest.raises(UsageError, match="is not finished; .*--resume .*best.safetens"):
        SIDES[side].evaluate.evaluate(folder)
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    for other in SIDES.values():
        accuracy = other.evaluate.evaluate(best)["accuracy"]
        assert accuracy == pytest.approx(lines[0]["test_accuracy"], abs=1 / 360)


def start(side: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"{side}_impl.train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_signals_on_the_command_line(side, tmp_path):
    folder = tmp_path / "run"
    arguments = ("cnn_padded_pool", "--epochs", "1000", "--output", folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(side, *arguments)
        lines = []
        while not lines or not lines[-1].startswith("epoch "):
            lines.append(process.stdout.readline())
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 128 + number
        assert "Traceback" not in errors
        *_, warning, last = errors.splitlines()
        assert warning == "stopping after this step; once more: at once"
        assert f"stopped by {number.name} after " in last
        assert last.endswith(f"; --resume {folder} goes on")
        arguments = ("--resume", folder)


@pytest.mark.slow
def test_two_programs_with_one_output(tmp_path):
    arguments = ("lenet5", "--epochs", "2", "--output", tmp_path / "run")
    both = [start("torch", *arguments) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    loser = errors[[process.returncode for process in both].index(2)]
    assert loser.count("\n") == 1
    assert "another program is writing" in loser or "holds a run already" in loser


@pytest.mark.slow
def test_a_disk_that_is_full_on_the_command_line(tmp_path):
    folder = tmp_path / "run"
    train = f"{sys.executable} -m torch_impl.train"
    flags = "cnn_padded_pool --optimizer adam --epochs 1 --checkpoint-every 5"
    limited = f"ulimit -f 400; exec {train} {flags} --output {folder}"
    done = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot write " in last_line(done) and "File too large" in last_line(done)
    assert checkpoints.load(folder / "checkpoints" / "last.safetensors")[1].step == 0
    done = program("-m", "torch_impl.train", "--resume", folder, "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_malicious_file_on_the_command_line(stopped, tmp_path):
    side, folder = stopped
    folder, trace = Path(shutil.copytree(folder, tmp_path / "run")), tmp_path / "trace"
    last = folder / "checkpoints" / "last.safetensors"
    last.write_bytes(pickle.dumps(Malicious(trace)))
    done = program("-m", f"{side}_impl.train", "--resume", folder)
    assert done.returncode == 2
    assert last_line(done).endswith("previous.safetensors would do")
    hint = last_line(done).split("--resume ")[1].removesuffix(" would do")
    done = program("-m", f"{side}_impl.train", "--resume", hint, "--quiet")
    assert done.returncode == 0, done.stderr
    assert not trace.exists()

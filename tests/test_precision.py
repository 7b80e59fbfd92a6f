"""--precision, --compile and --fast on both sides, on the CPU."""

import dataclasses
import json

import numpy as np
import pytest

import keras_impl.train
import torch_impl.train
from parity.frameworks import tf, torch
from parity.spec import checkpoints, cli, devices, runs, trials
from parity.spec.errors import Failure, UsageError

SIDES = {"keras": keras_impl, "torch": torch_impl}
# What an epoch of LeNet-5 on the digits may differ in loss from that of float32: the
# rounding of some thousand products in each of 6 steps, which partly cancels.
LOSS_MARGIN = {"float64": 1e-4, "bfloat16": 0.1}


def train(side, folder, **changes):
    changes = {"epochs": 1, "output": folder, "quiet": True} | changes
    options = runs.options("lenet5", **changes)
    return SIDES[side].train.train(options)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The first epoch's loss in float32, by side."""
    folder = tmp_path_factory.mktemp("float32")
    return {side: train(side, folder / side).epochs[0]["train_loss"] for side in SIDES}


@pytest.mark.parametrize("precision", LOSS_MARGIN)
@pytest.mark.parametrize("side", SIDES)
def test_each_precision_trains_alike(side, precision, exact, tmp_path):
    run = train(side, tmp_path / "run", precision=precision)
    loss = run.epochs[0]["train_loss"]
    assert loss != exact[side]
    assert loss == pytest.approx(exact[side], rel=LOSS_MARGIN[precision])
    state, *_ = checkpoints.load(run.folder / "checkpoints" / "last.safetensors")
    kinds = {x.dtype for name, x in state.items() if name.startswith("model/")}
    assert kinds == {np.dtype("float64" if precision == "float64" else "float32")}
    first = run.epochs[0]["first_loss"]
    assert (first == float(np.float32(first))) == (precision != "float64")


@pytest.mark.parametrize("side", SIDES)
def test_float16_scales_its_loss(side, tmp_path):
    """The scale is part of the state, and was halved until no gradient overflowed."""
    run = train(side, tmp_path / "run", epochs=4, precision="float16")
    assert run.epochs[-1]["train_accuracy"] > 0.6
    state, *_ = checkpoints.load(run.folder / "checkpoints" / "last.safetensors")
    numbers = [float(x) for x in state.values() if x.size == 1]
    assert any(64 <= x <= devices.LOSS_SCALE and np.log2(x) % 1 == 0 for x in numbers)
    assert all(
        np.isfinite(x).all() for name, x in state.items() if "random" not in name
    )


@pytest.mark.parametrize("side", SIDES)
def test_tf32_is_for_gpus(side, tmp_path):
    with pytest.raises(UsageError, match="tf32 is arithmetic of GPUs"):
        train(side, tmp_path / "run", precision="tf32", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", SIDES)
def test_fast_takes_the_fastest_and_says_so(side, tmp_path, monkeypatch, capsys):
    speeds = iter([100.0, 150.0])
    monkeypatch.setattr(trials, "measure", lambda trainer, indices: next(speeds))
    options = runs.options("lenet5", epochs=1, output=tmp_path / "run", fast=True)
    SIDES[side].train.train(options)
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("fast: bfloat16 (images/s: float32 100, bfloat16 150); ")
    arguments = json.loads((tmp_path / "run" / "args.json").read_text())
    assert (arguments["precision"], arguments["compile"]) == ("bfloat16", False)


@pytest.mark.parametrize("side", SIDES)
def test_a_trial_measures_real_steps(side, tmp_path, monkeypatch):
    found = []
    measure = trials.measure

    def listen(trainer, indices):
        found.append(measure(trainer, indices))
        return found[-1]

    monkeypatch.setattr(trials, "measure", listen)
    train(side, tmp_path / "run", fast=True)
    assert len(found) == len(trials.CANDIDATES["cpu"])
    assert all(0 < speed < 1e7 for speed in found)


@pytest.mark.parametrize("side", SIDES)
def test_a_candidate_that_does_not_run_is_left_out(side, tmp_path, monkeypatch, capsys):
    def fail(trainer, indices):
        if trainer.options.precision == "bfloat16":
            raise RuntimeError("no such arithmetic\nat line 3")
        return 100.0

    monkeypatch.setattr(trials, "measure", fail)
    run = train(side, tmp_path / "run", fast=True)
    said = capsys.readouterr().err
    assert "fast: bfloat16 does not run here: no such arithmetic\n" in said
    assert run.options.precision == "float32"


@pytest.mark.parametrize("side", SIDES)
def test_each_trainer_sets_tf32(side, tmp_path):
    """A trial of it is one, and the next is not."""
    program = SIDES[side].train
    with program.join(options := runs.options("lenet5", device="cpu")) as group:
        dataset = options.scaled(program.data.load(**options.data_arguments()))
        device = program.select_device("cpu")
        for precision in ("tf32", "float32"):
            trial = dataclasses.replace(options, precision=precision)
            program.create_trainer(trial, dataset, device, group)
            assert tf32_is_allowed(side) == (precision == "tf32")


def tf32_is_allowed(side):
    if side == "keras":
        return tf.config.experimental.tensor_float_32_execution_enabled()
    allowed = {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}
    (found,) = allowed
    return found


@pytest.mark.parametrize("side", SIDES)
def test_out_of_memory_is_one_line(side, tmp_path, monkeypatch):
    errors = {
        "keras": tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
        "torch": torch.OutOfMemoryError("CUDA out of memory"),
    }

    def fail(*_):
        raise errors[side]

    monkeypatch.setattr(SIDES[side].train, "train_in_group", fail)
    with pytest.raises(Failure, match="^out of memory; a smaller --batch-size"):
        train(side, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_compiled_steps_are_the_same_steps(side, exact, tmp_path):
    loss = train(side, tmp_path / "run", compile=True).epochs[0]["train_loss"]
    assert loss == pytest.approx(exact[side], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "bfloat"], "did you mean bfloat16"),
        (["--device", "gpu:x"], "unknown device 'gpu:x'"),
        (
            ["--device", "tpu"],
            "unknown device 'tpu'; did you mean gpu or cpu or gpu:1",
        ),
        (["--fast", "--precision", "float64"], "--fast chooses the precision"),
        (["--fast", "--compile"], "compilation; leave --compile"),
        (["--checkpoint-every", "0"], "'0' is not an integer of 1 or more"),
    ],
)
def test_wrong_values_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse_train("x", ["lenet5", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

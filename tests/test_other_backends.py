"""Training on Keras's other backends, as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from keras_impl.evaluate import evaluate

BACKENDS = ("jax", "torch")


def train(backend, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_impl.train", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": backend},
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_tensorflow_evaluates(backend, tmp_path):
    folder = tmp_path / "run"
    done = train(backend, "lenet5", "--epochs", 3, "--output", folder)
    assert done.returncode == 0, done.stderr
    arguments = json.loads((folder / "args.json").read_text())
    assert backend in arguments["versions"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    result = evaluate(folder)
    assert result["accuracy"] == pytest.approx(last["test_accuracy"], abs=1 / 360)
    assert result["loss"] == pytest.approx(last["test_loss"], rel=1e-4)
    done = train(backend, "--resume", folder, "--epochs", 4)
    assert done.returncode == 0, done.stderr
    again = (folder / "metrics.jsonl").read_text().splitlines()
    assert again[:3] == lines
    assert json.loads(again[3])["train_loss"] < last["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_logit(backend, tmp_path):
    arguments = ("--recipe", "binary_batches", "--epochs", 3)
    done = train(backend, "cnn_binary", *arguments, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in lines]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_auxiliary_heads_and_short_numbers(backend, tmp_path):
    done = train(
        *(backend, "googlenet", "--dataset", "digits", "--image-size", 32),
        *("--epochs", 1, "--batch-size", 256, "--precision", "bfloat16"),
        *("--augment", "none", "--output", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    # Three heads guess among ten classes: log(10) * (1 + 2 * 0.3), more or less.
    assert 2 < line["train_loss"] < 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--augment", "flip"), "--augment is done by tf.data, and Keras runs on jax"),
        (("--precision", "float64"), "--precision float64 needs TensorFlow"),
        (("--compile",), "--compile needs TensorFlow"),
        (("--deterministic",), "--deterministic is TensorFlow's"),
        (("--fast",), "--fast needs TensorFlow"),
    ],
)
def test_what_needs_tensorflow_says_so(arguments, message, tmp_path):
    done = train("jax", "lenet5", *arguments, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()

"""The programs as a user runs them: train, evaluate, predict, parity."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_impl.evaluate
import keras_impl.predict
import keras_impl.train
import torch_impl.evaluate
import torch_impl.predict
import torch_impl.train
from parity.frameworks import keras, torch
from parity.spec import cli, datasets, files, runs
from parity.spec.errors import UsageError, WeightMismatch

SIDES = {"keras": keras_impl, "torch": torch_impl}


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """A run folder of each side: two epochs of LeNet-5 on the digits."""
    folders = {}
    for name, side in SIDES.items():
        output = tmp_path_factory.mktemp("runs") / name
        options = runs.options("lenet5", epochs=2, output=output, quiet=True)
        folders[name] = side.train.train(options).folder
    return folders


@pytest.mark.parametrize("side", SIDES)
def test_the_run_folder(side, trained):
    folder = trained[side]
    native = {"keras": "model.keras", "torch": "model.pt"}[side]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            ".lock",
            "args.json",
            "checkpoints",
            "metrics.jsonl",
            "initial.safetensors",
            "final.safetensors",
            native,
            "curves.png",
            "predictions.png",
        ]
    )
    arguments = json.loads((folder / "args.json").read_text())
    assert arguments["model"] == "lenet5"
    assert (arguments["seed"], arguments["epochs"]) == (0, 2)
    assert arguments["parameters"] == 44_426
    assert {"python", {"keras": "tensorflow", "torch": "torch"}[side]} <= set(
        arguments["versions"]
    )
    epochs = [
        json.loads(x) for x in (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[1]["train_loss"] < epochs[0]["train_loss"]
    assert 0 < epochs[0]["train_accuracy"] < epochs[1]["train_accuracy"] <= 1
    for picture in ("curves.png", "predictions.png"):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 300


def test_both_sides_log_the_same_quantities(trained):
    names = [
        list(json.loads((folder / "metrics.jsonl").read_text().split("\n")[0]))
        for folder in trained.values()
    ]
    assert names[0] == names[1]
    arguments = [json.loads((f / "args.json").read_text()) for f in trained.values()]
    assert list(arguments[0]) == list(arguments[1])
    assert arguments[0]["mean"] == arguments[1]["mean"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("source", SIDES)
def test_either_side_evaluates_the_others_run(side, source, trained):
    folder = trained[source]
    last = json.loads((folder / "metrics.jsonl").read_text().split("\n")[-2])
    for path in (folder, folder / "final.safetensors"):
        result = SIDES[side].evaluate.evaluate(path)
        assert result["accuracy"] == pytest.approx(last["test_accuracy"])
        assert result["loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    result = SIDES[side].evaluate.evaluate(folder, split="train")
    assert result["accuracy"] == pytest.approx(last["train_accuracy"])


@pytest.mark.parametrize("side", SIDES)
def test_the_epochs_loss_is_weighted_by_batch_size(side, tmp_path):
    """With a rate near zero the loss of an epoch is the loss of the whole set."""
    output = tmp_path / "run"
    options = runs.options(
        "lenet5", epochs=1, learning_rate=1e-12, output=output, quiet=True
    )
    epoch = SIDES[side].train.train(options).epochs[0]
    result = SIDES[side].evaluate.evaluate(
        output / "initial.safetensors", split="train"
    )
    assert epoch["train_loss"] == pytest.approx(result["loss"], rel=1e-5)


def test_training_on_from_the_other_sides_weights(trained, tmp_path):
    weights = trained["torch"] / "final.safetensors"
    options = runs.options(
        "lenet5", epochs=1, weights=weights, output=tmp_path / "on", quiet=True
    )
    on = keras_impl.train.train(options)
    initial, _ = files.load_weights(on.folder / "initial.safetensors")
    final, _ = files.load_weights(weights)
    assert all(np.array_equal(initial[name], final[name]) for name in final)


def test_the_native_checkpoints_load_with_the_frameworks_own_functions(trained):
    images = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    model = keras.models.load_model(trained["keras"] / "model.keras")
    final, _ = files.load_weights(trained["keras"] / "final.safetensors")
    assert np.array_equal(model.out.bias.numpy(), final["out.bias"])
    assert model(images).shape == (4, 10)
    model = torch_impl.create_model("lenet5")
    state = torch.load(trained["torch"] / "model.pt", weights_only=True)
    model.load_state_dict(state, strict=True)
    final, _ = files.load_weights(trained["torch"] / "final.safetensors")
    assert np.array_equal(model.out.bias.detach().numpy(), final["out.bias"])


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> Path:
    """A folder of 24 photographs' worth of noise: dark dogs and bright cats."""
    folder = tmp_path_factory.mktemp("animals")
    random = np.random.default_rng(0)
    for name, level in (("cane", 60), ("gatto", 190)):
        (folder / name).mkdir()
        for index in range(12):
            pixels = random.normal(level, 20, (40, 36, 3)).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / name / f"{index}.jpeg", quality=95)
    (folder / "cane" / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize("side", SIDES)
def test_training_from_an_image_folder(side, animals, tmp_path):
    """The lecture's recipe: crops, a step scheduler; then the other side predicts."""
    options = runs.options(
        "cnn_two_layer",
        "animals",
        data_dir=animals,
        label_names="animals10",
        image_size=24,
        epochs=6,
        batch_size=8,
        metrics=("top1", "top5"),
        output=tmp_path / "run",
        quiet=True,
    )
    run = SIDES[side].train.train(options)
    assert run.epochs[-1]["train_accuracy"] == 1.0
    assert run.epochs[-1]["test_top5"] == 1.0
    assert [epoch["learning_rate"] for epoch in run.epochs[3:]] == pytest.approx(
        [1e-3, 1e-3, 6e-4]
    )
    other = next(name for name in SIDES if name != side)
    result = SIDES[other].evaluate.evaluate(
        run.folder,
        data_dir=animals,
        label_names="animals10",
        metrics=("top1", "top5"),
    )
    assert result["accuracy"] == pytest.approx(run.epochs[-1]["test_accuracy"])
    assert result["loss"] == pytest.approx(run.epochs[-1]["test_loss"], rel=0.05)
    with pytest.raises(UsageError, match="are --label-names those of the training"):
        SIDES[other].evaluate.evaluate(run.folder, data_dir=animals)
    probabilities, classes = SIDES[other].predict.predict(
        run.folder, [animals / "cane" / "3.jpeg", animals / "gatto" / "4.jpeg"]
    )
    assert list(classes) == ["cat", "dog"]
    assert probabilities.argmax(1).tolist() == [1, 0]


@pytest.mark.parametrize("side", SIDES)
def test_zeros_against_ones(side, tmp_path):
    options = runs.options(
        "cnn_binary",
        "binary_batches",
        epochs=15,
        output=tmp_path / "run",
        quiet=True,
    )
    run = SIDES[side].train.train(options)
    assert run.epochs[-1]["test_accuracy"] > 0.95
    digits = datasets.load_digits(28, 28)
    paths = []
    for label in (0, 1):
        index = int(np.flatnonzero(digits[3] == label)[0])
        paths.append(tmp_path / f"{label}.png")
        Image.fromarray(digits[2][index, ..., 0]).save(paths[-1])
    probabilities, classes = SIDES[side].predict.predict(run.folder, paths)
    assert list(classes) == ["0", "1"]
    assert probabilities.shape == (2, 2)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-6)
    assert probabilities.argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("side", SIDES)
def test_a_training_with_dropout_comes_again(side, tmp_path):
    losses = []
    for name in ("first", "again"):
        options = runs.options(
            "cnn_padded_pool", epochs=1, output=tmp_path / name, quiet=True
        )
        losses.append(SIDES[side].train.train(options).epochs[0]["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_lockstep_on_image_files(animals, tmp_path):
    done = run(
        *("parity", "train", "cnn_padded_pool", "--dataset", "folder"),
        *("--data-dir", animals, "--image-size", "20", "--augment", "crop,flip"),
        *("--batch-size", "7", "--steps", "4"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 steps of adam in float64 on cpu: equal")


@pytest.mark.slow
def test_data_that_does_not_fit_a_run(trained, animals):
    for arguments, message in (
        (("--dataset", "folder", "--data-dir", animals), "of 1 channels; folder has 3"),
        (("--label-names", "animals10"), "--label-names goes with --dataset folder"),
        (("--dataset", "folder", "--data-dir", animals / "none"), "no such folder"),
    ):
        done = run("torch_impl.evaluate", trained["keras"], *arguments)
        assert done.returncode == 2
        assert message in last_line(done)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    images, labels = datasets.load_digits(28, 28)[2:]
    for index in range(3):
        paths.append(folder / f"{labels[index]}-{index}.png")
        Image.fromarray(images[index, ..., 0]).resize((56, 56), 0).save(paths[-1])
    return paths


def test_both_sides_predict_the_same_probabilities(trained, pictures):
    (ours, classes), (theirs, same) = (
        side.predict.predict(trained["torch"], pictures) for side in SIDES.values()
    )
    assert ours.shape == (3, 10)
    assert tuple(classes) == tuple(same) == datasets.DIGITS
    assert np.allclose(ours.sum(1), 1, atol=1e-6)
    assert np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_predict_and_evaluate_on_the_command_line(side, trained, pictures):
    done = run(f"{side}_impl.predict", trained["torch"], *pictures)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, pictures))
    assert "converted:" not in done.stderr
    done = run(f"{side}_impl.evaluate", trained["torch"], "--metrics", "top1,top5")
    assert done.returncode == 0, done.stderr
    assert re.match(r"test loss \S+  test accuracy \S+  test top5 \S+$", done.stdout)


@pytest.mark.parametrize("side", SIDES)
def test_an_image_that_is_converted_is_named(side, trained, pictures, tmp_path, capsys):
    deep = tmp_path / "deep.png"
    with Image.open(pictures[0]) as image:
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(deep)
    (probabilities, classes), (same, _) = (
        SIDES[side].predict.predict(trained["torch"], [path])
        for path in (pictures[0], deep)
    )
    assert np.array_equal(probabilities, same)
    cli.print_predictions([pictures[0], deep], [probabilities[0]] * 2, classes)
    assert capsys.readouterr().err == f"converted: {deep}, an image of 16 bits\n"


@pytest.mark.parametrize("side", SIDES)
def test_training_on_the_command_line(side, tmp_path):
    output = tmp_path / "a run"
    arguments = (f"{side}_impl.train", "lenet5", "--epochs", 1, "--output", output)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("epoch 1/1  train_loss ")
    assert lines[-1].startswith("test accuracy 0.")
    assert lines[-1].endswith(f", run in {output}")
    before = (output / "metrics.jsonl").read_bytes()
    done = run(*arguments)
    assert done.returncode == 2
    assert "holds a run already; choose another --output" in last_line(done)
    assert (output / "metrics.jsonl").read_bytes() == before


def last_line(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_errors_after_the_frameworks_are_loaded(trained, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((trained["torch"] / "final.safetensors").read_bytes()[:5000])
    other = tmp_path / "other"
    options = runs.options("lenet5_1998", epochs=1, output=other, quiet=True)
    torch_impl.train.train(options)
    for side in SIDES.values():
        for arguments, error, message in (
            ({"weights": broken}, UsageError, "is not a whole safetensors file"),
            (
                {"weights": other / "final.safetensors"},
                WeightMismatch,
                "does not fit: fc1.weight is",
            ),
            ({"output": broken}, UsageError, "cannot make"),
        ):
            arguments = {"output": tmp_path / "never", **arguments}
            options = runs.options("lenet5", epochs=1, quiet=True, **arguments)
            with pytest.raises(error, match=message):
                side.train.train(options)
        assert not (tmp_path / "never").exists()


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU here")
@pytest.mark.parametrize("side", SIDES)
def test_a_gpu_that_is_not_there(side):
    done = run(f"{side}_impl.train", "lenet5", "--device", "gpu")
    assert done.returncode == 2
    assert "sees no GPU here; --device cpu or auto would do" in last_line(done)


@pytest.mark.parametrize("program", ["train", "evaluate", "predict", "summary"])
@pytest.mark.parametrize("side", SIDES)
def test_help_loads_no_framework(side, program):
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'tensorflow', 'keras'): sys.modules[name] = None\n"
        f"sys.argv = ['x', '--help']\n"
        f"runpy.run_module('{side}_impl.{program}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {side}_impl.{program}")


def test_both_sides_have_the_same_flags():
    usages = [
        run(f"{side}_impl.{program}", "--help").stdout.replace(side, "side")
        for program in ("train", "evaluate", "predict", "summary")
        for side in SIDES
    ]
    for ours, theirs in zip(usages[::2], usages[1::2], strict=True):
        assert ours.split() == theirs.split()


@pytest.mark.slow
def test_parity_compare_on_the_command_line(trained, tmp_path):
    done = run("parity", "compare", "lenet5", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("outputs in float64 on cpu: equal")
    assert json.loads((tmp_path / "report.json").read_text())["outputs"]["layers"]
    done = run(
        "parity",
        "compare",
        "lenet5",
        "--keras",
        trained["keras"] / "final.safetensors",
        "--torch",
        trained["torch"] / "model.pt",
    )
    assert done.returncode == 1, done.stderr
    assert "first divergence: conv1" in done.stdout
    done = run("parity", "compare", "lenet6")
    assert done.returncode == 2
    assert "unknown model 'lenet6'; did you mean lenet5" in last_line(done)


@pytest.mark.slow
def test_parity_train_on_the_command_line(tmp_path):
    arguments = ("parity", "train", "lenet5", "--batch-size", "16")
    done = run(*arguments, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 steps of adam in float64 on cpu: equal")
    assert "test accuracy: keras 0." in done.stdout
    # A training that leaves the numbers is reported like any other.
    arguments += ("--optimizer", "sgd", "--lr", "1e30", "--steps", "3")
    done = run(*arguments, "--dtype", "float32", "--json", tmp_path / "report.json")
    assert done.returncode in (0, 1), done.stderr
    steps = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert [step["number"] for step in steps] == [1, 2, 3]


@pytest.mark.slow
def test_parity_train_makes_whole_epochs(tmp_path):
    done = run("parity", "train", "lenet5", "--epochs", "1", "--batch-size", "700")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 steps of adam")


@pytest.mark.slow
def test_parity_convert_on_the_command_line(trained, tmp_path):
    target = tmp_path / "model.weights.h5"
    done = run("parity", "convert", "lenet5", trained["torch"] / "model.pt", target)
    assert done.returncode == 0, done.stderr
    assert "fc1.weight               (HWC)O -> O(CHW)" in done.stdout
    model = keras_impl.create_model("lenet5")
    model.load_weights(target)
    final, _ = files.load_weights(trained["torch"] / "final.safetensors")
    assert np.array_equal(model.out.bias.numpy(), final["out.bias"])
    done = run("parity", "convert", "lenet5_1998", target, tmp_path / "b.pt")
    assert done.returncode == 2
    assert "does not fit lenet5_1998" in last_line(done)


@pytest.mark.slow
def test_parity_accuracy_on_the_command_line():
    arguments = ("parity", "accuracy", "lenet5", "--epochs", "1", "--seed", "3")
    done = run(*arguments, "--seeds", "2")
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["seed", "3"], ["seed", "4"]]
    assert ("equivalent within" in lines[2]) == (done.returncode == 0) or (
        "not shown" in lines[2]
    )
    assert run(*arguments, "--seeds", "1").returncode == 2


@pytest.mark.parametrize(
    "arguments", [[], ["compar"], ["train", "lenet5", "--steps", "0"]]
)
def test_wrong_usage_of_parity(arguments):
    done = run("parity", *arguments)
    assert done.returncode == 2
    assert last_line(done).startswith("python -m parity")

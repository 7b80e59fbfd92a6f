"""`python -m parity runs`: verdicts, the table, the picture, wrong folders."""

import argparse
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from parity import run_curves, runs_command
from parity.spec import files
from parity.spec.errors import UsageError

ARGUMENTS = {
    "model": "lenet5",
    "epochs": 8,
    "learning_rate": 0.001,
    "clip_norm": None,
    "precision": "float32",
    "seed": 0,
    "output": "anywhere",
    "framework": "torch",
    "test_size": 10_000,
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
}


def lines(noise: float = 0.0, growth: float = 1.0, epochs: int = 8) -> list[dict]:
    """Returns an ordinary training's epochs, parted by noise that grows."""
    epochs = [
        {
            "epoch": epoch,
            "train_loss": (2 / epoch) * (1 + noise * growth ** (epoch - 1)),
            "train_accuracy": 1 - 0.5 / epoch,
            "test_loss": (2.1 / epoch) * (1 - 3 * noise * growth ** (epoch - 1)),
            "test_accuracy": 1 - 0.6 / epoch,
            "learning_rate": 0.001,
            "seconds": 2.0 + noise,
            "images_per_second": 1000.0 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    epochs[0]["first_loss"] = 2.3 * (1 + noise)
    return epochs


@pytest.fixture
def run(tmp_path):
    """Gives what makes a run folder."""

    def make(name, epochs=None, weights=0.0, **changes):
        folder = tmp_path / name
        files.write_json(folder / "args.json", ARGUMENTS | changes)
        epochs = lines() if epochs is None else epochs
        text = "".join(f"{json.dumps(files.plain(line))}\n" for line in epochs)
        (folder / "metrics.jsonl").write_text(text)
        if weights is not None:
            tensors = {"fc.weight": np.full((2, 3), weights, np.float32)}
            files.save_weights(folder / "initial.safetensors", tensors, {})
        return folder

    return make


def compared(*folders):
    return run_curves.compare(*run_curves.read(folders))


def given(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    runs_command.add_arguments(parser.add_subparsers())
    return runs_command.main(parser.parse_args(["runs", *map(str, arguments)]))


def changed(epoch: int, **values: float) -> list[dict]:
    """Returns the epochs of rounding with other values in one."""
    epochs = lines(1e-7, 5)
    epochs[epoch - 1] |= values
    if epochs[0]["first_loss"] is None:
        del epochs[0]["first_loss"]
        epochs[0]["train_loss"] = 2.1
    return epochs


def test_the_same_numbers_are_equal(run):
    other = run("b", framework="keras", versions={"python": "3.11.7", "keras": "3"})
    found = compared(run("a"), other)
    assert (found.verdict, found.parting, found.reasons) == ("equal", None, ())
    assert str(found) == "b against a: equal over 8 epochs"


def test_one_number_in_the_last_digit_is_not_equal(run):
    epochs = lines()
    epochs[4]["test_loss"] = math.nextafter(epochs[4]["test_loss"], 9)
    found = compared(run("a"), run("b", epochs))
    assert found.verdict == "rounding"
    assert found.parting[:2] == (5, "test_loss")


def test_seconds_do_not_count(run):
    epochs = [line | {"seconds": 99.0, "memory_mib": 3.0} for line in lines()]
    assert compared(run("a"), run("b", epochs)).verdict == "equal"


@pytest.mark.parametrize("known", [True, False])
def test_what_grows_from_rounding_is_rounding(run, known):
    epochs, others = lines(), lines(1e-7, 6)
    if not known:
        del epochs[0]["first_loss"]
    changes = {"framework": "keras", "device": "/CPU:0", "workers": 3, "compile": True}
    found = compared(run("a", epochs), run("b", others, **changes))
    assert found.verdict == "rounding"
    assert found.parting[:2] == (2, "test_loss")  # 1.8e-6, the first above 1e-6
    quantity = "first step's loss" if known else "first epoch's train_loss"
    assert f"the {quantity} differs by 1.0e-07; last" in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": 1e-7}, "another start: initial.safetensors"),
        ({"seed": 1}, "arguments that differ: seed"),
        ({"clip_norm": 1.0}, "arguments that differ: clip_norm"),
        ({"precision": "bfloat16"}, "arguments that differ: precision"),
        ({"epochs": changed(1, first_loss=2.301)}, "first step's losses differ by 4"),
        ({"epochs": changed(1, first_loss=math.nan)}, "losses differ by inf"),
        ({"epochs": changed(1, first_loss=None)}, "first epoch's train_loss differs"),
        ({"epochs": changed(1, test_loss=2.11)}, "only tests see is another"),
        ({"epochs": changed(7, learning_rate=1e-4)}, "other learning rates"),
        ({"epochs": changed(8, test_accuracy=0.91)}, "contradict each other, p = "),
        ({"epochs": changed(5, train_loss=math.nan)}, "only: epoch 5, train_loss"),
        ({"epochs": changed(5, test_loss=math.inf)}, "only: epoch 5, test_loss"),
    ],
)
def test_what_rounding_does_not_explain_is_different(run, changes, reason):
    rounding = {"epochs": lines(1e-7, 5)}
    assert compared(run("a"), run("same", **rounding)).verdict == "rounding"
    found = compared(run("a"), run("b", **rounding | changes))
    assert found.verdict == "different"
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]


def test_the_first_parting_is_named(run):
    found = compared(run("a"), run("b", changed(2, train_accuracy=0.7)))
    assert found.parting[:2] == (2, "train_accuracy")
    assert "part in epoch 2, train_accuracy, by 6.7e-02 of it" in str(found)


def test_nan_and_infinity_at_the_same_places_are_equal(run):
    epochs = lines()
    epochs[3] |= {"train_loss": math.nan, "test_loss": math.inf}
    found = compared(run("a", epochs), run("b", epochs))
    assert found.verdict == "equal"
    assert '"NaN"' in (run("a", epochs) / "metrics.jsonl").read_text()


def test_learning_rates_that_follow_the_losses_may_differ(run):
    epochs = changed(7, learning_rate=1e-4)
    folders = (
        run(name, x, scheduler="plateau") for name, x in (("a", None), ("b", epochs))
    )
    assert compared(*folders).verdict == "rounding"


def test_accuracies_are_judged_by_the_number_of_test_images(run):
    epochs = lines(1e-7, 5)
    epochs[-1]["test_accuracy"] -= 0.02
    verdicts = [
        compared(run("a", test_size=size), run("b", epochs, test_size=size)).verdict
        for size in (100, 100_000)
    ]
    assert verdicts == ["rounding", "different"]
    found = compared(run("a", test_size=100), run("b", epochs))
    assert "does not say the same test_size" in found.reasons[1]


def test_an_argument_that_only_one_run_knows_is_shown_and_not_judged(run):
    folders = run("a"), run("b", new_flag=3)
    assert run_curves.differing(run_curves.read(folders)) == {"new_flag": [None, 3]}
    assert compared(*folders).verdict == "equal"


def test_weights_are_judged_by_what_was_loaded(run):
    first, second = run("a"), run("b", lines(1e-7, 5))
    for folder, path in ((first, None), (second, "a/initial.safetensors")):
        arguments = json.loads((folder / "args.json").read_text()) | {"weights": path}
        files.write_json(folder / "args.json", arguments)
    assert compared(first, second).verdict == "rounding"
    (second / "initial.safetensors").unlink()
    assert compared(first, second).reasons == ("arguments that differ: weights",)


def test_common_epochs_are_compared_and_that_is_said(run):
    found = compared(run("a"), run("b", lines()[:5]))
    assert (found.verdict, found.epochs) == ("equal", 5)
    assert found.reasons == ("of a's 8 epochs the first 5 are compared",)
    single = compared(run("a"), run("c", lines()[:1]))
    assert str(single).startswith("c against a: equal over 1 epoch\n")


def test_several_runs(run, capsys, tmp_path):
    folders = [run("a"), run("b", lines(1e-7, 5), framework="keras"), run("c", seed=1)]
    report = tmp_path / "report.json"
    assert given(*folders, "--json", report) == 0
    text = capsys.readouterr().out
    table = [line.split() for line in text.splitlines()]
    assert ["argument", "a", "b", "c"] in table
    assert ["seed", "0", "0", "1"] in table
    assert ["framework", "torch", "keras", "torch"] in table
    assert not any(row[:1] in (["model"], ["output"]) for row in table)
    (summary,) = (line for line in text.splitlines() if line.startswith("a  "))
    assert summary.split() == [
        *("a", "8/8", "0.9250", "0.9250", "(epoch", "8)", "0.25", "16.0", "4,500")
    ]
    assert "b against a: rounding over 8 epochs" in text
    assert "c against a: equal over 8 epochs" in text
    found = json.loads(report.read_text())
    assert [x["verdict"] for x in found["comparisons"]] == ["rounding", "equal"]
    assert found["arguments"]["seed"] == [0, 0, 1]
    assert found["runs"][1]["best_epoch"] == 8


def test_a_different_run_is_exit_code_1(run):
    assert given(run("a"), run("b", lines(1e-7, 5), seed=1), run("c")) == 1


def test_nested_arguments_are_flattened(run, capsys):
    given(run("a"), run("b", versions={"python": "3.12.0", "torch": "2.14.1"}))
    text = capsys.readouterr().out
    assert "versions.python  3.11.7  3.12.0" in text
    assert "versions.torch" not in text


def test_folders_of_the_same_name_are_told_apart(run):
    records = run_curves.read([run("x/run"), run("y/run"), run("z")])
    assert [record.label for record in records] == [
        *(str(record.folder) for record in records[:2]),
        "z",
    ]


def test_damage_is_named_by_file_and_line(run):
    good = run("a")
    whole = (good / "metrics.jsonl").read_text().splitlines()
    damaged = {
        '{"epoch": 3, "train_lo': "Unterminated",
        "[]": "no object",
        '{"epoch": 3, "train_loss": "many"}': "'many' is not a number",
        '{"epoch": 3, "train_loss": true}': "True is not a number",
        '{"epoch": 4, "train_loss": 1.0}': "not epoch 3",
        '{"epoch": 3, "train_loss": 1.0}': "no train_accuracy",
    }
    for line, message in damaged.items():
        bad = run("b")
        text = "\n".join([*whole[:2], line, *whole[3:]])
        (bad / "metrics.jsonl").write_text(text)
        with pytest.raises(UsageError, match="b/metrics.jsonl, line 3,") as error:
            given(good, bad)
        assert message in str(error.value)


def test_a_folder_that_is_no_run(run, tmp_path):
    with pytest.raises(UsageError, match="nothing holds no run"):
        given(run("a"), tmp_path / "nothing")


def test_a_run_without_an_epoch(run):
    begun = run("b")
    (begun / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="b has no whole epoch yet"):
        given(run("a"), begun)
    with pytest.raises(UsageError, match="b has no whole epoch yet"):
        given(begun, run("a"))


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_the_picture(run, tmp_path, count):
    from PIL import Image

    folders = [run(f"run-{i}", lines(0.03 * i)) for i in range(count)]
    path = tmp_path / "curves.png"
    given(*folders, "--output", path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        colors = {color for _, color in image.convert("RGB").getcolors(1_000_000)}
    drawn = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2")
    for color in drawn[:count]:
        assert tuple(bytes.fromhex(color)) in colors


def test_a_picture_of_losses_that_are_not_finite(run, tmp_path):
    epochs = [
        line | {"train_loss": math.nan, "test_loss": math.inf} for line in lines()
    ]
    path = tmp_path / "curves.png"
    given(run("a", epochs), run("b", lines()[:1]), "--output", path)
    given(run("a", epochs), run("b", epochs), "--output", path)
    assert path.exists()


def test_no_framework_is_loaded(run, tmp_path):
    folders = [str(run("a")), str(run("b", changed(8, test_accuracy=0.924)))]
    words = ["runs", *folders, "--output", str(tmp_path / "curves.png")]
    code = f"""
import argparse, sys
from parity import runs_command
parser = argparse.ArgumentParser()
runs_command.add_arguments(parser.add_subparsers())
code = runs_command.main(parser.parse_args({words}))
loaded = {{"torch", "tensorflow", "keras", "jax"}} & set(sys.modules)
sys.exit(f"{{loaded}}" if loaded else code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "rounding" in done.stdout

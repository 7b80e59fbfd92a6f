"""The benchmarks run and say what they measured; and what the engine is fast by."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.frameworks import keras, tf, torch
from keras_impl import create_model as create_keras_model
from keras_impl import steps as keras_steps
from parity.spec import datasets
from torch_impl import create_model as create_torch_model
from torch_impl import steps as torch_steps

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    return common


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_train_measures_all_loops(tmp_path):
    report, chart = tmp_path / "a.json", tmp_path / "a.png"
    flags = ("--models", "lenet5", "--rounds", 1, "--processes", 1)
    flags += ("--precision", "bfloat16", "--deterministic")
    text = run("train.py", *flags, "--json", report, "--chart", chart)
    result = json.loads(report.read_text())["models"]["lenet5"]
    loops = {"engine", "limit", "plain", "bfloat16"}
    assert set(result["loops"]) == {
        *(f"{side} {loop}" for side in ("keras", "torch") for loop in loops),
        "keras fit",
        "torch lecture",
    }
    assert all(loop in text for loop in result["loops"])
    programs = result["programs"]
    kinds = ("", " deterministic")
    assert set(programs) == {f"{x}{kind}" for x in ("keras", "torch") for kind in kinds}
    for values in programs.values():
        assert values["first_step"] > values["after_import"] > 0
        assert values["peak_mib"] > 100
    assert chart.stat().st_size > 1000


@pytest.mark.slow
def test_scaling_measures_both_sides(tmp_path):
    report, chart = tmp_path / "a.json", tmp_path / "a.png"
    flags = ("--what", "images", "--points", "256,512", "--folder", tmp_path)
    run("scaling.py", *flags, "--json", report, "--chart", chart)
    growth = json.loads(report.read_text())["growth"]["images"]
    for side in ("keras", "torch"):
        assert [point["steps"] for point in growth[side].values()] == [2, 4]
        assert all(point["mib_at_the_end"] > 100 for point in growth[side].values())
    assert chart.stat().st_size > 1000
    assert not list(tmp_path.glob("**/*.npy"))


@pytest.mark.slow
def test_an_unknown_name_is_refused():
    for script, flag in (("train.py", "--models"), ("scaling.py", "--what")):
        command = [sys.executable, str(BENCHMARKS / script), flag, "lenet"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert "unknown" in done.stderr and "'lenet'" in done.stderr


def test_rounds_take_turns(common):
    calls = []
    loops = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = common.time_rounds(loops, 2, "wall")
    assert "".join(calls) == "abcbcacab"
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys(
        "abc", 2
    )


def test_a_ratio_is_taken_round_by_round(common):
    # Every round is twice as slow for both: the ratio is the same in all.
    found = common.ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert found == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert common.show_ratio(found) == "2.00 (2.00 to 2.00)"


def test_a_table_is_markdown(common):
    table = common.show_table(("name", "ms"), [("a", 1.5), ("longer", 12)])
    assert table.splitlines() == [
        "| name   |  ms |",
        "| ------ | --: |",
        "| a      | 1.5 |",
        "| longer |  12 |",
    ]


def test_the_digits_are_split_as_scikit_learn_splits_them():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=42
    )
    images, train_labels, test_images, test_labels = datasets.load_digits(8, 8)
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    np.testing.assert_array_equal(images, pixels[train])
    np.testing.assert_array_equal(train_labels, labels[train])
    np.testing.assert_array_equal(test_images, pixels[test])
    np.testing.assert_array_equal(test_labels, labels[test])


def test_loading_digits_does_not_load_scikit_learn():
    code = (
        "import sys; from parity.spec import datasets; datasets.load_digits(28, 28); "
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_keras_traces_one_step_for_all_batches():
    model = create_keras_model("lenet5", num_classes=10, seed=0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (64, 28, 28, 1), np.uint8)
    tensors = tf.constant(images), tf.constant(random.integers(0, 10, 64))
    step = keras_steps.make_train_step(model, keras.optimizers.SGD(0.01))
    steps = keras_steps.make_train_steps(step, tensors, (0.5,), (0.3,))
    for count, size in ((1, 8), (2, 8), (4, 8), (1, 5)):
        losses = steps(tf.constant(random.integers(0, 64, (count, size))))
        assert losses.shape == (count,)
    assert steps.experimental_get_tracing_count() == 1
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("make", ["train", "predict"])
@pytest.mark.parametrize(("precision", "last"), [("float32", True), ("float64", False)])
def test_torch_lays_kernels_out_for_the_processor(make, precision, last):
    dtype = getattr(torch, precision)
    model = create_torch_model("cnn_two_layer").to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if make == "train":
        optimizer = torch.optim.SGD(model.parameters())
        torch_steps.make_train_step(model, optimizer, precision)
    else:
        torch_steps.make_predictor(model, precision)
    kernel = next(p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last) == last
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.slow
def test_diagnoses_of_two_libraries_networks():
    text = run("diagnose.py", "MobileNetV2", "--size", 64)
    line = next(line for line in text.splitlines() if "MobileNetV2" in line)
    assert "different" in line
    assert "5 conv.padding, 52 bn.epsilon" in line

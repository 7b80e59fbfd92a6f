"""Layouts, files, padding and the command line's parser."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.spec import (
    cli,
    files,
    layouts,
    metrics,
    recipes,
    run_folder,
    runs,
)
from parity.spec.errors import UsageError, WeightMismatch
from parity.spec.padding import ceil_padding, same_padding

sizes = st.integers(1, 5)


def counted(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


@given(st.tuples(sizes, sizes, sizes, sizes))
@settings(derandomize=True)
def test_convolution_kernels(shape):
    layout = layouts.find("conv", "Conv2D", "kernel", shape, None)
    kernel = counted(shape)
    there = layout.to_torch(kernel)
    assert there.shape == layout.torch_shape == (shape[3], shape[2], *shape[:2])
    assert there[-1, 0, 0, -1] == kernel[0, -1, 0, -1]
    assert np.array_equal(layout.to_keras(there), kernel)


@given(st.tuples(sizes, sizes, sizes), sizes)
@settings(derandomize=True)
def test_a_dense_layer_after_a_flattened_map(shape, units):
    height, width, channels = shape
    features = (height * width * channels, units)
    layout = layouts.find("fc", "Dense", "kernel", features, shape)
    kernel = counted(features)
    there = layout.to_torch(kernel)
    assert there.shape == layout.torch_shape == features[::-1]
    assert np.array_equal(layout.to_keras(there), kernel)
    # The weight of pixel (y, x, c) is found at the pixel's place in (C, H, W) order.
    images = counted(shape) + 1
    assert np.array_equal(
        images.reshape(-1) @ kernel, there @ images.transpose(2, 0, 1).reshape(-1)
    )


def test_a_weight_without_a_rule():
    with pytest.raises(WeightMismatch, match="no layout rule for 'alpha' of PReLU"):
        layouts.find("act", "PReLU", "alpha", (3,), None)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4))
@settings(derandomize=True)
def test_same_padding_covers_the_image(size, kernel_size, stride):
    before, after = same_padding(size, kernel_size, stride)
    padded = size + before + after
    outputs = (padded - kernel_size) // stride + 1
    assert outputs == -(-size // stride)
    assert 0 <= after - before <= 1


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
@settings(derandomize=True, deadline=None)
def test_ceil_padding_gives_pytorchs_number_of_windows(size, kernel, stride, padding):
    torch = pytest.importorskip("torch")
    if 2 * padding > kernel or size + 2 * padding < kernel:
        return
    images = torch.zeros(1, 1, size, size)
    pool = torch.nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    padded = size + 2 * padding + ceil_padding(size, kernel, stride, padding)
    assert (padded - kernel) // stride + 1 == pool(images).shape[2]


def test_the_lectures_learning_rates():
    options = runs.options("resnet18")
    assert (options.dataset, options.batch_size, options.epochs) == ("folder", 128, 50)
    assert options.augment == ("crop",)
    rates = [options.epoch_learning_rate(epoch) for epoch in (0, 4, 5, 14, 49)]
    assert rates == pytest.approx([1e-3, 1e-3, 6e-4, 3.6e-4, 1e-3 * 0.6**9])
    constant = runs.options("resnet18", scheduler="constant", augment=())
    assert constant.epoch_learning_rate(49) == 1e-3
    assert constant.augment == ()


def test_a_recipe_by_name():
    full = runs.options("cnn_binary")
    assert (full.batch_size, full.epochs) == ("full", 50)
    assert [len(batch) for batch in runs.batch_order(full, 287, 0)] == [287]
    batches = runs.options("cnn_binary", "binary_batches")
    assert (batches.batch_size, batches.epochs) == (128, 5)
    lab = runs.options("cnn_two_layer", batch_size=60)
    assert lab.drop_last
    assert [len(batch) for batch in runs.batch_order(lab, 130, 0)] == [60, 60]
    with pytest.raises(UsageError, match="40 training images do not fill a batch of"):
        runs.batch_order(lab, 40, 0)
    with pytest.raises(UsageError, match="unknown recipe 'animal'; did you mean"):
        runs.options("cnn_binary", "animal")


def test_a_last_batch_of_one_image_joins_the_one_before():
    options = runs.options("resnet18", batch_size=4)
    order = runs.batch_order(options, 13, 0)
    assert [len(batch) for batch in order] == [4, 4, 5]
    assert sorted(np.concatenate(order)) == list(range(13))
    assert [len(x) for x in runs.batch_order(options, 14, 0)] == [4, 4, 4, 2]
    single = runs.options("resnet18", batch_size=1)
    assert len(runs.batch_order(single, 3, 0)) == 3


def test_the_size_to_train_at():
    sizes = {
        ("lenet5", "digits"): 28,
        ("lenet5", "cifar10"): 32,
        ("block_dense", "digits"): 8,
        ("resnet18", "digits"): 64,
        ("alexnet", "cifar10"): 64,
        ("resnet18", "folder"): 224,
    }
    for (model, dataset), size in sizes.items():
        assert runs.options(model, dataset=dataset).image_size == size


def test_every_models_training_exists():
    for recipe in recipes.RECIPES.values():
        assert recipes.training(recipe.training).epochs > 0
    assert {recipe.name for recipe in recipes.RECIPES.values()} == set(recipes.RECIPES)


def test_top5_is_the_lectures():
    """Right when the class is among the five likeliest."""
    logits = np.array([[9, 8, 7, 6, 5, 4], [0, 1, 2, 3, 4, 5], [1, 0, 0, 0, 0, 0.5]])
    assert metrics.top5_accuracy(logits, np.array([4, 0, 5])) == pytest.approx(2 / 3)
    assert metrics.accuracy(logits, np.array([0, 5, 5])) == pytest.approx(2 / 3)
    assert metrics.top5_accuracy(logits[:, :5], np.array([4, 0, 1])) == 1.0


def test_one_logit_predicts_the_second_class():
    logits = np.array([[-0.1], [0.0], [0.2]])
    assert metrics.predicted_labels(logits).tolist() == [0, 0, 1]
    with pytest.raises(UsageError, match="cnn_binary tells two classes apart, not 3"):
        recipes.num_outputs(recipes.find("cnn_binary"), 3)


@given(st.integers(1, 3000), st.integers(8, 1500), st.integers(8, 1500))
@settings(derandomize=True)
def test_predictions_cover_every_image_once(size, height, width):
    order = metrics.in_order(size, height, width)
    assert np.array_equal(np.concatenate(order), np.arange(size))
    largest = max(map(len, order))
    assert largest == 1 or largest * height * width <= metrics.PIXELS_AT_ONCE


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("old")

    def fail(target):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match="cannot write .*: No space left on device"):
        files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path):
    """A write that the operating system cuts off is one line, and nothing is lost."""
    code = (
        "import numpy as np, resource, signal\n"
        "from pathlib import Path\n"
        "from parity.spec import cli, files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "cli.run('x', lambda: files.save_weights("
        f"Path({str(tmp_path / 'a.safetensors')!r}), {{'x': np.ones(100_000)}}, {{}}))"
    )
    files.save_weights(tmp_path / "a.safetensors", {"x": np.ones(1)}, {})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("python -m x: error: cannot write ")
    assert done.stderr.count("\n") == 1
    assert files.load_weights(tmp_path / "a.safetensors")[0]["x"].tolist() == [1.0]


def test_json_has_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [math.nan, math.inf, -math.inf, 1.5]})
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert content == {"a": ["NaN", "Infinity", "-Infinity", 1.5]}


def test_default_run_folders_are_never_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "now")
    options = runs.options("lenet5")
    folders = {run_folder.Run(options, "keras", {}).folder for _ in range(3)}
    assert len(folders) == 3
    long = runs.options("lenet5", output=tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match="cannot make"):
        run_folder.Run(long, "keras", {})


def test_weights_files_keep_names_values_and_metadata(tmp_path):
    path = tmp_path / "new folder" / "a.safetensors"
    kernel = counted((2, 3, 4)).astype(np.float32).transpose(2, 0, 1)  # not contiguous
    files.save_weights(path, {"conv.weight": kernel}, {"model": '"lenet5"'})
    tensors, metadata = files.load_weights(path)
    assert np.array_equal(tensors["conv.weight"], kernel)
    assert metadata == {"model": '"lenet5"'}


@pytest.mark.parametrize("size", [0, 4, 100])
def test_a_truncated_weights_file(tmp_path, size):
    path = tmp_path / "a.safetensors"
    files.save_weights(path, {"x": np.ones(100, np.float32)}, {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        files.load_weights(path)


def test_missing_weights_and_runs(tmp_path):
    with pytest.raises(UsageError, match="no such weights file: .*none"):
        files.load_weights(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="no such weights file: .*final.safetensors"):
        runs.find_trained(tmp_path)
    files.save_weights(tmp_path / "bare.safetensors", {"x": np.ones(1)}, {})
    with pytest.raises(UsageError, match="does not say how it was trained"):
        runs.find_trained(tmp_path / "bare.safetensors")


def test_the_recipes_defaults():
    options = cli.parse_train("x", ["lenet5"])
    assert (options.dataset, options.image_size, options.epochs) == ("digits", 28, 50)
    assert (options.optimizer, options.learning_rate) == ("adam", 1e-3)
    assert (options.batch_size, options.seed, options.device) == (256, 0, "auto")
    options = cli.parse_train("x", ["lenet5_1998", "--lr", "0.5", "--epochs", "3"])
    assert (options.image_size, options.learning_rate, options.epochs) == (32, 0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which MODEL? or --resume DIR to go on with a run"),
        (["lenet"], "unknown model 'lenet'; did you mean lenet5 or lenet5_1998?"),
        (["lenet5", "--epochs", "0"], "'0' is not an integer of 1 or more"),
        (["lenet5", "--batch-size", "x"], "'x' is not an integer of 1 or more"),
        (["lenet5", "--seed", "-1"], "'-1' is not an integer of 0 or more"),
        (["lenet5", "--seed", "9" * 20], "has more than 63 bits"),
        (["lenet5", "--lr", "nan"], "'nan' is not a number above zero"),
        (["lenet5", "--lr", "-1"], "'-1' is not a number above zero"),
        (
            ["lenet5", "--optimizer", "adm"],
            "unknown optimizer 'adm'; did you mean adam or adamw?",
        ),
        (
            ["lenet5", "--dataset", "mnst"],
            "unknown data set 'mnst'; did you mean mnist",
        ),
        (["lenet5", "--device", "tpu"], "unknown device 'tpu'; did you mean"),
        (["lenet5", "--image-size", "12"], "the smallest that works is 16x16"),
        (["lenet5", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["lenet5", "--recipe", "animal"], "unknown recipe 'animal'; did you mean ani"),
        (["lenet5", "--scheduler", "zigzag"], "unknown scheduler 'zigzag'; choose"),
        (["lenet5", "--augment", "crop,rotate"], "unknown augmentation 'rotate'"),
        (["lenet5", "--metrics", "top3"], "unknown metric 'top3'; did you mean"),
        (["lenet5", "--label-names", "a"], "--label-names goes with --dataset folder"),
        (["lenet5", "--strict-data"], "--strict-data goes with --dataset folder, not"),
        (["alexnet", "--image-size", "32"], "the smallest that works is 63x63"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse_train("keras_impl.train", arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("python -m keras_impl.train: error: ")
    assert error.count("\n") == 1

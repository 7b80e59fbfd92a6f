"""Event files of both sides: the same points, once each, from either writer."""

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest

import keras_impl.records
import torch_impl.records
from parity.frameworks import tf
from parity.spec.errors import UsageError

SIDES = {"keras": keras_impl.records, "torch": torch_impl.records}
EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 1.5 / epoch,
        "train_accuracy": 0.25 * epoch,
        "test_loss": math.nan if epoch == 2 else 0.1 + epoch,
        "test_accuracy": 1 / 3,
        "test_top5": 0.5,
        "learning_rate": 1e-3,
        "images_per_second": 12345.678,
    }
    for epoch in (1, 2, 3)
]
TAGS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/test": "test_accuracy",
    "top5/test": "test_top5",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}
needs_tensorboard = pytest.mark.skipif(
    not importlib.util.find_spec("tensorboard"), reason="TensorBoard is not installed"
)


@pytest.fixture(params=SIDES)
def writer(request):
    return SIDES[request.param].EventWriter


def write(writer, folder, epochs, first_epoch=0) -> None:
    records = writer(folder, first_epoch)
    for epoch in epochs:
        records.write(epoch["epoch"], epoch)
    records.close()


def points(folder) -> dict[str, list[tuple[int, float]]]:
    """Returns what TensorBoard's own reader finds: tag to steps and values."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import (
        EventAccumulator,
    )
    from tensorboard.util.tensor_util import make_ndarray

    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {
        tag: [
            (x.step, float(make_ndarray(x.tensor_proto))) for x in reader.Tensors(tag)
        ]
        for tag in reader.Tags()["tensors"]
    }


def expected(epochs) -> dict[str, list[tuple[int, float]]]:
    return {
        tag: [(epoch["epoch"], float(np.float32(epoch[name]))) for epoch in epochs]
        for tag, name in TAGS.items()
    }


def assert_same(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    for tag, values in wanted.items():
        np.testing.assert_array_equal(np.array(found[tag]), np.array(values), tag)


@needs_tensorboard
def test_every_metric_is_a_point(writer, tmp_path):
    write(writer, tmp_path, EPOCHS)
    assert_same(points(tmp_path), expected(EPOCHS))


@needs_tensorboard
def test_both_sides_write_the_same_events(tmp_path):
    events = {}
    for side, module in SIDES.items():
        write(module.EventWriter, tmp_path / side, EPOCHS)
        (file,) = (tmp_path / side / "tensorboard").iterdir()
        events[side] = [
            (event.step, value.tag, value.metadata.plugin_data.plugin_name)
            for event in map(read_event, tf.data.TFRecordDataset(str(file)))
            for value in event.summary.value
        ]
    assert events["keras"] == events["torch"]
    assert len(events["keras"]) == len(EPOCHS) * len(TAGS)


def read_event(record):
    return tf.compat.v1.Event.FromString(record.numpy())


@needs_tensorboard
def test_what_is_written_is_there_without_a_close(writer, tmp_path):
    records = writer(tmp_path)
    records.write(1, EPOCHS[0])
    assert_same(points(tmp_path), expected(EPOCHS[:1]))
    records.close()


@needs_tensorboard
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_run_that_goes_on_has_no_point_twice(writer, tmp_path, lost):
    old = [epoch | {"train_loss": 99.0} for epoch in EPOCHS[1:]]
    sessions = ([EPOCHS[0], *old[:lost]], EPOCHS[1:2], EPOCHS[2:])
    for done, epochs in enumerate(sessions):
        write(writer, tmp_path, epochs, done)
        # Names sort by the second, and a program does not start anew within one.
        (file,) = (tmp_path / "tensorboard").glob("events.*")
        file.rename(file.with_name(f"{done}.tfevents"))
    assert_same(points(tmp_path), expected(EPOCHS))


@needs_tensorboard
def test_a_folder_that_cannot_be_made(writer, tmp_path):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UsageError, match="cannot make .*tensorboard: File exists"):
        writer(tmp_path)


def test_without_tensorboard_one_line_says_what_would_do(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--tensorboard needs .* pip install tensorb"):
        writer(tmp_path)
    assert not list(tmp_path.iterdir())


@needs_tensorboard
@pytest.mark.slow
def test_the_torch_side_loads_no_tensorflow(tmp_path):
    code = f"""
import sys
from torch_impl.records import EventWriter
writer = EventWriter({str(tmp_path)!r})
writer.write(1, {{"train_loss": 0.5}})
writer.close()
assert "tensorflow" not in sys.modules
import torchvision
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert points(tmp_path) == {"loss/train": [(1, 0.5)]}

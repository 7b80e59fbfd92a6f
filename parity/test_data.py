"""Rung 1: both sides read the same pixels, labels and order, and batch them alike."""

import gzip
import shutil
import struct
import types
from pathlib import Path

import numpy as np
import pytest

from parity.frameworks import tf, torch
from keras_impl import data as keras_data
from parity.spec import datasets
from torch_impl import data as torch_data


def test_digits_are_the_same_on_both_sides():
    ours, theirs = (
        data.load("digits", Path("unused"), 32, 28) for data in (keras_data, torch_data)
    )
    assert ours.train_images.shape == (1437, 32, 28, 1)
    assert ours.test_images.shape == (360, 32, 28, 1)
    assert_same_datasets(ours, theirs)


def test_normalised_batches_are_bit_equal():
    batches = digit_batches(keras_order=ORDER, torch_order=ORDER)
    assert len(batches) == len(ORDER)
    for (images, labels), (torch_images, torch_labels) in batches:
        assert np.array_equal(np.moveaxis(images, 3, 1), torch_images)
        assert np.array_equal(labels, torch_labels)


def test_a_shifted_batch_is_seen():
    shifted = [np.roll(indices, 1) for indices in ORDER]
    (images, labels), (torch_images, torch_labels) = digit_batches(ORDER, shifted)[0]
    assert not np.array_equal(np.moveaxis(images, 3, 1), torch_images)
    assert not np.array_equal(labels, torch_labels)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_and_tfds_give_the_same_data(name, idx_files, tmp_path):
    prepare_tfds(name, idx_files, tmp_path / "tfds")
    ours = keras_data.load(name, tmp_path / "tfds", 28, 28)
    theirs = torch_data.load(name, place_idx(name, idx_files, tmp_path), 28, 28)
    assert ours.train_images.shape == (60, 28, 28, 1)
    assert_same_datasets(ours, theirs)
    # The common order is a reordering of the files: nothing lost, nothing twice.
    original = datasets.load_digits(28, 28)[0][:60]
    assert sorted(map(bytes, original)) == sorted(map(bytes, theirs.train_images))


def test_one_changed_pixel_is_seen(idx_files, tmp_path):
    theirs = torch_data.load("mnist", place_idx("mnist", idx_files, tmp_path), 28, 28)
    images = theirs.train_images.copy()
    images[7, 3, 4, 0] ^= 1
    changed = (images, theirs.train_labels, theirs.test_images, theirs.test_labels)
    ours = datasets.prepare("mnist", changed, 28, 28)
    with pytest.raises(AssertionError):
        assert_same_datasets(ours, theirs)


ORDER = list(datasets.epoch_batches(1437, 256, drop_last=False, seed=3, epoch=2))


def digit_batches(keras_order, torch_order):
    sides = []
    for data, order in ((keras_data, keras_order), (torch_data, torch_order)):
        digits = data.load("digits", Path("unused"), 28, 28)
        tensors = data.to_tensors(
            digits.train_images, digits.train_labels, digits.mean, digits.std
        )
        batches = data.batches(*tensors, order)
        sides.append([(x.numpy(), y.numpy()) for x, y in batches])
    assert isinstance(tensors[0], torch.Tensor)
    assert tf.is_tensor(keras_data.to_tensors(*tiny())[0])
    return list(zip(*sides, strict=True))


def tiny():
    return np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int64), (0.5,), (1.0,)


def assert_same_datasets(ours: datasets.Dataset, theirs: datasets.Dataset):
    for field, value in vars(ours).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(theirs, field).dtype, field
            assert np.array_equal(value, getattr(theirs, field)), field
        else:
            assert value == getattr(theirs, field), field


@pytest.fixture(scope="module")
def idx_files(tmp_path_factory) -> Path:
    """A folder of gzipped IDX files, as MNIST's, that hold 60 and 20 digits."""
    folder = tmp_path_factory.mktemp("idx")
    train_images, train_labels, test_images, test_labels = datasets.load_digits(28, 28)
    for prefix, images, labels in (
        ("train", train_images[:60], train_labels[:60]),
        ("t10k", test_images[:20], test_labels[:20]),
    ):
        header = struct.pack(">HBB3I", 0, 8, 3, len(images), 28, 28)
        path = folder / f"{prefix}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(header + images.tobytes()))
        header = struct.pack(">HBBI", 0, 8, 1, len(labels))
        path = folder / f"{prefix}-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(header + labels.astype(np.uint8).tobytes()))
    return folder


def place_idx(name: str, files: Path, tmp_path: Path) -> Path:
    source = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    shutil.copytree(files, tmp_path / "torchvision" / source / "raw")
    return tmp_path / "torchvision"


def prepare_tfds(name: str, files: Path, data_dir: Path):
    """Writes a builder directory with the real builder's own reader and writer."""
    import tensorflow_datasets as tfds

    original = type(tfds.builder(name, data_dir=data_dir))

    def split_generators(self, _):
        splits = {}
        for split, prefix, count in (("train", "train", 60), ("test", "t10k", 20)):
            unpacked = []
            for kind in ("images-idx3", "labels-idx1"):
                path = data_dir / f"{prefix}-{kind}-ubyte"
                packed = files / f"{path.name}.gz"
                path.write_bytes(gzip.decompress(packed.read_bytes()))
                unpacked.append(str(path))
            splits[split] = self._generate_examples(count, *unpacked)
        return splits

    data_dir.mkdir()
    local = types.new_class(
        original.__name__,
        (original,),
        {"skip_registration": True},
        lambda body: body.update(_split_generators=split_generators),
    )
    local(data_dir=data_dir).download_and_prepare()

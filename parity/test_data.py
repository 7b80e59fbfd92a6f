"""Rung 1: both sides read the same pixels, labels and order, and batch them alike."""

import gzip
import hashlib
import io
import pickle
import shutil
import struct
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest

from parity.frameworks import tf, torch, torchvision
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


def test_cifars_archives_and_tfds_give_the_same_data(tmp_path, monkeypatch):
    images, labels = cifar_images()
    prepare_binary_cifar(images, labels, tmp_path / "tfds")
    place_pickled_cifar(images, labels, tmp_path / "torchvision", monkeypatch)
    ours = keras_data.load("cifar10", tmp_path / "tfds", 32, 32)
    theirs = torch_data.load("cifar10", tmp_path / "torchvision", 32, 32)
    assert ours.train_images.shape == (50, 32, 32, 3)
    assert ours.test_images.shape == (10, 32, 32, 3)
    assert ours.classes == datasets.find("cifar10").classes
    assert_same_datasets(ours, theirs)
    pairs = zip(theirs.train_images, theirs.train_labels, strict=True)
    original = zip(images[:50], labels[:50], strict=True)
    assert sorted((bytes(image), int(label)) for image, label in pairs) == sorted(
        (bytes(image), int(label)) for image, label in original
    )
    # Smaller, and airplanes against ships only.
    ours, theirs = (
        data.load("cifar10", tmp_path / place, 20, 24, only_labels=(0, 8))
        for data, place in ((keras_data, "tfds"), (torch_data, "torchvision"))
    )
    assert ours.classes == ("airplane", "ship")
    assert ours.train_images.shape == (np.isin(labels[:50], (0, 8)).sum(), 20, 24, 3)
    assert_same_datasets(ours, theirs)


@pytest.mark.parametrize("data", [keras_data, torch_data])
def test_the_label_of_a_cifar_image_is_seen(data, tmp_path, monkeypatch):
    images, labels = cifar_images()
    sides = []
    for change in (0, 1):
        folder = tmp_path / str(change)
        wrong = labels.copy()
        wrong[3] = (wrong[3] + change) % 10
        if data is keras_data:
            prepare_binary_cifar(images, wrong, folder)
        else:
            place_pickled_cifar(images, wrong, folder, monkeypatch)
        sides.append(data.load("cifar10", folder, 32, 32))
    with pytest.raises(AssertionError, match="train_labels"):
        assert_same_datasets(*sides)


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
        pipeline = data.Pipeline(
            digits.train_images, digits.train_labels, digits.mean, digits.std
        )
        batches = list(pipeline.batches(order))
        kind = torch.Tensor if data is torch_data else tf.Tensor
        assert all(isinstance(images, kind) for images, _ in batches)
        sides.append([(x.numpy(), y.numpy()) for x, y in batches])
    return list(zip(*sides, strict=True))


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


def cifar_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns 60 images (N, 32, 32, 3) and their labels, each of the ten six times."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 32, 32, 3), np.uint8)
    return images, random.permutation(60) % 10


def place_pickled_cifar(images, labels, folder: Path, monkeypatch):
    """Writes cifar-10-python.tar.gz, five batches and a test batch, as the original."""
    source = torchvision.datasets.CIFAR10
    names = [name for name, _ in source.train_list + source.test_list]
    contents = {"batches.meta": {"label_names": datasets.find("cifar10").classes}}
    for number, name in enumerate(names):
        part = slice(10 * number, 10 * number + 10)
        contents[name] = {
            "batch_label": name,
            "data": images[part].transpose(0, 3, 1, 2).reshape(10, 3072),
            "labels": labels[part].tolist(),
            "filenames": [f"{i}.png" for i in range(10)],
        }
    folder.mkdir()
    sums = {}
    with tarfile.open(folder / source.filename, "w:gz") as archive:
        for name, content in contents.items():
            packed = pickle.dumps(content, protocol=2)
            sums[name] = hashlib.md5(packed).hexdigest()
            entry = tarfile.TarInfo(f"{source.base_folder}/{name}")
            entry.size = len(packed)
            archive.addfile(entry, io.BytesIO(packed))
    archive_sum = hashlib.md5((folder / source.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "tgz_md5", archive_sum)
    monkeypatch.setattr(source, "meta", source.meta | {"md5": sums["batches.meta"]})
    for part in ("train_list", "test_list"):
        known = [[name, sums[name]] for name, _ in getattr(source, part)]
        monkeypatch.setattr(source, part, known)


def prepare_binary_cifar(images, labels, data_dir: Path):
    """Writes the binary version's files and has the real builder read them."""
    import tensorflow_datasets as tfds

    original = type(tfds.builder("cifar10", data_dir=data_dir))
    folder = data_dir / "downloads" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    classes = datasets.find("cifar10").classes
    (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n\n")
    rows = images.transpose(0, 3, 1, 2).reshape(60, 3072)
    rows = np.column_stack([labels.astype(np.uint8), rows])
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    for number, name in enumerate([*names, "test_batch.bin"]):
        (folder / name).write_bytes(rows[10 * number : 10 * number + 10].tobytes())

    def split_generators(self, _):
        manager = types.SimpleNamespace(
            download_and_extract=lambda _: str(folder.parent)
        )
        return original._split_generators(self, manager)

    local = types.new_class(
        original.__name__,
        (original,),
        {"skip_registration": True},
        lambda body: body.update(_split_generators=split_generators),
    )
    local(data_dir=data_dir).download_and_prepare()

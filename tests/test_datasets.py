"""The catalogue, the digits, the statistics and the batch order."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import keras_impl.data
import torch_impl.data
from parity.spec import datasets
from parity.spec.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return datasets.prepare("digits", datasets.load_digits(28, 28), 28, 28)


def test_the_digits(digits):
    assert digits.train_images.shape == (1437, 28, 28, 1)
    assert digits.test_images.shape == (360, 28, 28, 1)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_images.max() == 255
    counts = np.bincount(digits.test_labels, minlength=10)
    assert counts.min() >= 34  # stratified: 360 of 1797, class by class
    assert counts.max() <= 38
    assert len(digits.classes) == 10


def test_no_digit_is_in_both_parts():
    train, train_labels, test, test_labels = datasets.load_digits(8, 8)
    assert len(train_labels) + len(test_labels) == 1797
    both = set(map(bytes, train)) & set(map(bytes, test))
    assert len(both) <= 1  # scikit-learn's set may hold one picture twice


def test_a_digit_keeps_its_pixels_at_any_size():
    small = datasets.load_digits(8, 8)[0]
    large = datasets.load_digits(32, 44)[0]
    assert np.array_equal(large[:, 8:24:2, 14:30:2], small)
    assert large.sum(dtype=np.int64) == 4 * small.sum(dtype=np.int64)
    with pytest.raises(UsageError, match="digits are 8x8 pixels; 8x7 is less"):
        datasets.load_digits(8, 7)


def test_mean_and_std_are_the_lectures():
    """The loop of the lecture: means over batches of 256, the last one smaller."""
    images = np.random.default_rng(0).integers(0, 256, (300, 5, 4, 3), np.uint8)
    total, squares, count = 0, 0, 0
    for batch in (images[:256] / 255, images[256:] / 255):
        total += batch.mean(axis=(0, 1, 2))
        squares += (batch**2).mean(axis=(0, 1, 2))
        count += 1
    mean = total / count
    std = (squares / count - mean**2) ** 0.5
    assert np.allclose(datasets.channel_mean_std(images), (mean, std), rtol=1e-12)
    plain = (images / 255).mean(axis=(0, 1, 2))
    assert not np.allclose(mean, plain, rtol=1e-6)  # the lecture's is not the plain one


def test_normalised_training_images_have_mean_0_and_std_1(digits):
    images = datasets.normalise(digits.train_images, digits.mean, digits.std)
    assert images.dtype == np.float32
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01


@given(
    size=st.integers(1, 200),
    batch_size=st.integers(1, 70),
    drop_last=st.booleans(),
    seed=st.integers(0, 5),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_an_epoch_holds_every_image_once(size, batch_size, drop_last, seed):
    batches = list(
        datasets.epoch_batches(
            size, batch_size, drop_last=drop_last, seed=seed, epoch=1
        )
    )
    indices = np.concatenate([*batches, np.array([], int)])
    assert len(set(indices)) == len(indices)
    if drop_last:
        assert all(len(batch) == batch_size for batch in batches)
        assert len(batches) == size // batch_size
    else:
        assert sorted(indices) == list(range(size))


def test_the_common_order_does_not_depend_on_the_order_of_the_files():
    images, labels, _, _ = datasets.load_digits(8, 8)
    mixed = np.random.default_rng(0).permutation(len(images))
    order = datasets.canonical_order(images, labels)
    other = mixed[datasets.canonical_order(images[mixed], labels[mixed])]
    assert np.array_equal(images[order], images[other])
    assert np.array_equal(labels[order], labels[other])
    # Equal images are told apart by their labels.
    assert list(datasets.canonical_order(images[[0, 0]], np.array([7, 3]))) == [1, 0]


@pytest.mark.parametrize("data", [keras_impl.data, torch_impl.data])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_files_without_a_network_are_one_clear_line(
    data, name, tmp_path, no_network
):
    with pytest.raises(UsageError) as raised:
        data.load(name, tmp_path, 28, 28)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{name} is not in {tmp_path} (looked for ")
    assert message.endswith("; --dataset digits needs no files")
    assert "No module named" not in message
    looked_for = {
        keras_impl.data: f"{tmp_path}/{name}/3.0.",
        torch_impl.data: f", {list(datasets.find(name).files)[-1]})",
    }
    if name == "cifar10":
        looked_for[torch_impl.data] = f"{tmp_path}/cifar-10-python.tar.gz)"
    assert looked_for[data] in message


@pytest.mark.parametrize("content", [b"", b"no gzip", "half"])
def test_a_damaged_archive_is_named_and_leaves_no_half_file(
    content, tmp_path, no_network
):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    if content == "half":
        content = gzip.compress(bytes(range(256)) * 100)[:-20]
    path = raw / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        torch_impl.data.load("mnist", tmp_path, 28, 28)
    if content:  # an empty archive is a valid one that holds nothing
        assert f"{path} is damaged" in str(raised.value)
        assert list(raw.iterdir()) == [path]


def test_the_catalogue_describes_the_digits():
    spec = datasets.find("digits")
    train, _, test, _ = datasets.load_digits(8, 8)
    assert train.shape == (spec.train_size, *spec.image_shape)
    assert test.shape == (spec.test_size, *spec.image_shape)


@pytest.mark.parametrize("data", [keras_impl.data, torch_impl.data])
def test_an_unknown_data_set(data):
    with pytest.raises(
        UsageError, match="unknown data set 'mnits'; did you mean mnist"
    ):
        data.load("mnits", Path("unused"), 28, 28)


def test_the_names_of_data_sets():
    assert datasets.NAMES == ("digits", "mnist", "fashion_mnist", "cifar10", "folder")
    with pytest.raises(UsageError, match="did you mean folder.*choose from .*, folder"):
        datasets.find("folders")


@pytest.mark.parametrize("data", [keras_impl.data, torch_impl.data])
def test_zeros_against_ones(data):
    whole = data.load("digits", Path("unused"), 16, 16)
    kept = data.load("digits", Path("unused"), 16, 16, only_labels=(1, 0))
    assert kept.classes == ("1", "0")
    for part in ("train", "test"):
        labels = getattr(whole, f"{part}_labels")
        images = getattr(whole, f"{part}_images")
        assert np.array_equal(getattr(kept, f"{part}_images"), images[labels < 2])
        expected = 1 - labels[labels < 2]
        assert np.array_equal(getattr(kept, f"{part}_labels"), expected)
        assert getattr(kept, f"{part}_labels").dtype == np.int64
    assert (kept.mean, kept.std) == datasets.channel_mean_std(kept.train_images)
    assert kept.mean != whole.mean


@pytest.mark.parametrize("wrong", [(0,), (3, 3), (0, 10), (-1, 2), ()])
def test_labels_that_cannot_be_kept(wrong):
    with pytest.raises(UsageError, match="give two or more different ones of 0 to 9"):
        keras_impl.data.load("digits", Path("unused"), 16, 16, only_labels=wrong)


def test_reading_image_files(tmp_path):
    colour = Image.new("RGB", (10, 20), (255, 0, 0))
    colour.save(tmp_path / "red.png")
    grey = datasets.read_image(tmp_path / "red.png", 5, 4, 1)
    assert grey.shape == (1, 5, 4, 1)
    assert np.unique(grey) == [76]  # 0.299 of 255
    assert datasets.read_image(tmp_path / "red.png", 5, 4, 3)[0, 0, 0].tolist() == [
        255,
        0,
        0,
    ]
    deep = Image.fromarray(np.full((3, 3), 257 * 100, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert np.unique(datasets.read_image(tmp_path / "deep.png", 3, 3, 1)) == [100]
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UsageError, match="not an image file: .*text.png"):
        datasets.read_image(tmp_path / "text.png", 5, 4, 1)
    with pytest.raises(UsageError, match="no such image file: .*none.png"):
        datasets.read_image(tmp_path / "none.png", 5, 4, 1)

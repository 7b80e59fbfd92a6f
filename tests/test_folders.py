"""Image folders: what is found, split, skipped and refused; and what is drawn."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import keras_impl.data
import torch_impl.data
from parity.spec import augmentation, datasets, folders
from parity.spec.errors import UsageError
from parity.spec.images import resize


def fill(folder, count, mode="RGB", suffix="png", seed=0):
    """Writes `count` images of 9x7 pixels and of noise into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng((seed, *folder.name.encode()))
    for number in range(count):
        pixels = random.integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.{suffix}")
    return folder


def read(folder, **options):
    return folders.read_folder(folder, 8, 6, **options)


def listing(folder):
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def one_line(call, *arguments, **options):
    with pytest.raises(UsageError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_stratified_split_that_moves_no_file(tmp_path, capsys):
    fill(tmp_path / "b", 20)
    fill(tmp_path / "a", 10)
    fill(tmp_path / "c", 5)
    before = listing(tmp_path)
    dataset = read(tmp_path)
    assert listing(tmp_path) == before
    assert dataset.classes == ("a", "b", "c")
    assert np.bincount(dataset.train_labels).tolist() == [8, 16, 4]
    assert np.bincount(dataset.test_labels).tolist() == [2, 4, 1]
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int64
    assert dataset.train_images.shape == (28, 8, 6, 3)
    train, test = (set(x.paths) for x in (dataset.train_images, dataset.test_images))
    assert not train & test
    assert train | test == {p for p in tmp_path.rglob("*") if p.is_file()}
    for path, label in zip(dataset.test_images.paths, dataset.test_labels, strict=True):
        assert path.parent.name == dataset.classes[label]
    again = read(tmp_path)
    assert again.train_images.paths == dataset.train_images.paths
    assert capsys.readouterr().err == ""


def test_train_and_test_folders_are_taken_as_they_are(tmp_path):
    for part, count in (("train", 3), ("test", 2), ("validation", 4)):
        for name in ("x", "y"):
            fill(tmp_path / part / name, count)
    dataset = read(tmp_path)
    assert dataset.classes == ("x", "y")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1]
    assert {p.parts[-3] for p in dataset.train_images.paths} == {"train"}
    assert {p.parts[-3] for p in dataset.test_images.paths} == {"test"}


def test_an_image_is_decoded_and_resized_when_it_is_asked_for(tmp_path):
    for name in "ab":
        fill(tmp_path / name, 5)
    images = read(tmp_path).train_images
    pixels = np.asarray(Image.open(images.paths[3]))
    assert np.array_equal(images.decode(3), pixels)
    assert np.array_equal(images[3], resize(pixels[np.newaxis], 8, 6)[0])
    assert len(images) == len(list(images)) == 8
    assert np.array_equal(images[-1], images[7])
    with pytest.raises(AttributeError):
        images.paths = ()


def test_mean_and_std_are_those_of_the_images_in_memory(tmp_path):
    for name in "ab":
        fill(tmp_path / name, 200)
    dataset = read(tmp_path)
    whole = np.stack(list(dataset.train_images))
    assert len(whole) == 320  # more than a batch of 256
    expected = datasets.channel_mean_std(whole)
    assert np.allclose((dataset.mean, dataset.std), expected, rtol=1e-12)


def test_grey_images_have_one_channel_where_all_are_grey(tmp_path):
    fill(tmp_path / "a", 5, "L")
    fill(tmp_path / "b", 5, "1")
    dataset = read(tmp_path)
    assert dataset.train_images.shape[1:] == (8, 6, 1)
    assert dataset.train_images[0].shape == (8, 6, 1)
    assert len(dataset.mean) == len(dataset.std) == 1
    whole = np.stack(list(dataset.train_images))
    expected = datasets.channel_mean_std(whole)
    assert np.allclose((dataset.mean, dataset.std), expected, rtol=1e-12)
    fill(tmp_path / "b", 1, "RGB", "bmp")
    assert read(tmp_path).train_images.shape[3] == 3


def test_label_names(tmp_path):
    for name in ("cane", "gatto", "zebra", "ragno"):
        fill(tmp_path / name, 5)
    assert read(tmp_path).classes == ("cane", "gatto", "ragno", "zebra")
    dataset = read(tmp_path, label_names="animals10")
    assert dataset.classes == ("cat", "dog", "spider", "zebra")
    labelled = zip(dataset.train_images.paths, dataset.train_labels, strict=True)
    assert {(path.parent.name, int(label)) for path, label in labelled} == {
        ("gatto", 0),
        ("cane", 1),
        ("ragno", 2),
        ("zebra", 3),
    }
    table = tmp_path / "names.json"
    table.write_text(json.dumps({"cane": "Hund", "unicorn": "Einhorn"}), "utf-8")
    assert read(tmp_path, label_names=table).classes == (
        "Hund",
        "gatto",
        "ragno",
        "zebra",
    )
    assert len(folders.ANIMALS10) == 10


def test_only_some_labels(tmp_path):
    for count, name in enumerate("abc", 5):
        fill(tmp_path / name, count)
    dataset = read(tmp_path, only_labels=(2, 0))
    assert dataset.classes == ("c", "a")
    names = {p.parent.name for p in dataset.train_images.paths}
    assert names == {"c", "a"}
    first = dataset.train_images.paths[int(np.argmin(dataset.train_labels))]
    assert first.parent.name == "c"
    message = one_line(read, tmp_path, only_labels=(0, 3))
    assert "labels 0, 3; give two or more different ones of 0 to 2" in message


@pytest.fixture
def damaged(tmp_path):
    """Ten images, and eight files that are none: two of each of four sorts."""
    for name in "ab":
        folder = fill(tmp_path / name, 5, suffix="jpg")
        whole = (folder / "001.jpg").read_bytes()
        (folder / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
        (folder / "empty.png").write_bytes(b"")
        (folder / "notes.txt").write_text("no image")
        fill(folder, 1)
        checksum = bytearray((folder / "000.png").read_bytes())
        checksum[-14] ^= 1  # of the pixels
        (folder / "000.png").write_bytes(bytes(checksum))
        (folder / ".hidden").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


@pytest.mark.parametrize("data", [keras_impl.data, torch_impl.data])
def test_files_that_are_no_images_are_named_and_skipped(data, damaged, capsys):
    dataset = data.load("folder", damaged, 8, 6)
    assert len(dataset.train_images) + len(dataset.test_images) == 10
    assert capsys.readouterr().err == (
        f"skipped: 8 of 18 files in {damaged} are not whole images: "
        "a/000.png, a/cut.jpg, a/empty.png, a/notes.txt, b/000.png, ...\n"
    )


@pytest.mark.parametrize("data", [keras_impl.data, torch_impl.data])
def test_strict_refuses_them(data, damaged):
    message = one_line(data.load, "folder", damaged, 8, 6, strict=True)
    assert message.startswith(f"8 of 18 files in {damaged} are not whole images: a/000")
    assert message.endswith("delete them, or leave out --strict-data")


def test_conversions_are_counted_in_one_line(tmp_path, capsys):
    fill(tmp_path / "a", 5, "RGBA")
    fill(tmp_path / "b", 5, "L")
    deep = np.full((4, 5), 257 * 100, np.uint16)
    for name in "de":
        Image.fromarray(deep).save(tmp_path / "b" / f"{name}.png")
    dataset = read(tmp_path)
    assert dataset.train_images.shape[3] == 3
    assert capsys.readouterr().err == (
        "converted to 8-bit grey or RGB: 2 of 16 bits, 5 with an alpha channel\n"
    )
    both = (dataset.train_images, dataset.test_images)
    values = [
        np.unique(part[i]).tolist()
        for part in both
        for i, path in enumerate(part.paths)
        if path.stem in "de"
    ]
    assert values == [[100], [100]]
    for part in both:
        assert all(
            native == (path.parent.name == "b" and path.stem not in "de")
            for path, native in zip(part.paths, part.native, strict=True)
        )


def test_a_palette_with_transparency_is_converted_without_a_warning(tmp_path, capsys):
    for name in "ab":
        folder = fill(tmp_path / name, 4)
        image = Image.open(folder / "000.png").convert("P")
        image.save(folder / "palette.png", transparency=bytes(range(256)))
    assert len(read(tmp_path).train_images) == 8
    assert "2 with an alpha channel" in capsys.readouterr().err


def test_train_without_test(tmp_path):
    write(tmp_path, {"train/a/1.png": 10, "train/b/1.png": 20, "val/a/2.png": 30})
    message = one_line(read, tmp_path)
    assert message.startswith(f"{tmp_path} has no test/ with a folder per class beside")


def test_a_class_that_is_too_small_to_split(tmp_path):
    write(tmp_path, {f"a/{i}.png": i for i in range(30)} | {"b/1.png": 3, "b/2.png": 4})
    message = one_line(read, tmp_path)
    assert message == (
        f"{tmp_path}/b has too few images (2) to be split in train and test; five or "
        "more images per class would do"
    )


def test_images_without_contrast(tmp_path):
    write(tmp_path, {f"{name}/{i}.png": 7 for name in "ab" for i in range(5)})
    message = one_line(read, tmp_path)
    assert message.startswith(
        "every pixel of a channel is alike in all training images"
    )


def write(folder, levels):
    """Writes small images of one grey level each."""
    for name, level in levels.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (level, level, level)).save(path)


def test_no_folder(tmp_path):
    message = one_line(read, tmp_path / "none")
    assert message == (
        f"no such folder: {tmp_path}/none; it would hold one folder per class, "
        "or train/ and test/ that hold these; --dataset digits needs no files"
    )


def test_no_class_or_only_one(tmp_path):
    assert one_line(read, tmp_path).startswith(f"no class in {tmp_path}; it would hold")
    fill(tmp_path / "cane", 3)
    message = one_line(read, tmp_path, label_names="animals10")
    assert message.startswith(f"only the class 'dog' in {tmp_path}; it would hold")
    fill(tmp_path / "train" / "x", 3)
    fill(tmp_path / "test" / "x", 3)
    assert one_line(read, tmp_path).startswith(
        f"only the class 'x' in {tmp_path}/train"
    )


def test_a_class_without_images(tmp_path, capsys):
    fill(tmp_path / "a", 5)
    (tmp_path / "b").mkdir()
    assert one_line(read, tmp_path) == f"no images in {tmp_path}/b"
    (tmp_path / "b" / "x.jpg").write_text("none")
    assert one_line(read, tmp_path) == f"no images in {tmp_path}/b"
    assert "b/x.jpg" in capsys.readouterr().err


def test_classes_that_differ_between_train_and_test(tmp_path):
    for name in ("train/a", "train/b", "train/c", "test/a", "test/b", "test/d"):
        fill(tmp_path / name, 2)
    assert one_line(read, tmp_path) == (
        f"the classes of {tmp_path}/train and {tmp_path}/test differ: "
        "only one of the two has c, d"
    )


def test_too_few_images_to_split(tmp_path):
    fill(tmp_path / "a", 20)
    fill(tmp_path / "b", 1)
    message = one_line(read, tmp_path)
    assert message.startswith(f"cannot split the 21 images of {tmp_path} in train and")
    assert message.endswith("five or more images per class would do")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ('["dog"]', "it holds ['dog']"),
        ('{"cane": 3}', "'cane' becomes 3"),
        ('{"cane": ""}', "'cane' becomes ''"),
        (None, "No such file"),
        (b"\xff\xfe\xff", "codec can't decode"),
    ],
)
def test_label_names_that_cannot_be_used(content, reason, tmp_path):
    path = tmp_path / "names.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = one_line(folders.read_label_names, path)
    assert message.startswith(f"cannot take label names from {path} (")
    assert reason in message
    assert message.endswith('such as {"cane": "dog"}, or animals10')


def test_two_classes_of_one_name(tmp_path):
    fill(tmp_path / "cane", 5)
    fill(tmp_path / "dog", 5)
    assert one_line(read, tmp_path, label_names="animals10") == (
        f"'cane' and 'dog' in {tmp_path} would both be the class 'dog'; "
        "rename one of them otherwise"
    )


def test_a_bar_on_a_terminal_only(tmp_path, monkeypatch, capsys):
    for name in "ab":
        fill(tmp_path / name, 5)
    read(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    read(tmp_path)
    assert "reading:" in capsys.readouterr().err


SIZES = st.integers(1, 3000)


@given(height=SIZES, width=SIZES, seed=st.integers(0, 2**31), epoch=st.integers(0, 99))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_crop_lies_inside_the_image(height, width, seed, epoch):
    sizes = np.tile((height, width), (4, 1))
    boxes = augmentation.choose(("crop",), sizes, range(4), seed, epoch).boxes
    assert boxes.shape == (4, 4)
    assert boxes.dtype == np.int64
    top, left, box_height, box_width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > 0).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()


def test_crops_have_the_areas_and_ratios_of_the_paper():
    sizes = np.tile((400, 500), (2000, 1))
    boxes = augmentation.choose(("crop",), sizes, range(2000), 0, 0).boxes
    areas = boxes[:, 2] * boxes[:, 3] / (400 * 500)
    ratios = boxes[:, 3] / boxes[:, 2]
    assert 0.079 < areas.min() < 0.1
    assert 0.95 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.34
    assert 0.45 < areas.mean() < 0.55  # 0.54 but for the boxes that do not fit
    assert abs(np.log(ratios).mean()) < 0.05
    assert np.unique(boxes[:, 0]).size > 100


def test_the_crop_of_an_image_that_no_box_fits_is_the_middle():
    sizes = np.array([(3000, 2), (2, 3000)])
    boxes = [
        augmentation.choose(("crop",), sizes, (0, 1), seed, 0).boxes.tolist()
        for seed in range(5)
    ]
    assert [[1498, 0, 3, 2], [0, 1498, 2, 3]] in boxes


def test_half_of_the_images_are_flipped():
    sizes = np.tile((10, 12), (2000, 1))
    choices = augmentation.choose(("flip",), sizes, range(2000), 7, 0)
    assert 930 < choices.flips.sum() < 1070
    assert (choices.boxes == (0, 0, 10, 12)).all()
    nothing = augmentation.choose((), sizes, range(2000), 7, 0)
    assert not nothing.flips.any()


def test_what_is_drawn_depends_on_seed_epoch_and_image_alone():
    sizes = np.random.default_rng(0).integers(50, 100, (64, 2))
    arguments = (augmentation.NAMES, sizes, range(64))
    whole = augmentation.choose(*arguments, 3, 4)
    chosen = np.random.default_rng(1).permutation(64)[:20]
    some = augmentation.choose(augmentation.NAMES, sizes[chosen], chosen, 3, 4)
    assert np.array_equal(some.boxes, whole.boxes[chosen])
    assert np.array_equal(some.flips, whole.flips[chosen])
    for seed, epoch in ((4, 4), (3, 5)):
        other = augmentation.choose(*arguments, seed, epoch)
        assert not np.array_equal(other.boxes, whole.boxes)
        assert not np.array_equal(other.flips, whole.flips)
    crops = augmentation.choose(("crop",), sizes, range(64), 3, 4)
    assert np.array_equal(crops.boxes, whole.boxes)
    assert not crops.flips.any()


def test_an_unknown_augmentation():
    message = one_line(augmentation.choose, ("crops",), [(2, 2)], [0], 0, 0)
    assert message == (
        "unknown augmentation 'crops'; did you mean crop? choose from crop, flip"
    )

"""Rung 1, images: both sides decode, resize, crop, flip and normalise alike.

The images are written here. Differences are in grey levels, before normalisation.
"""

import contextlib
import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.frameworks import tf, torch, torchvision
from keras_impl import data as keras_data
from parity.spec import augmentation, datasets, folders, images
from parity.spec.errors import UsageError
from torch_impl import data as torch_data

SIZE = (37, 53)
PLAIN = [
    ("420.jpg", "RGB", {"quality": 85, "subsampling": "4:2:0"}),
    ("422.jpg", "RGB", {"quality": 60, "subsampling": "4:2:2"}),
    ("444.jpg", "RGB", {"quality": 95, "subsampling": "4:4:4"}),
    ("progressive.jpg", "RGB", {"quality": 75, "progressive": True}),
    ("grey.jpg", "L", {"quality": 85}),
    ("colour.png", "RGB", {}),
    ("grey.png", "L", {}),
]
OTHER = [
    ("alpha.png", "RGBA", {}),
    ("palette.png", "P", {}),
    ("animated.gif", "P", {}),
    ("bits.png", "1", {}),
    ("deep.png", "I;16", {}),
    ("cmyk.jpg", "CMYK", {"quality": 85}),
    ("colour.bmp", "RGB", {}),
    ("colour.webp", "RGB", {"quality": 80}),
]
FILES = PLAIN + OTHER
# 16x16 is plain downscaling, 96x128 upscaling; 37x53 is as the files are.
TARGETS = [SIZE, (16, 16), (24, 64), (96, 128)]


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Returns edges, slopes and noise, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    noise = random.integers(-40, 41, smooth.shape)
    pixels = smooth.astype(int) + noise * (np.arange(width) % 9 < 4)[:, np.newaxis]
    return pixels.clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, mode: str, options: dict) -> None:
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack([pixels, pixels[..., :1]]))
    else:
        image = Image.fromarray(pixels).convert(mode)
    if path.suffix == ".gif":
        options = {"save_all": True, "append_images": [image.rotate(180)]}
    image.save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of two classes with each kind of file, and a larger picture of each."""
    root = tmp_path_factory.mktemp("images")
    for name, (height, width) in (("small", SIZE), ("large", (101, 73))):
        (root / name).mkdir()
        for seed, (file, mode, options) in enumerate(FILES):
            write(root / name / file, picture(height, width, seed), mode, options)
    return root


def image_files(folder: Path, height: int, width: int) -> folders.ImageFiles:
    """Returns all files of the class "small", which need no second look."""
    paths = tuple(folder / "small" / name for name, _, _ in FILES)
    native = np.arange(len(FILES)) < len(PLAIN)
    sizes = np.tile(SIZE, (len(FILES), 1))
    return folders.ImageFiles(paths, sizes, native, (height, width, 3))


def grey_levels(data, source, **options) -> np.ndarray:
    """Returns a side's batches (N, H, W, C), normalisation undone."""
    labels = np.arange(len(source))
    pipeline = data.Pipeline(source, labels, (0.0,) * 3, (1.0,) * 3, **options)
    parts = labels[:5], labels[5:6], labels[6:]
    order = [part for part in parts if len(part)]
    batches = [x.numpy() for x, _ in pipeline.batches(order, epoch=3)]
    assert [len(batch) for batch in batches] == list(map(len, order))
    pixels = np.concatenate(batches)
    if data is torch_data:
        pixels = pixels.transpose(0, 2, 3, 1)
    levels = np.round(pixels * 255)
    assert np.allclose(levels, pixels * 255, atol=1e-4)  # whole grey levels
    return levels.astype(int)


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours - theirs).max())


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("augment", [(), ("flip",), ("crop",), ("crop", "flip")])
def test_files_become_the_same_pixels(folder, target, augment):
    source = image_files(folder, *target)
    ours, theirs = (
        grey_levels(data, source, augment=augment, seed=5)
        for data in (keras_data, torch_data)
    )
    resized = target != SIZE or "crop" in augment
    assert largest_difference(ours, theirs) <= (1 if resized else 0)
    assert (ours != theirs).mean() < 2e-3  # a rounding that falls the other way
    assert ours.std() > 20


def test_decoding_is_pillows_bit_for_bit(folder):
    source = image_files(folder, *SIZE)
    expected = np.stack([source.decode(i) for i in range(len(source))])
    for data in (keras_data, torch_data):
        assert largest_difference(grey_levels(data, source), expected) == 0
    assert np.array_equal(source[2], expected[2])


def test_damaged_files_that_pillow_reads_are_read_alike(folder, tmp_path):
    """A few wrong bytes; TensorFlow would refuse some files that Pillow reads."""
    whole = (folder / "small" / "420.jpg").read_bytes()
    random = np.random.default_rng(0)
    paths, refused = [], 0
    for number in range(400):
        content = bytearray(whole)
        for place in random.integers(len(whole) // 2, len(whole) - 2, 5):
            content[place] = random.integers(256)
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content)
        with contextlib.suppress(UsageError):
            assert images.inspect(path)[0].native
            paths.append(path)
            try:
                tf.io.decode_jpeg(bytes(content))
            except tf.errors.InvalidArgumentError:
                refused += 1
    assert refused
    sizes, native = np.tile(SIZE, (len(paths), 1)), np.ones(len(paths), bool)
    source = folders.ImageFiles(tuple(paths), sizes, native, (*SIZE, 3))
    ours, theirs = (grey_levels(data, source) for data in (keras_data, torch_data))
    assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [("flip",), ("crop", "flip")])
def test_images_in_memory_become_the_same_pixels(channels, augment):
    source = np.stack([picture(32, 40, seed)[..., :channels] for seed in range(12)])
    labels = np.arange(12)
    sides = []
    for data in (keras_data, torch_data):
        pipeline = data.Pipeline(
            source, labels, (0.4,) * channels, (0.2,) * channels, augment=augment
        )
        batches = list(pipeline.batches([labels[:7], labels[7:]], epoch=1))
        sides.append(
            [
                np.concatenate([x.numpy() for x in part])
                for part in zip(*batches, strict=True)
            ]
        )
    (ours, our_labels), (theirs, their_labels) = sides
    theirs = theirs.transpose(0, 2, 3, 1)
    assert ours.dtype == theirs.dtype == np.float32
    assert our_labels.dtype == their_labels.dtype == np.int64
    assert np.array_equal(our_labels, labels) and np.array_equal(their_labels, labels)
    level = 1 / 255 / 0.2
    allowed = 1.01 * level if "crop" in augment else 0
    assert np.abs(ours - theirs).max() <= allowed
    flips = augmentation.choose(augment, np.tile((32, 40), (12, 1)), labels, 0, 1).flips
    assert 0 < flips.sum() < 12
    if augment == ("flip",):
        mirrored = np.where(
            flips[:, np.newaxis, np.newaxis, np.newaxis], source[:, :, ::-1], source
        )
        expected = datasets.normalise(mirrored, (0.4,) * channels, (0.2,) * channels)
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize("limit", [datasets.IN_MEMORY, 0])
def test_plain_images_in_memory_and_streamed(limit, tmp_path, monkeypatch):
    """Those that fit are on the device as they are; those of a file are read ahead."""
    monkeypatch.setattr(datasets, "IN_MEMORY", limit)
    source = np.stack([picture(8, 9, seed) for seed in range(6)])
    np.save(tmp_path / "images.npy", source)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    order = [np.array([i, 5 - i]) for i in range(5)] + [np.array([0])]
    statistics = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    for data in (keras_data, torch_data):
        for kept in (source, mapped):
            pipeline = data.Pipeline(kept, np.arange(6) * 2, *statistics)
            assert len(pipeline) == 6
            assert pipeline.size == (8, 9)
            assert (pipeline.tensors is None) == (kept is mapped or limit == 0)
            batches = list(pipeline.batches(order))
            assert [y.numpy().tolist() for _, y in batches] == [
                (2 * indices).tolist() for indices in order
            ]
            for indices, (batch, _) in zip(order, batches, strict=True):
                expected = datasets.normalise(source[indices], *statistics)
                if data is torch_data:
                    expected = expected.transpose(0, 3, 1, 2)
                assert np.array_equal(batch.numpy(), expected)


def test_normalised_batches_of_files_are_bit_equal(folder):
    source, order = image_files(folder, *SIZE), [np.array([3, 0, 9])]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    expected = datasets.normalise(np.stack([source[i] for i in order[0]]), mean, std)
    labels = np.arange(len(source)) * 2
    for data in (keras_data, torch_data):
        ((batch, got),) = data.Pipeline(source, labels, mean, std).batches(order)
        batch = batch.numpy()
        if data is torch_data:
            batch = batch.transpose(0, 2, 3, 1)
        assert np.array_equal(batch, expected)
        assert got.numpy().tolist() == [6, 0, 18]


def test_no_batches(folder):
    for data in (keras_data, torch_data):
        source = image_files(folder, *SIZE)
        pipeline = data.Pipeline(source, np.arange(len(source)), (0.5,) * 3, (1.0,) * 3)
        assert list(pipeline.batches([])) == []


def test_the_default_dct_is_seen(folder, monkeypatch):
    source = image_files(folder, *SIZE)
    decode = tf.io.decode_jpeg
    monkeypatch.setattr(
        tf.io, "decode_jpeg", lambda content, channels, **_: decode(content, channels)
    )
    ours, theirs = (grey_levels(data, source) for data in (keras_data, torch_data))
    assert largest_difference(ours, theirs) >= 2
    whole = [i for i, (name, _, _) in enumerate(PLAIN) if name.endswith(".png")]
    assert largest_difference(ours[whole], theirs[whole]) == 0


def test_a_resize_without_antialias_is_seen(folder, monkeypatch):
    source = image_files(folder, 16, 16)
    resize = tf.image.resize
    monkeypatch.setattr(tf.image, "resize", lambda x, size, antialias: resize(x, size))
    ours, theirs = (grey_levels(data, source) for data in (keras_data, torch_data))
    assert largest_difference(ours, theirs) > 20


def test_a_crop_shifted_by_one_pixel_is_seen(folder, monkeypatch):
    source = image_files(folder, 24, 24)
    ours = grey_levels(keras_data, source, augment=("crop",))
    choose = augmentation.choose

    def shifted(*arguments):
        choices = choose(*arguments)
        boxes = choices.boxes + [0, 1, 0, -1]
        return augmentation.Choices(boxes, choices.flips)

    monkeypatch.setattr(augmentation, "choose", shifted)
    theirs = grey_levels(torch_data, source, augment=("crop",))
    assert all(largest_difference(*pair) > 5 for pair in zip(ours, theirs, strict=True))


def test_a_missing_flip_is_seen(folder):
    source = image_files(folder, *SIZE)
    ours = grey_levels(keras_data, source, augment=("flip",))
    assert largest_difference(ours, grey_levels(torch_data, source)) > 20


def test_both_sides_load_the_same_folder(folder, capsys):
    ours, theirs = (
        data.load("folder", folder, 24, 20) for data in (keras_data, torch_data)
    )
    assert ours.classes == theirs.classes == ("large", "small")
    assert ours.train_images.shape == (24, 24, 20, 3)
    assert ours.test_images.shape == (6, 24, 20, 3)
    for part in ("train", "test"):
        mine, other = (getattr(side, f"{part}_images") for side in (ours, theirs))
        assert mine.paths == other.paths
        native = {path.name for path in itertools.compress(mine.paths, mine.native)}
        assert native <= {name for name, _, _ in PLAIN}
        levels = [
            grey_levels(keras_data, mine, augment=("crop", "flip")),
            grey_levels(torch_data, other, augment=("crop", "flip")),
        ]
        assert largest_difference(*levels) <= 1
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    note = (
        "converted to 8-bit grey or RGB: 2 of 16 bits, 2 of mode CMYK, 2 of mode P, "
        "2 of several frames (the first is taken), 2 with an alpha channel"
    )
    assert capsys.readouterr().err.splitlines() == [note, note]


def test_the_folder_holds_what_torchvision_finds(folder, capsys):
    found = torchvision.datasets.ImageFolder(
        folder, is_valid_file=lambda path: not path.endswith("none")
    )
    loaded = torch_data.load("folder", folder, 24, 20)
    assert tuple(found.classes) == loaded.classes
    pairs = [
        (str(path), int(label))
        for part in ("train", "test")
        for path, label in zip(
            getattr(loaded, f"{part}_images").paths,
            getattr(loaded, f"{part}_labels"),
            strict=True,
        )
    ]
    assert sorted(pairs) == sorted(found.samples)
    assert capsys.readouterr().err  # the conversions


def test_torch_reads_a_batch_in_processes_of_its_own_alike(folder):
    source = image_files(folder, 24, 24)
    alone = grey_levels(torch_data, source, augment=augmentation.NAMES)
    together = grey_levels(torch_data, source, augment=augmentation.NAMES, workers=2)
    assert np.array_equal(alone, together)
    keras = grey_levels(keras_data, source, augment=augmentation.NAMES, workers=2)
    assert largest_difference(alone, keras) <= 1


def test_reading_draws_nothing_from_torchs_generator(folder):
    source = image_files(folder, 24, 24)
    state = torch.get_rng_state()
    grey_levels(torch_data, source, augment=augmentation.NAMES)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("data", "ahead"), [(keras_data, 3), (torch_data, 1)])
def test_only_the_next_batches_are_read(data, ahead, folder, monkeypatch):
    """A batch of 4 out of 400; TensorFlow has another ready and a third in work."""
    paths = (folder / "small" / "colour.bmp",) * 400
    sizes, native = np.tile(SIZE, (400, 1)), np.zeros(400, bool)
    source = folders.ImageFiles(paths, sizes, native, (*SIZE, 3))
    read, count = images.read_pixels, []
    monkeypatch.setattr(
        images, "read_pixels", lambda *given: count.append(1) or read(*given)
    )
    order = list(np.arange(400).reshape(-1, 4))
    pipeline = data.Pipeline(
        source, np.arange(400), (0.5,) * 3, (1.0,) * 3, workers=2 * (data is keras_data)
    )
    batches = pipeline.batches(order)
    assert not count
    next(batches)
    assert 4 <= len(count) <= 4 * ahead + 2
    assert sum(1 for _ in batches) == 99
    assert len(count) == 400


def test_memory_does_not_grow_with_the_folder(folder):
    """Ten times the files: the same peak, within the size of ten images."""
    peaks = []
    for size in (60, 600):
        paths = (folder / "small" / "420.jpg",) * size
        sizes, native = np.tile(SIZE, (size, 1)), np.ones(size, bool)
        source = folders.ImageFiles(paths, sizes, native, (*SIZE, 3))
        pipeline = torch_data.Pipeline(source, np.arange(size), (0.5,) * 3, (1.0,) * 3)
        tracemalloc.start()
        assert sum(1 for _ in pipeline.batches(np.arange(size).reshape(-1, 10))) > 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 10 * np.prod(SIZE) * 3

"""The catalogue of data sets, and what both sides do alike to their pixels.

Images are uint8 (N, H, W, C) in 0 to 255, labels int64 (N,), until a side turns them
into tensors of its own.
"""

import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.spec.errors import UsageError, unknown
from parity.spec.images import ImageFiles, read_pixels, resize


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: where it comes from and what it holds.

    Attributes:
        source: who made it and where it is found.
        image_shape: (H, W, C) of the original images.
        classes: class names, by label.
        train_size: number of training images.
        test_size: number of test images.
        files: file name to MD5 of what torchvision downloads; empty when embedded.
    """

    source: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    files: dict[str, str]


DIGITS = tuple("0123456789")
CATALOGUE = {
    "digits": DatasetSpec(
        source="Alpaydin & Kaynak 1998, UCI; the test part, as in scikit-learn",
        image_shape=(8, 8, 1),
        classes=DIGITS,
        train_size=1_437,
        test_size=360,
        files={},
    ),
    "mnist": DatasetSpec(
        source="LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/",
        image_shape=(28, 28, 1),
        classes=DIGITS,
        train_size=60_000,
        test_size=10_000,
        files={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": DatasetSpec(
        source="Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
        image_shape=(28, 28, 1),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        train_size=60_000,
        test_size=10_000,
        files={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": DatasetSpec(
        source="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        image_shape=(32, 32, 3),
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        train_size=50_000,
        test_size=10_000,
        files={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    ),
}
NAMES = (*CATALOGUE, "folder")
IN_MEMORY = 4 * 2**30  # bytes of images that are kept on the device as they are


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one size, and how to normalise them.

    Attributes:
        classes: class names, by label.
        train_images: uint8 (N, H, W, C), in memory or in files.
        train_labels: int64 (N,).
        test_images: likewise.
        test_labels: int64 (N,).
        mean: per channel, of the training images scaled to 0 to 1.
        std: likewise.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray | ImageFiles
    train_labels: np.ndarray
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find(name: str) -> DatasetSpec:
    """Returns a data set's entry in the catalogue.

    Raises:
        UsageError: there is no such data set.
    """
    if name not in CATALOGUE:
        raise unknown("data set", name, NAMES)
    return CATALOGUE[name]


def load_digits(
    height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns scikit-learn's digits as train and test images and labels.

    A digit is enlarged a whole number of times, without a filter, and centred, so
    that it fills about four sevenths of the image (as it nearly does in MNIST). The
    split is stratified and always the same: 1,437 to train, 360 to test.

    Args:
        height: of the images wanted, in pixels.
        width: likewise.

    Raises:
        UsageError: the image is smaller than a digit.
    """
    side = 8
    rows = _bundled_digits()
    labels = rows[:, -1].astype(np.int64)
    pixels = rows[:, :-1].reshape(-1, side, side)
    pixels = np.round(pixels * (255 / 16)).astype(np.uint8)
    if min(height, width) < side:
        raise UsageError(f"digits are {side}x{side} pixels; {height}x{width} is less")
    factor = max(1, min(height, width) * 4 // 7 // side)
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    top, left = (height - side * factor) // 2, (width - side * factor) // 2
    images = np.zeros((len(labels), height, width, 1), np.uint8)
    images[:, top : top + side * factor, left : left + side * factor, 0] = pixels
    train, test = _split_digits(labels)
    return images[train], labels[train], images[test], labels[test]


def _bundled_digits() -> np.ndarray:
    """Returns scikit-learn's digits, 64 pixels of 0 to 16 and the label in a row.

    Importing scikit-learn takes longer than training begins.
    """
    found = importlib.util.find_spec("sklearn")
    path = found and Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path and path.exists():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


def _split_digits(labels: np.ndarray, test_size: int = 360) -> tuple[np.ndarray, ...]:
    """Returns the indices that scikit-learn's train_test_split gives with seed 42.

    Of each class as large a part goes into the test part as of all; where that is no
    whole number, the largest remainders are rounded up, by lot among equal ones.
    """
    random = np.random.RandomState(42)  # noqa: NPY002 - whose numbers these are
    counts = np.bincount(labels)
    train_counts = _shares(counts, len(labels) - test_size, random)
    test_counts = _shares(counts - train_counts, test_size, random)
    train, test = [], []
    for label, count in enumerate(counts):
        own = np.flatnonzero(labels == label)[random.permutation(count)]
        first, second = train_counts[label], test_counts[label]
        train.append(own[:first])
        test.append(own[first : first + second])
    return tuple(random.permutation(np.concatenate(part)) for part in (train, test))


def _shares(counts: np.ndarray, draws: int, random) -> np.ndarray:
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    missing = int(draws - shares.sum())
    remainders = exact - shares
    for value in np.sort(np.unique(remainders))[::-1] if missing else ():
        (equal,) = np.where(remainders == value)
        chosen = min(len(equal), missing)
        shares[random.choice(equal, size=chosen, replace=False)] += 1
        missing -= chosen
        if not missing:
            break
    return shares.astype(int)


def canonical_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the indices that sort images by their bytes, then by label.

    The same images come in another order from tensorflow-datasets (which shuffles
    what it writes) than from the original files; sorted, they are in the same order.
    """
    rows = np.column_stack([images.reshape(len(images), -1), labels.astype(np.uint8)])
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1])))
    return np.argsort(keys.ravel(), kind="stable")


def prepare(
    name: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    height: int,
    width: int,
    only_labels: Sequence[int] | None = None,
) -> Dataset:
    """Returns a data set brought to one order and size, with its statistics.

    Args:
        name: a name in the catalogue.
        arrays: train images and labels, test images and labels.
        height: of the images wanted, in pixels.
        width: likewise.
        only_labels: what is kept, see keep_labels; None keeps all.

    Raises:
        UsageError: only_labels names no such label, or one twice, or fewer than two.
    """
    classes = find(name).classes
    kept = keep_labels(classes, only_labels)
    new_labels = np.full(len(classes), -1)
    new_labels[list(kept)] = np.arange(len(kept))
    parts = []
    for images, labels in (arrays[:2], arrays[2:]):
        order = canonical_order(images, labels)
        order = order[np.isin(labels[order], kept)]
        labels = new_labels[labels[order]].astype(np.int64)
        # The mean's last digit depends on how the pixels lie in memory.
        images = np.ascontiguousarray(images[order])
        parts += [resize(images, height, width), labels]
    mean, std = channel_mean_std(parts[0])
    return Dataset(name, tuple(classes[i] for i in kept), *parts, mean, std)


def keep_labels(
    classes: Sequence[str], only_labels: Sequence[int] | None
) -> tuple[int, ...]:
    """Returns the labels to keep, in the order in which they become 0, 1, ...

    Args:
        classes: class names, by label.
        only_labels: the labels wanted, or None for all.

    Raises:
        UsageError: a label that is not there, or is there twice, or fewer than two.
    """
    if only_labels is None:
        return tuple(range(len(classes)))
    kept = tuple(only_labels)
    if (
        len(set(kept)) != len(kept)
        or len(kept) < 2
        or set(kept) - {*range(len(classes))}
    ):
        raise UsageError(
            f"cannot keep the labels {', '.join(map(str, kept))}; "
            f"give two or more different ones of 0 to {len(classes) - 1}"
        )
    return kept


def channel_mean_std(
    images: np.ndarray, batch_size: int = 256
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns each channel's mean and standard deviation of images scaled to 0 to 1.

    As the lecture computes them: the means of the batches' means and of their mean
    squares, so that a last batch that is not full weighs as much as a full one.
    """
    means, squares = [], []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype(np.float64) / 255
        means.append(batch.mean(axis=(0, 1, 2)))
        squares.append(np.square(batch).mean(axis=(0, 1, 2)))
    return mean_std(means, squares)


def mean_std(
    means: Sequence[np.ndarray], squares: Sequence[np.ndarray]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation (C,) from those of the batches.

    Args:
        means: of each batch's pixels, (C,).
        squares: means of each batch's squared pixels, (C,).
    """
    mean = np.mean(means, axis=0)
    std = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0))
    if std.min() < 1e-6:  # a single grey level in a million pixels makes more
        raise UsageError(
            "every pixel of a channel is alike in all training images, which cannot be "
            f"normalised: its standard deviation is {std.min()}"
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def normalise(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """Returns (images / 255 - mean) / std in float32."""
    scaled = images.astype(np.float32) / np.float32(255)
    return (scaled - np.float32(mean)) / np.float32(std)


def fits(images: np.ndarray | ImageFiles) -> bool:
    """Returns whether images are to be kept in the memory of the device."""
    mapped = isinstance(images, np.memmap) or not isinstance(images, np.ndarray)
    return not mapped and images.nbytes <= IN_MEMORY


def read_ahead(
    images: np.ndarray | ImageFiles, order: Iterable[np.ndarray], ahead: int = 2
) -> Iterator[np.ndarray]:
    """Yields the images of each batch, which a thread reads beforehand.

    Args:
        images: uint8 (N, H, W, C), such as a file mapped into memory.
        order: the indices of each batch.
        ahead: batches read beforehand.
    """

    def read(indices: np.ndarray) -> np.ndarray:
        if isinstance(images, ImageFiles):
            return np.stack([images[index] for index in indices])
        return np.asarray(images[indices])

    with ThreadPoolExecutor(1) as thread:
        waiting = deque()
        try:
            for indices in order:
                waiting.append(thread.submit(read, indices))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def epoch_batches(
    size: int, batch_size: int, *, drop_last: bool, seed: int, epoch: int
) -> Iterator[np.ndarray]:
    """Yields the indices of each batch of one epoch: the same on both sides.

    Args:
        size: number of training images.
        batch_size: images per batch.
        drop_last: leave out a last batch that is not full.
        seed: of the run.
        epoch: from 0; each has a permutation of its own.
    """
    order = np.random.default_rng((seed, epoch)).permutation(size)
    stop = size - size % batch_size if drop_last else size
    for start in range(0, stop, batch_size):
        yield order[start : start + batch_size]


def missing_files(name: str, data_dir: Path, looked_for: str, reason: str) -> Exception:
    """Returns the error for a data set that is neither here nor to be downloaded."""
    reason = " ".join(reason.split())[:200]
    return UsageError(
        f"{name} is not in {data_dir} (looked for {looked_for}) and could not be "
        f"downloaded ({reason}); --dataset digits needs no files"
    )


def read_image(path: Path, height: int, width: int, in_channels: int) -> np.ndarray:
    """Returns an image file as uint8 (1, height, width, in_channels), 1 or 3 channels.

    Raises:
        UsageError: the file is missing or is not an image.
    """
    return resize(read_pixels(path, in_channels)[np.newaxis], height, width)

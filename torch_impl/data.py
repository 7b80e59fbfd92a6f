"""Data sets through torchvision, batches as PyTorch tensors (NCHW)."""

import contextlib
import gzip
import io
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from parity.spec import datasets, files
from parity.spec.errors import UsageError


def load(name: str, data_dir: Path, height: int, width: int) -> datasets.Dataset:
    """Returns a data set, downloaded to data_dir where it is not there already.

    Args:
        name: a name in the catalogue.
        data_dir: the folder of torchvision's data sets.
        height: of the images wanted, in pixels.
        width: likewise.

    Raises:
        UsageError: an unknown name, or files that are neither here nor downloadable.
    """
    datasets.find(name)
    if name == "digits":
        arrays = datasets.load_digits(height, width)
    else:
        arrays = _read(name, data_dir)
    return datasets.prepare(name, arrays, height, width)


def _read(name: str, data_dir: Path) -> tuple[np.ndarray, ...]:
    from torchvision.datasets import MNIST, FashionMNIST

    source = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    raw = Path(data_dir) / source.__name__ / "raw"
    for file in datasets.find(name).files:
        if (raw / file).exists() and not (raw / file).with_suffix("").exists():
            _unpack(raw / file, datasets.find(name).files[file])
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            splits = [source(data_dir, train, download=True) for train in (True, False)]
    except Exception as error:
        looked_for = f"{raw}/{', '.join(datasets.find(name).files)}"
        raise datasets.missing_files(name, data_dir, looked_for, str(error)) from None
    arrays = []
    for split in splits:
        arrays += [split.data.numpy()[..., np.newaxis], split.targets.numpy()]
    return tuple(arrays)


def _unpack(path: Path, md5: str) -> None:
    def write(target: Path) -> None:
        with gzip.open(path) as packed, open(target, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)

    try:
        files.write_atomically(path.with_suffix(""), write)
    except (EOFError, UsageError, zlib.error) as error:
        raise UsageError(
            f"{path} is damaged ({error}); the original's MD5 is {md5}; "
            "delete it and it is downloaded again"
        ) from None


def to_tensors(
    images: np.ndarray,
    labels: np.ndarray,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns normalised images float32 (N, C, H, W) and labels int64 (N,)."""
    images = datasets.normalise(images, mean, std)
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(labels)


def batches(
    images: torch.Tensor, labels: torch.Tensor, order: Iterable[np.ndarray]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the images and labels of each batch, by the indices in `order`."""
    for indices in order:
        indices = torch.from_numpy(indices).to(images.device)
        yield images[indices], labels[indices]

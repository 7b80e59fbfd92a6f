"""Data sets through torchvision, batches as PyTorch tensors (NCHW)."""

import contextlib
import gzip
import io
import shutil
import signal
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from parity.spec import augmentation, datasets, files, folders
from parity.spec.errors import UsageError


def load(
    name: str,
    data_dir: Path,
    height: int,
    width: int,
    *,
    only_labels: Sequence[int] | None = None,
    label_names: Path | str | None = None,
    strict: bool = False,
) -> datasets.Dataset:
    """Returns a data set, downloaded to data_dir where it is not there already.

    Args:
        name: a name in the catalogue, or "folder" for the image folder data_dir.
        data_dir: the folder of torchvision's data sets.
        height: of the images wanted, in pixels.
        width: likewise.
        only_labels: labels of the images to keep, which become 0, 1, ...; None for all.
        label_names: of an image folder's classes: a JSON file, or "animals10".
        strict: a file in an image folder that is not a whole image is an error.

    Raises:
        UsageError: an unknown name, or files that are neither here nor downloadable,
            or an image folder that does not hold what it should.
    """
    if name == "folder":
        return folders.read_folder(
            data_dir,
            height,
            width,
            label_names=label_names,
            strict=strict,
            only_labels=only_labels,
        )
    datasets.find(name)
    if name == "digits":
        arrays = datasets.load_digits(height, width)
    else:
        arrays = _read(name, data_dir)
    return datasets.prepare(name, arrays, height, width, only_labels)


def _read(name: str, data_dir: Path) -> tuple[np.ndarray, ...]:
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    spec = datasets.find(name)
    source = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}[name]
    raw = Path(data_dir)
    if source is not CIFAR10:
        raw = raw / source.__name__ / "raw"
        for file, md5 in spec.files.items():
            if (raw / file).exists() and not (raw / file).with_suffix("").exists():
                _unpack(raw / file, md5)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            splits = [source(data_dir, train, download=True) for train in (True, False)]
    except Exception as error:
        looked_for = f"{raw}/{', '.join(spec.files)}"
        raise datasets.missing_files(name, data_dir, looked_for, str(error)) from None
    arrays = []
    for split in splits:
        images = np.asarray(split.data).reshape(-1, *spec.image_shape)
        arrays += [images, np.asarray(split.targets)]
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


def normalise(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """Returns images float32 (N, C, H, W) of uint8 ones (N, H, W, C) in their place."""
    mean, std, white = (
        torch.tensor(values, dtype=torch.float32, device=images.device)
        for values in (mean, std, 255)
    )
    images = (images.to(torch.float32) / white - mean) / std
    return images.permute(0, 3, 1, 2)


class Pipeline:
    """Normalised batches of images in memory or in files.

    Attributes:
        size: (height, width) of the images, in pixels.
    """

    def __init__(
        self,
        images: np.ndarray | folders.ImageFiles,
        labels: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        augment: Collection[str] = (),
        seed: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Keeps the images, on the device where nothing is drawn or read any more.

        Args:
            images: uint8 (N, H, W, C), or files of such images.
            labels: int64 (N,).
            mean: per channel, of images scaled to 0 to 1.
            std: likewise.
            augment: what varies the images, out of augmentation.NAMES.
            seed: of what is drawn.
            workers: processes that decode and crop; 0 does it in this one.
            device: where the batches go.
        """
        self.images = images
        self.size = images.shape[1:3]
        self.labels = labels
        self.mean = mean
        self.std = std
        self.augment = tuple(augment)
        self.seed = seed
        self.workers = workers
        self.device = torch.device(device)
        self.tensors = None
        if not augment and datasets.fits(images):
            self.tensors = [
                torch.from_numpy(array).to(self.device) for array in (images, labels)
            ]

    def _start_method(self) -> str | None:
        """Returns how workers start: no process with TensorFlow's threads may fork."""
        return "forkserver" if self.workers and "tensorflow" in sys.modules else None

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def batches(
        self, order: Iterable[np.ndarray], epoch: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields the images float32 (n, C, H, W) and labels int64 (n,) of each batch.

        Args:
            order: the indices of each batch.
            epoch: from 0; each has crops and flips of its own.
        """
        for indices, images in self._pixels(list(order), epoch):
            if self.tensors is None:
                labels = self._to_device(torch.from_numpy(self.labels[indices]))
            else:
                labels = self.tensors[1][torch.from_numpy(indices).to(self.device)]
            yield normalise(images, self.mean, self.std), labels

    def _pixels(
        self, order: list[np.ndarray], epoch: int
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yields the indices and the images uint8 (n, H, W, C) of each batch."""
        if self.tensors is not None:
            for indices in order:
                place = torch.from_numpy(indices).to(self.device)
                yield indices, self.tensors[0].index_select(0, place)
            return
        if isinstance(self.images, np.ndarray) and not self.augment:
            pixels = map(torch.from_numpy, datasets.read_ahead(self.images, order))
        else:
            pixels = torch.utils.data.DataLoader(
                _Epoch(self.images, self.augment, self.seed, epoch),
                batch_sampler=[indices.tolist() for indices in order],
                num_workers=self.workers,
                multiprocessing_context=self._start_method(),
                generator=torch.Generator(),  # leaves alone the one that dropout uses
                worker_init_fn=_leave_signals,
                pin_memory=self.device.type == "cuda",
            )
        for indices, batch in zip(order, pixels, strict=True):
            yield indices, self._to_device(batch)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def _leave_signals(worker: int) -> None:
    """Lets the program that reads decide when a worker stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Epoch(torch.utils.data.Dataset):
    def __init__(
        self,
        images: np.ndarray | folders.ImageFiles,
        augment: tuple[str, ...],
        seed: int,
        epoch: int,
    ) -> None:
        self.images = images
        self.augment = augment
        self.seed = seed
        self.epoch = epoch

    def __getitem__(self, index: int) -> torch.Tensor:
        in_memory = isinstance(self.images, np.ndarray)
        pixels = self.images[index] if in_memory else self.images.decode(index)
        choices = augmentation.choose(
            self.augment, [pixels.shape[:2]], [index], self.seed, self.epoch
        )
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)
        size = self.images.shape[1:3]
        pixels = _crop_and_flip(pixels, choices.boxes[0], choices.flips[0], size)
        return pixels.permute(1, 2, 0)


def _crop_and_flip(
    pixels: torch.Tensor, box: np.ndarray, flip: bool, size: tuple[int, int]
) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    pixels = functional.crop(pixels, *box.tolist()).to(torch.float32)
    pixels = functional.resize(pixels, list(size), antialias=True)
    pixels = pixels.round().to(torch.uint8)
    return functional.horizontal_flip(pixels) if flip else pixels

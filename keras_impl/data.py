"""Data sets through tensorflow-datasets, batches as TensorFlow tensors (NHWC).

Where Keras runs on another backend, batches are NumPy arrays, and tf.data, with which
images are decoded in parallel and varied, is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from parity.spec import augmentation, datasets, folders
from parity.spec.errors import UsageError

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf


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
        data_dir: the folder of tensorflow-datasets.
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
    import requests
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        try:
            # Without a network tensorflow-datasets tries again for minutes.
            address = getattr(builder, "URL", builder.info.homepage)
            requests.head(address, timeout=10)
            builder.download_and_prepare()
        except Exception as error:
            looked_for = str(builder.data_path)
            raise datasets.missing_files(
                name, data_dir, looked_for, str(error)
            ) from None
    arrays = []
    for split in ("train", "test"):
        whole = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        arrays += [whole["image"], whole["label"]]
    return tuple(arrays)


def normalise(
    images: tf.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> tf.Tensor:
    """Returns images float32 of uint8 ones (N, H, W, C) in their place."""
    # TensorFlow's graphs multiply by the inverse of a constant; these are none there.
    with tf.init_scope():
        mean, std, white = (
            tf.constant(values, tf.float32) for values in (mean, std, 255)
        )
    return (tf.cast(images, tf.float32) / white - mean) / std


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
    ) -> None:
        """Keeps the images, on the device where nothing is drawn or read any more.

        Args:
            images: uint8 (N, H, W, C), or files of such images.
            labels: int64 (N,).
            mean: per channel, of images scaled to 0 to 1.
            std: likewise.
            augment: what varies the images, out of augmentation.NAMES.
            seed: of what is drawn.
            workers: images decoded at a time; 0 leaves the number to TensorFlow.
        """
        self.images = images
        self.size = images.shape[1:3]
        self.labels = labels
        self.mean = mean
        self.std = std
        self.augment = tuple(augment)
        self.seed = seed
        self.workers = workers
        self.tensors = None
        if BACKEND != "tensorflow":
            if augment:
                raise UsageError(
                    f"--augment is done by tf.data, and Keras runs on {BACKEND} here; "
                    "KERAS_BACKEND=tensorflow, or --augment none, would do"
                )
        elif not augment and datasets.fits(images):
            self.tensors = tf.constant(images), tf.constant(labels)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    def batches(
        self, order: Iterable[np.ndarray], epoch: int = 0
    ) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yields the images float32 (n, H, W, C) and labels int64 (n,) of each batch.

        Args:
            order: the indices of each batch.
            epoch: from 0; each has crops and flips of its own.
        """
        if BACKEND != "tensorflow":
            order = list(order)
            pixels = datasets.read_ahead(self.images, order)
            for indices, images in zip(order, pixels, strict=True):
                images = datasets.normalise(images, self.mean, self.std)
                yield images, self.labels[indices]
            return
        for indices, images in self._pixels(list(order), epoch):
            if self.tensors is None:
                labels = tf.constant(self.labels[indices])
            else:
                labels = tf.gather(self.tensors[1], indices)
            yield normalise(images, self.mean, self.std), labels

    def _pixels(
        self, order: list[np.ndarray], epoch: int
    ) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        """Yields the indices and the images uint8 (n, H, W, C) of each batch."""
        if self.tensors is not None:
            for indices in order:
                yield indices, tf.gather(self.tensors[0], indices)
            return
        if isinstance(self.images, np.ndarray) and not self.augment:
            pixels = map(tf.constant, datasets.read_ahead(self.images, order))
        else:
            pixels = self._decoded(order, epoch)
        yield from zip(order, pixels, strict=True)

    def _decoded(self, order: list[np.ndarray], epoch: int) -> tf.data.Dataset:
        indices = np.concatenate([np.empty(0, np.int64), *order])
        choices = augmentation.choose(
            self.augment, _sizes(self.images)[indices], indices, self.seed, epoch
        )

        def prepare(index: tf.Tensor, box: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
            return _crop_and_flip(read(index), box, flip, self.size)

        with tf.device("CPU"):
            read = _make_reader(self.images)
            pixels = tf.data.Dataset.from_tensor_slices(
                (indices, choices.boxes, choices.flips)
            )
            pixels = pixels.map(prepare, self.workers or tf.data.AUTOTUNE)
            sizes = [len(indices) for indices in order] or [1]
            return pixels.batch(1).rebatch(sizes).prefetch(2)


def _sizes(images: np.ndarray | folders.ImageFiles) -> np.ndarray:
    if isinstance(images, folders.ImageFiles):
        return images.sizes
    return np.broadcast_to(images.shape[1:3], (len(images), 2))


def _make_reader(
    images: np.ndarray | folders.ImageFiles,
) -> Callable[[tf.Tensor], tf.Tensor]:
    channels = images.shape[3]
    if isinstance(images, np.ndarray):
        pixels = tf.constant(images)
        return lambda index: pixels[index]
    paths = tf.constant([os.fsencode(path) for path in images.paths])
    native = tf.constant(images.native)

    def decode(index: tf.Tensor) -> tf.Tensor:  # PNG too, whatever the name says
        return tf.io.decode_jpeg(
            tf.io.read_file(paths[index]),
            channels,
            dct_method="INTEGER_ACCURATE",  # the default is up to 6 grey levels off
            try_recover_truncated=True,  # as Pillow does where it finds no end
            acceptable_fraction=0.0,
        )

    def read(index: tf.Tensor) -> tf.Tensor:
        pixels = tf.cond(
            native[index],
            lambda: decode(index),
            lambda: tf.numpy_function(images.decode, [index], tf.uint8),
        )
        return tf.ensure_shape(pixels, (None, None, channels))

    return read


def _crop_and_flip(
    pixels: tf.Tensor, box: tf.Tensor, flip: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    top, left, box_height, box_width = tf.unstack(box)
    pixels = pixels[top : top + box_height, left : left + box_width]
    pixels = tf.image.resize(pixels, size, antialias=True)
    pixels = tf.cast(tf.round(pixels), tf.uint8)
    return tf.cond(flip, lambda: pixels[:, ::-1], lambda: pixels)

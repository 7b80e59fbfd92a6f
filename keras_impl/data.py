"""Data sets through tensorflow-datasets, batches as TensorFlow tensors (NHWC)."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from parity.spec import datasets


def load(name: str, data_dir: Path, height: int, width: int) -> datasets.Dataset:
    """Returns a data set, downloaded to data_dir where it is not there already.

    Args:
        name: a name in the catalogue.
        data_dir: the folder of tensorflow-datasets.
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
    import requests
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        try:
            # Without a network tensorflow-datasets tries again for minutes.
            requests.head(builder.URL, timeout=10)
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


def to_tensors(
    images: np.ndarray,
    labels: np.ndarray,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns normalised images float32 (N, H, W, C) and labels int64 (N,)."""
    images = datasets.normalise(images, mean, std)
    return tf.constant(images), tf.constant(labels)


def batches(
    images: tf.Tensor, labels: tf.Tensor, order: Iterable[np.ndarray]
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Yields the images and labels of each batch, by the indices in `order`."""
    for indices in order:
        indices = tf.constant(indices)
        yield tf.gather(images, indices), tf.gather(labels, indices)

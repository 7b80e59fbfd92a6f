"""Image files as pixels: what Pillow decodes for both sides, and what it converts.

As in torchvision, the orientation that a camera noted in a file is not applied.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity.spec.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Kind:
    """What an image file holds.

    Attributes:
        grey: one channel of at most 8 bits.
        native: a plain JPEG or PNG file, which TensorFlow decodes to the pixels that
            Pillow gives; Pillow decodes the others on both sides.
        conversion: what makes it more than 8-bit grey or RGB, in words; "" for nothing.
    """

    grey: bool
    native: bool
    conversion: str


@dataclass(frozen=True)
class ImageFiles(Sequence):
    """Image files as a sequence of uint8 (H, W, C); only their names are in memory.

    Attributes:
        paths: the files.
        sizes: int64 (N, 2), height and width of each image in its file, in pixels.
        native: bool (N,), see Kind.
        image_shape: (H, W, C) of the images wanted.
    """

    paths: tuple[Path, ...]
    sizes: np.ndarray
    native: np.ndarray
    image_shape: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the images wanted."""
        return len(self.paths), *self.image_shape

    def __len__(self) -> int:
        """Returns the number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns an image as uint8 (H, W, C), at the size wanted."""
        return resize(self.decode(index)[np.newaxis], *self.image_shape[:2])[0]

    def decode(self, index: int) -> np.ndarray:
        """Returns an image as uint8, at the size that it has in its file."""
        return read_pixels(self.paths[index], self.image_shape[2])


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Returns an image file as uint8 (H, W, channels) at its own size.

    Raises:
        UsageError: the file is missing or is not an image, or channels not 1 or 3.
    """
    from PIL import Image

    if channels not in (1, 3):
        raise UsageError(f"image files have 1 or 3 channels, not {channels}")
    with _image_errors(path), Image.open(path) as image:
        return _to_pixels(image, channels)


def inspect(path: Path) -> tuple[Kind, np.ndarray]:
    """Returns what an image file holds, and its pixels uint8 (H, W, 3).

    Raises:
        UsageError: the file is missing or is not a whole image.
    """
    from PIL import Image

    with _image_errors(path):
        with Image.open(path) as image:
            image.verify()  # the checksums, which decoding passes over
        with Image.open(path) as image:
            conversion = _conversion(image)
            plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
            grey = image.mode in ("1", "L") and not conversion
            kind = Kind(grey, plain and not conversion, conversion)
            return kind, _to_pixels(image, 3)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns uint8 images (N, H, W, C) at another size: Pillow's bilinear filter."""
    from PIL import Image

    if images.shape[1:3] == (height, width):
        return images
    resized = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for image, target in zip(images, resized, strict=True):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(image[..., channel])
            plane = plane.resize((width, height), Image.Resampling.BILINEAR)
            target[..., channel] = np.asarray(plane)
    return resized


def _to_pixels(image: "Image", channels: int) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I"):  # convert() would cut it off at 255
        grey = (np.asarray(image) // 257).clip(0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if "transparency" in image.info:  # convert() would warn of what it drops
        image = image.convert("RGBA")
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _conversion(image: "Image") -> str:
    if image.has_transparency_data:
        return "with an alpha channel"
    if image.mode.startswith("I") or any(";16" in str(tile) for tile in image.tile):
        return "of 16 bits"
    if getattr(image, "is_animated", False):
        return "of several frames (the first is taken)"
    return "" if image.mode in ("1", "L", "RGB") else f"of mode {image.mode}"


@contextlib.contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"no such image file: {path}") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise UsageError(f"not an image file: {path} ({error})") from None

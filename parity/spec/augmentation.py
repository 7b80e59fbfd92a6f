"""What is drawn to vary the training images: the same numbers on both sides."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from parity.spec.errors import unknown

NAMES = ("crop", "flip")
AREAS = (0.08, 1.0)
RATIOS = (3 / 4, 4 / 3)
TRIES = 10


@dataclass(frozen=True)
class Choices:
    """What is done to each of n images.

    Attributes:
        boxes: int64 (n, 4): top, left, height and width of what is cut out, in pixels.
        flips: bool (n,): whether left and right change places.
    """

    boxes: np.ndarray
    flips: np.ndarray


def choose(
    names: Collection[str],
    sizes: np.ndarray,
    indices: Sequence[int],
    seed: int,
    epoch: int,
) -> Choices:
    """Returns what is done to images in one epoch, whatever batch they are in.

    "crop" cuts out 8 to 100 % of the area at a ratio of 3/4 to 4/3 (Szegedy et al.
    2014, arXiv:1409.4842, section 6; drawn as by torchvision's RandomResizedCrop);
    "flip" mirrors every second image.

    Args:
        names: what is wanted out of NAMES; without "crop" the box is the whole image.
        sizes: (n, 2), height and width of the images, in pixels.
        indices: (n,), the images' places in the data set.
        seed: of the run.
        epoch: from 0.

    Raises:
        UsageError: a name that is not in NAMES.
    """
    for name in names:
        if name not in NAMES:
            raise unknown("augmentation", name, NAMES)
    boxes = np.array([(0, 0, *size) for size in sizes], np.int64).reshape(-1, 4)
    flips = np.zeros(len(boxes), bool)
    for place, index in enumerate(indices):
        random = np.random.default_rng((seed, epoch, int(index)))
        flips[place] = random.random() < 0.5 and "flip" in names
        if "crop" in names:
            boxes[place] = _draw_box(random, *boxes[place, 2:].tolist())
    return Choices(boxes, flips)


def _draw_box(
    random: np.random.Generator, height: int, width: int
) -> tuple[int, int, int, int]:
    for _ in range(TRIES):
        area = height * width * random.uniform(*AREAS)
        ratio = math.exp(random.uniform(*map(math.log, RATIOS)))
        box_height = round(math.sqrt(area / ratio))
        box_width = round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = random.integers(height - box_height + 1)
            left = random.integers(width - box_width + 1)
            return int(top), int(left), box_height, box_width
    box_height = min(height, max(1, round(width / RATIOS[0])))
    box_width = min(width, max(1, round(height * RATIOS[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width

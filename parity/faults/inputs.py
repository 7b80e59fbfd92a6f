"""Faults of the images: two pipelines that feed different arrays."""

from collections.abc import Callable, Iterator

import numpy as np
import torch.nn.functional as F

from parity.frameworks import torch
from parity.faults.networks import NETWORKS
from parity.faults.pairs import Case, Expected, Pair, build_sides, make_pair
from parity.faults.spec import Network

MEAN = np.array([0.485, 0.456, 0.406], "float32")
DEVIATION = np.array([0.229, 0.224, 0.225], "float32")
# Scores need something that does not flatten, where height and width are exchanged.
EVERYWHERE = ("vgg", "strided", "inception", "mobile")
POOLED = ("strided", "residual", "mobile")


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    for cause, note, function, networks in (
        ("input.scale", "255", lambda x: (x, x / 255), EVERYWHERE),
        ("input.scale", "128", lambda x: (x / 128, x), ("alexnet",)),
        ("input.mean_std", "imagenet", _normalised, ("residual", "inception", "vgg")),
        ("input.mean_std", "tf", _to_minus_one, ("mobile", "strided")),
        ("input.channel_order", "", _turned, EVERYWHERE),
    ):
        for name in networks:
            yield _case(cause, note, NETWORKS[name], function)
    for cause, note, function, networks in (
        ("input.layout", "reshaped", _reshaped, EVERYWHERE),
        ("input.layout", "turned", lambda x: x.transpose(0, 3, 2, 1), POOLED),
    ):
        for name in networks:
            yield _case(cause, note, NETWORKS[name], function, raw=True)
    for note, one, other in (
        ("antialias", {"antialias": False}, {"antialias": True}),
        ("grid", {"align_corners": False}, {"align_corners": True}),
        ("nearest", {"align_corners": False}, {"mode": "nearest"}),
    ):
        for name in ("residual", "mobile"):
            network = NETWORKS[name]

            def resized(x, one=one, other=other, network=network):
                return _resized(network, one), _resized(network, other)

            yield _case("input.resize", note, network, resized)
    for name in ("vgg", "residual", "alexnet"):
        yield _case(
            "input.different", "", NETWORKS[name], lambda x: (x, x[::-1] + 0.25)
        )


def pixels(network: Network, seed: int = 0, larger: int = 1) -> np.ndarray:
    """Returns smooth images of grey levels from 0 to 255, as photographs are."""
    height, width = (larger * size for size in network.size)
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.random((3, network.in_channels, 6, 5)))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").numpy()
    smooth = smooth + 0.1 * generator.standard_normal(smooth.shape)
    return np.rint(255 * smooth.clip(0, 1)).transpose(0, 2, 3, 1).astype("float32")


def _normalised(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Caffe's and torchvision's pixels."""
    caffe = images - 255 * MEAN
    return caffe, (images / 255 - MEAN) / DEVIATION


def _turned(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images / 255, images[..., ::-1] / 255


def _to_minus_one(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images / 127.5 - 1, (images / 255 - MEAN) / DEVIATION


def _reshaped(images: np.ndarray) -> np.ndarray:
    count, height, width, channels = images.shape
    return images.reshape(count, channels, height, width)


def _resized(network: Network, settings: dict) -> np.ndarray:
    images = torch.from_numpy(pixels(network, larger=2).transpose(0, 3, 1, 2))
    images = F.interpolate(images, network.size, **{"mode": "bilinear"} | settings)
    return images.numpy().transpose(0, 2, 3, 1) / 255


def _case(
    cause: str, note: str, network: Network, function: Callable, *, raw: bool = False
) -> Case:
    """Returns a case whose images a function makes.

    Args:
        cause: its identifier.
        note: tells it from others.
        network: that the images are fed to.
        function: of grey levels; both sides' NHWC images, or PyTorch's NCHW ones if
            they are raw.
        raw: see above.
    """

    def make() -> Pair:
        given = pixels(network)
        if raw:
            images = (given / 255, function(given / 255))
        else:
            ours, theirs = function(given)
            images = (ours, theirs.transpose(0, 3, 1, 2))
        images = tuple(np.ascontiguousarray(x, "float32") for x in images)
        expected = Expected((cause,), ("input",), ("input",))
        return make_pair(build_sides(network), (expected,), given=images)

    title = f"{cause}{note and '-'}{note}/{network.name}"
    return Case(title, network.name, cause, "whole", 1.0, make)

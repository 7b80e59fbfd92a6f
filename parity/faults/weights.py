"""Faults of weights that were copied wrongly, judged as they are."""

from collections.abc import Callable, Iterator

import numpy as np

from parity.frameworks import torch
from parity.faults.pairs import Case, Sides, read_weights, write_weights
from parity.faults.planting import adding, beside, on, planted, setting
from parity.faults.spec import Built

Weights = dict[str, np.ndarray]


def cases() -> Iterator[Case]:
    """Yields all cases of this file."""
    yield from _kernels()
    yield from _whole_layers()
    yield from _statistics()
    yield from _orders()
    yield from _not_finite()


def changed(function: Callable[[Weights], Weights]) -> Callable:
    """Returns what replaces some weights of the layer of a path."""

    def plant(sides: Sides, wrong: Built, path: str) -> None:
        write_weights(wrong, path, function(read_weights(wrong, path)))

    return plant


def exchanged(other: str, *, both: bool = True) -> Callable:
    """Returns what gives a layer the weights of another, and that one its own."""

    def plant(sides: Sides, wrong: Built, path: str) -> None:
        second = other if "." in other else beside(path, other)
        one, two = read_weights(wrong, path), read_weights(wrong, second)
        write_weights(wrong, path, two)
        if both:
            write_weights(wrong, second, one)

    return plant


def initialised(sides: Sides, wrong: Built, path: str) -> None:
    """Leaves a layer as its framework initialises it."""
    layer, shapes = wrong.layers[path], read_weights(wrong, path)
    if isinstance(layer, torch.nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            layer.reset_parameters()
        return
    kernel = shapes["kernel"]
    inner = np.prod(kernel.shape[2:])
    limit = np.sqrt(6 / (inner * sum(kernel.shape[:2])))
    values = np.random.default_rng(3).uniform(-limit, limit, kernel.shape)
    values = {"kernel": values.astype("float32")}
    if "bias" in shapes:
        values["bias"] = np.zeros_like(shapes["bias"])
    write_weights(wrong, path, values)


def unpermuted(sides: Sides, wrong: Built, path: str) -> None:
    """Gives PyTorch's dense layer Keras's kernel as it is, but for the transpose."""
    kernel = sides.keras.layers[path].kernel.numpy().T
    write_weights(sides.torch, path, {"kernel": kernel})


def _same(nodes, path):
    return nodes


def _planted(cause: str, targets: str, plant: Callable, **rest) -> Iterator[Case]:
    rest = {"weights": "as_is", "plant": plant} | rest
    yield from planted(cause, targets, rest.pop("edit", _same), **rest)


def noisy(values: np.ndarray) -> np.ndarray:
    """Returns values with a noise of a twentieth of their size."""
    noise = np.random.default_rng(5).standard_normal(values.shape)
    return (values + 0.05 * np.abs(values).mean() * noise).astype("float32")


def _kernels() -> Iterator[Case]:
    flip = changed(lambda w: {"kernel": w["kernel"][:, :, ::-1, ::-1].copy()})
    yield from _planted(
        "weights.flipped",
        "vgg:features.conv1 strided:conv3 residual:layer3.conv2 alexnet:conv2 "
        "mobile:block2.depth decoder:deconv",
        flip,
    )
    turn = changed(lambda w: {"kernel": w["kernel"].swapaxes(2, 3).copy()})
    yield from _planted(
        "weights.transposed",
        "strided:conv1 residual:layer2.conv2 inception:mixed2.five mobile:block3.depth",
        turn,
    )
    turn = changed(lambda w: {"kernel": w["kernel"].swapaxes(0, 1).copy()})
    yield from _planted(
        "weights.transposed",
        "vgg:classifier.fc2 vgg:features.conv2 alexnet:fc7 alexnet:conv3",
        turn,
        note="square",
    )
    for factor, targets in (
        (2.0, "vgg:features.conv3 inception:mixed2.one"),
        (1 / 255, "strided:conv1"),
        (0.9, "residual:layer2.conv1 alexnet:fc8"),
    ):
        scale = changed(lambda w, factor=factor: {"kernel": w["kernel"] * factor})
        yield from _planted("weights.scaled", targets, scale)
    disturbed = changed(lambda w: {"kernel": noisy(w["kernel"])})
    yield from _planted(
        "weights.different",
        "strided:conv1 residual:layer2.conv1 alexnet:fc8 vgg:features.conv4",
        disturbed,
    )
    half = changed(lambda w: {"kernel": w["kernel"].astype("float16")})
    yield from _planted(
        "weights.different", "inception:mixed1.three mobile:fc", half, note="half"
    )
    disturbed = changed(lambda w: {"bias": noisy(w["bias"])})
    yield from _planted(
        "bias.different", "vgg:features.conv1 strided:conv3 mobile:fc", disturbed
    )
    zero = changed(lambda w: {"bias": np.zeros_like(w["bias"])})
    yield from _planted(
        "bias.different",
        "inception:stem alexnet:conv4 vgg:classifier.fc3",
        zero,
        also=("bias.missing",),
        note="zero",
    )


def _whole_layers() -> Iterator[Case]:
    yield from _planted(
        "weights.not_copied",
        "vgg:features.conv1 strided:conv2 residual:layer2.down alexnet:fc7 mobile:fc "
        "inception:mixed1.five_in",
        initialised,
    )
    for target, other in (
        ("vgg:features.conv4", "conv5"),
        ("residual:layer1.conv1", "conv2"),
        ("inception:mixed1.one", "pooled"),
        ("alexnet:conv3", "conv4"),
        ("mobile:block1.project", "block3.project"),
        ("strided:bn1", "bn2"),
        ("mobile:block3.excite", "block2.excite"),
    ):
        path = target.split(":")[1]
        second = other if "." in other else beside(path, other)
        yield from _planted(
            "weights.wrong_layer",
            target,
            exchanged(other),
            at=lambda _, paths=(path, second): paths,
        )
    for target, other in (
        ("vgg:features.conv5", "conv4"),
        ("residual:layer1.conv2", "conv1"),
        ("mobile:block3.expand", "block1.expand"),
    ):
        yield from _planted(
            "weights.wrong_layer", target, exchanged(other, both=False), note="twice"
        )


def _statistics() -> Iterator[Case]:
    cause = "bn.statistics_swapped"
    swap = changed(lambda w: {"gamma": w["beta"], "beta": w["gamma"]})
    yield from _planted(
        cause, "strided:bn1 residual:layer2.bn1 mobile:block3.project_bn", swap
    )

    def swap_moments(sides: Sides, wrong: Built, path: str) -> None:
        for built in (sides.keras, sides.torch):
            mean = np.abs(read_weights(built, path)["mean"]) + 0.1
            write_weights(built, path, {"mean": mean})
        weights = read_weights(wrong, path)
        values = {"mean": weights["variance"], "variance": weights["mean"]}
        write_weights(wrong, path, values)

    yield from _planted(
        cause,
        "strided:bn2 residual:layer3.bn3 mobile:stem_bn",
        swap_moments,
        note="mean",
    )
    fresh = changed(
        lambda w: {
            "mean": np.zeros_like(w["mean"]),
            "variance": np.ones_like(w["mean"]),
        }
    )
    yield from _planted(
        "bn.statistics_not_copied",
        "strided:bn1 residual:layer1.bn2 mobile:block2.depth_bn "
        "residual:layer3.down_bn",
        fresh,
    )


def _orders() -> Iterator[Case]:
    cause = "flatten.order"
    both = {"side": "torch"}
    yield from _planted(cause, "vgg:classifier.fc1 alexnet:fc6", unpermuted, **both)
    for target, pool in (
        ("strided:fc1", "mean"),
        ("residual:fc", "avgpool"),
        ("inception:logits", "gap"),
    ):
        flat = on(pool, setting(kind="flatten"))
        yield from _planted(cause, target, unpermuted, both=flat, **both)
    # PyTorch reads the vector as channels, rows, columns.
    channels_first = setting(order="chw")
    yield from planted(
        "reshape.order", "decoder:to_map", channels_first, weights="as_is", **both
    )
    # A gate that is a whole map: flattened, mixed, and made a map again.
    for target in ("vgg:features.pool2", "residual:layer3"):
        size = {"vgg": (6, 5, 12), "residual": (3, 3, 16)}[target.split(":")[0]]
        new = beside(target.split(":")[1], "again")
        units = int(np.prod(size))
        yield from planted(
            "reshape.order",
            target,
            on(new, channels_first),
            both=lambda nodes, path, size=size, units=units: _through_vector(
                nodes, path, size, units
            ),
            at=lambda _, new=new: (new,),
            weights="as_is",
            **both,
        )


def _through_vector(nodes, path: str, size: tuple[int, ...], units: int):
    """Returns nodes with a dense layer over a whole map behind a path."""
    nodes = adding("reshape", "again", shape=size)(nodes, path)
    nodes = adding("dense", "mixed", units=units)(nodes, path)
    return adding("flatten", "flat")(nodes, path)


def _not_finite() -> Iterator[Case]:
    def lost(weights: Weights) -> Weights:
        kernel = weights["kernel"].copy()
        kernel.flat[3] = np.nan
        return {"kernel": kernel}

    yield from _planted(
        "nan.first",
        "strided:conv1 residual:layer2.conv2 vgg:classifier.fc2",
        changed(lost),
        note="weight",
    )
    negative = changed(lambda w: {"variance": w["variance"] - 1})
    yield from _planted(
        "nan.first",
        "mobile:block3.expand_bn strided:bn4",
        negative,
        also=("weights.different",),
        note="variance",
    )

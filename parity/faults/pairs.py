"""Pairs of models, their weights, and what a diagnosis of them should say."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.frameworks import keras, torch
from parity.faults import keras_side, torch_side
from parity.faults.spec import Built, Network, Nodes, find, layer_names, leaves

PLACES = ("early", "middle", "late", "whole")
SCALES = (0.01, 1.0, 100.0)


CONSEQUENCES = {
    "conv.dilation": ("conv.padding",),
    "conv.kernel_size": ("conv.padding",),
    "conv.stride": ("conv.padding",),
    "conv.stride_placement": ("conv.padding", "conv.stride"),
    "pool.size": ("pool.padding",),
    "pool.stride": ("pool.padding",),
    "layer.missing": ("bn.missing", "activation.missing", "bias.missing"),
    "shortcut.missing": ("layer.missing", "bn.missing"),
    "weights.not_copied": ("bias.different",),
    "weights.wrong_layer": ("bias.different", "bn.statistics_not_copied"),
    "optimizer.kind": ("optimizer.epsilon", "optimizer.betas", "optimizer.momentum"),
    "optimizer.centered": ("optimizer.epsilon", "optimizer.epsilon_place"),
}
# Where the padding is a step of its own, it is named by the layer before it.
PADDINGS = ("conv.padding", "pool.padding", "pool.border", "pad.amount", "pad.value")


@dataclass(frozen=True)
class Expected:
    """One difference that a diagnosis should find.

    Attributes:
        causes: identifiers, any of which is right.
        keras_names: the layers at which it may be found, on the Keras side.
        torch_names: the same on the PyTorch side.
        also: causes that are true there too, as a consequence: where a kernel has
            another size, 'same' pads by another amount.
    """

    causes: tuple[str, ...]
    keras_names: tuple[str, ...]
    torch_names: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two models and how they are to be compared.

    Attributes:
        images: NHWC float32, or (Keras's, PyTorch's in NCHW) where these differ.
        labels: int (N,).
        level: "forward", "backward" or "training".
        weights: "copy" or "as_is".
        arguments: further ones of `parity.diagnose`.
        expected: what differs; () where the two are the same function.
        transfer: gives the PyTorch model the Keras model's weights wherever they fit;
            for judges that copy nothing themselves. Does nothing to "as_is" pairs.
        tolerance: the largest float64 error of a pair that is equal; above 1e-10
            where TensorFlow rounds to float32 inside.
    """

    keras_model: keras.Model
    torch_model: torch.nn.Module
    images: np.ndarray | tuple[np.ndarray, np.ndarray]
    labels: np.ndarray
    level: str
    weights: str
    arguments: dict[str, Any]
    expected: tuple[Expected, ...]
    transfer: Callable[[], None] = lambda: None
    tolerance: float = 1e-10


@dataclass(frozen=True)
class Case:
    """A pair that is made when it is asked for.

    Attributes:
        name: unique among all cases.
        network: what it was planted in.
        cause: the identifier, "several" or "equal".
        place: "early", "middle" or "late", or "whole" for the images, the loss and the
            optimizer.
        scale: of the images.
        make: builds the models.
    """

    name: str
    network: str
    cause: str
    place: str
    scale: float
    make: Callable[[], Pair] = field(repr=False)


def images(network: Network, scale: float, count: int = 3, seed: int = 0) -> np.ndarray:
    """Returns normally distributed images times a scale."""
    shape = (count, *network.size, network.in_channels)
    values = np.random.default_rng(seed).standard_normal(shape)
    return (scale * values).astype(np.float32)


def labels(count: int, num_classes: int, seed: int = 0) -> np.ndarray:
    """Returns random labels."""
    return np.random.default_rng(seed).integers(0, max(num_classes, 1), count)


def place(nodes: Nodes, path: str) -> str:
    """Returns in which third of a network a node is."""
    order = list(leaves(nodes))
    first = next(i for i, x in enumerate(order) if f"{x}.".startswith(f"{path}."))
    return PLACES[3 * first // len(order)]


def random_weights(role: str, path: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Returns values for a weight; the same for the same path, shape and seed."""
    key = zlib.crc32(f"{path}/{role}/{seed}".encode())
    values = np.random.default_rng(key).standard_normal(tuple(shape))
    if role == "kernel":
        values *= math.sqrt(2 / max(math.prod(shape[1:]), 1))
    elif role == "gamma":
        values = 1 + values / 4
    elif role == "variance":
        values = np.exp(values / 4)
    else:
        values = values / 4
    return values.astype(np.float32)


def fill_keras(built: Built, seed: int, other: Built) -> None:
    """Gives a Keras model random weights, the same as `fill_torch` of the seed.

    Args:
        built: the model.
        seed: of the weights.
        other: the PyTorch model, which knows the shapes of flattened maps.
    """
    for path, layer in built.layers.items():
        for role, variable in _keras_weights(layer).items():
            axes = _keras_axes(layer, role)
            shape = [variable.shape[axis] for axis in axes]
            value = random_weights(role, path, shape, seed)
            order = built.flattened.get(path, (None, "hwc"))[1]
            if role == "kernel" and order == "chw":
                value = _to_channels_first(value, other.flattened[path][0])
            variable.assign(value.transpose(np.argsort(axes)))


def fill_torch(built: Built, seed: int) -> None:
    """Gives a PyTorch model random weights; those of dense layers as Keras flattens."""
    with torch.no_grad():
        for path, module in built.layers.items():
            dense = find(built.nodes, path).kind == "dense"
            for role, tensor in _torch_weights(module).items():
                shape = tuple(tensor.shape)
                if dense and role == "kernel":
                    shape = (shape[0], math.prod(shape[1:]))
                if isinstance(module, torch.nn.ConvTranspose2d) and role == "kernel":
                    shape = (shape[1], shape[0], *shape[2:])
                value = random_weights(role, path, shape, seed)
                if isinstance(module, torch.nn.ConvTranspose2d) and role == "kernel":
                    value = value.swapaxes(0, 1)
                if dense and role == "kernel":
                    value = _for_flattened(built, path, module, value)
                tensor.copy_(torch.from_numpy(value.reshape(tensor.shape).copy()))


def _for_flattened(built: Built, path: str, module: Any, value: np.ndarray):
    if path in built.flattened:
        shape, order = built.flattened[path]
        return _to_channels_first(value, shape) if order == "chw" else value
    if isinstance(module, torch.nn.Conv2d) and module.weight[0, 0].numel() > 1:
        return _to_channels_first(value, tuple(module.weight.shape[1:]))
    return value


def _to_channels_first(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns (O, H * W * C) as (O, C * H * W)."""
    channels, height, width = shape
    kernel = kernel.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return kernel.reshape(len(kernel), -1)


def _keras_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Returns a layer's variables by their role."""
    roles = {"kernel": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta"}
    roles |= {"moving_mean": "mean", "moving_variance": "variance"}
    found = {}
    for attribute, role in roles.items():
        variable = getattr(layer, attribute, None)
        if isinstance(variable, keras.Variable):
            found[role] = variable
    return found


def _keras_axes(layer: keras.Layer, role: str) -> tuple[int, ...]:
    """Returns which axes of a variable make PyTorch's, in its order."""
    if role != "kernel":
        return (0,)
    if isinstance(layer, keras.layers.Dense):
        return (1, 0)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (2, 3, 0, 1)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return (2, 3, 0, 1)  # (out, in, height, width)
    return (3, 2, 0, 1)


def _torch_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns a module's tensors by their role."""
    normal = isinstance(
        module,
        torch.nn.BatchNorm2d
        | torch.nn.BatchNorm1d
        | torch.nn.LayerNorm
        | torch.nn.GroupNorm
        | torch.nn.InstanceNorm2d,
    )
    roles = {"weight": "gamma" if normal else "kernel"}
    roles |= {"bias": "beta" if normal else "bias"}
    roles |= {"running_mean": "mean", "running_var": "variance"}
    found = {}
    for attribute, role in roles.items():
        tensor = getattr(module, attribute, None)
        if isinstance(tensor, torch.Tensor):
            found[role] = tensor
    return found


def read_weights(built: Built, path: str) -> dict[str, np.ndarray]:
    """Returns a layer's weights by their role, in PyTorch's layout."""
    layer = built.layers[path]
    if isinstance(layer, torch.nn.Module):
        tensors = _torch_weights(layer).items()
        return {role: tensor.detach().numpy().copy() for role, tensor in tensors}
    return {
        role: variable.numpy().transpose(_keras_axes(layer, role))
        for role, variable in _keras_weights(layer).items()
    }


def write_weights(built: Built, path: str, weights: dict[str, np.ndarray]) -> None:
    """Sets some of a layer's weights, in PyTorch's layout."""
    layer = built.layers[path]
    for role, value in weights.items():
        if isinstance(layer, torch.nn.Module):
            value = torch.from_numpy(np.array(value, "float32"))
            _torch_weights(layer)[role].data.copy_(value)
        else:
            axes = np.argsort(_keras_axes(layer, role))
            _keras_weights(layer)[role].assign(value.transpose(axes))


@dataclass(frozen=True)
class Sides:
    """Both sides of a network, built."""

    network: Network
    keras: Built
    torch: Built

    def expected(self, path: str, *causes: str) -> Expected:
        """Returns what is to be found at a node."""
        names = []
        for built, other in ((self.keras, self.torch), (self.torch, self.keras)):
            found = layer_names(built, path, other)
            if path in built.loose and set(causes) & set(PADDINGS):
                before = built.sources[path][0]
                found += layer_names(built, before, other)
            names.append(found)
        return Expected(causes, *names, CONSEQUENCES.get(causes[0], ()))

    def fill(self, seed: int = 0, torch_seed: int | None = None) -> None:
        """Gives both sides weights, the same unless PyTorch has another seed."""
        fill_keras(self.keras, seed, self.torch)
        fill_torch(self.torch, seed if torch_seed is None else torch_seed)


def build_sides(
    network: Network, keras_nodes: Nodes | None = None, torch_nodes: Nodes | None = None
) -> Sides:
    """Returns both sides; each has the network's nodes unless it is given others."""
    keras_nodes = network.nodes if keras_nodes is None else keras_nodes
    torch_nodes = network.nodes if torch_nodes is None else torch_nodes
    shape = (network.size, network.in_channels)
    return Sides(
        network,
        keras_side.build(keras_nodes, network.keras, *shape),
        torch_side.build(torch_nodes, network.torch, *shape),
    )


def make_pair(
    sides: Sides,
    expected: tuple[Expected, ...],
    scale: float = 1.0,
    *,
    weights: str = "copy",
    level: str = "forward",
    plant: Callable[[Sides], None] = lambda sides: None,
    arguments: dict[str, Any] | None = None,
    given: Any = None,
    tolerance: float = 1e-10,
    seed: int = 0,
) -> Pair:
    """Returns a pair of built sides.

    Where the weights are to be copied each side has its own; where they are judged as
    they are, the port's have been copied, and then the fault is planted.
    """
    transfer = lambda: None  # noqa: E731
    if weights == "copy":
        sides.fill(seed, torch_seed=seed + 1)

        def transfer() -> None:
            fill_torch(sides.torch, seed)
    else:
        sides.fill(seed)
    plant(sides)
    given = images(sides.network, scale) if given is None else given
    count = len(given[0] if isinstance(given, tuple) else given)
    return Pair(
        sides.keras.model,
        sides.torch.model,
        given,
        labels(count, sides.network.num_classes),
        level,
        weights,
        arguments or {},
        expected,
        transfer,
        tolerance,
    )

"""The same dropout masks on both sides, drawn once in NumPy.

The frameworks' own masks never agree, whatever the seeds. Here a mask depends on the
seed, the step, the layer's path and how often the layer has been called in the step.
"""

import contextlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from parity.frameworks import keras, tf, torch
from keras_impl import tracing as keras_tracing
from keras_impl import weights as keras_weights
from parity.spec.errors import UsageError
from torch_impl import tracing as torch_tracing

KERAS_KINDS = (keras.layers.Dropout, keras.layers.SpatialDropout2D)
TORCH_KINDS = (torch.nn.Dropout, torch.nn.Dropout2d)


class Masks:
    """Draws masks for one training; `step` begins each of its steps."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.step(0)

    def step(self, number: int) -> None:
        """Begins a step: its masks are new, and the same for its number."""
        self.number = number
        self.calls = Counter()

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """Returns a mask of 0 and 1 / (1 - rate) for the next call of a layer.

        Args:
            path: the layer's attribute path.
            rate: of the dropped elements.
            shape: channels first; the mask itself.
        """
        self.calls[path] += 1
        name = zlib.crc32(path.encode())
        key = (self.seed, self.number, name, self.calls[path])
        kept = np.random.default_rng(key).random(shape) >= rate
        return kept / (1 - rate) if rate < 1 else np.zeros(shape)


@contextlib.contextmanager
def keras_masks(model: keras.Model, seed: int = 0) -> Iterator[Masks]:
    """Makes a Keras model's dropout layers use NumPy's masks while inside.

    Raises:
        UsageError: a layer drops in another way than by element or by channel.
    """
    masks = Masks(seed)
    flattened = keras_weights.flattened_shapes(model)

    def masked(path: str, layer: keras.Layer):
        def call(inputs, training=False):
            symbolic = inputs.shape[0] is None  # the model is being traced
            if not training or layer.rate == 0 or symbolic:
                return inputs
            mask = _channels_last(
                lambda shape: masks.draw(path, layer.rate, shape),
                tuple(inputs.shape),
                isinstance(layer, keras.layers.SpatialDropout2D),
                flattened.get(path),
            )
            return inputs * tf.constant(mask, inputs.dtype)

        return call

    with contextlib.ExitStack() as undo:
        for path, layer in keras_tracing.named_layers(model).items():
            if "Dropout" in type(layer).__name__:
                _check(path, layer, KERAS_KINDS)
                own = vars(layer).get("call")
                object.__setattr__(layer, "call", masked(path, layer))
                undo.callback(_put_back, layer, "call", own)
        yield masks


@contextlib.contextmanager
def torch_masks(model: torch.nn.Module, seed: int = 0) -> Iterator[Masks]:
    """Makes a PyTorch model's dropout modules use NumPy's masks while inside.

    Raises:
        UsageError: a module drops in another way than by element or by channel.
    """
    masks = Masks(seed)

    def masked(path: str, module: torch.nn.Module):
        def forward(inputs):
            if not module.training or module.p == 0:
                return inputs
            shape = tuple(inputs.shape)
            if isinstance(module, torch.nn.Dropout2d):
                shape = (*shape[:2], 1, 1)
            mask = torch.from_numpy(masks.draw(path, module.p, shape))
            return inputs * mask.to(inputs)

        return forward

    with contextlib.ExitStack() as undo:
        for path, module in torch_tracing.named_layers(model).items():
            if "Dropout" in type(module).__name__:
                _check(path, module, TORCH_KINDS)
                own = vars(module).get("forward")
                object.__setattr__(module, "forward", masked(path, module))
                undo.callback(_put_back, module, "forward", own)
        yield masks


def _put_back(layer: object, name: str, own: object) -> None:
    object.__delattr__(layer, name)
    if own is not None:
        object.__setattr__(layer, name, own)


def _check(path: str, layer: object, kinds: tuple[type, ...]) -> None:
    if type(layer) not in kinds or getattr(layer, "noise_shape", None):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"{type(layer).__name__} {path!r} cannot be given masks; {names} can"
        )


def _channels_last(
    draw: Callable, shape: tuple[int, ...], by_channel: bool, flattened: tuple | None
) -> np.ndarray:
    """Returns a mask for Keras's layout of what is drawn in PyTorch's."""
    count = shape[0]
    if by_channel:
        return draw((count, shape[-1], 1, 1)).reshape(count, 1, 1, shape[-1])
    if flattened:
        height, width, channels = flattened
        mask = draw(shape).reshape(count, channels, height, width)
        return np.moveaxis(mask, 1, 3).reshape(shape)
    if len(shape) == 4:
        return np.moveaxis(draw((count, shape[3], shape[1], shape[2])), 1, 3)
    return draw(shape)

"""A kernel's steps over an image, from both sides' outputs: `python -m parity show`."""

import numpy as np

from parity.frameworks import tf, torch
from keras_impl import ops as keras_ops
from parity.spec.windows import Pair, Steps, Windows, expect
from torch_impl import ops as torch_ops


def take_steps(windows: Windows, seed: int = 0) -> Steps:
    """Returns the steps of an operation on a small image of integers, in float64.

    Args:
        windows: where they lie by the arithmetic.
        seed: of the image and the kernel.
    """
    image, kernel = draw_values(windows, seed)
    sides = []
    for run in (run_keras, run_torch):
        outputs = run(windows, _states(windows, image), kernel)
        sides.append((outputs.shape[1:], _fit(windows, outputs)))
    (keras_size, keras_outputs), (torch_size, torch_outputs) = sides
    return Steps(
        windows,
        image,
        kernel,
        keras_size,
        torch_size,
        keras_outputs,
        torch_outputs,
        expect(windows, image, kernel),
    )


def draw_values(windows: Windows, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns an image (H, W) of 0 to 9 and a kernel (h, w) of 1, 2, 0 and -1.

    A maximum's image has negative pixels too, which padding with 0 would beat.
    """
    generator = np.random.default_rng(seed)
    least = -9 if windows.operation == "max_pool2d" else 0
    image = generator.integers(least, 10, windows.input_size).astype(float)
    if "pool" in windows.operation:
        return image, None
    count = windows.kernel_size[0] * windows.kernel_size[1]
    weights = generator.permutation(np.resize([1.0, 2.0, -1.0, 0.0], count))
    return image, weights.reshape(windows.kernel_size)


def run_keras(
    windows: Windows, images: np.ndarray, kernel: np.ndarray | None
) -> np.ndarray:
    """Returns the Keras side's outputs (N, H', W') of images (N, H, W)."""
    arguments = _arguments(windows, kernel, (0, 1))
    operation = getattr(keras_ops, windows.operation)
    outputs = operation(tf.constant(images[..., None]), **arguments)
    return outputs.numpy()[..., 0]


def run_torch(
    windows: Windows, images: np.ndarray, kernel: np.ndarray | None
) -> np.ndarray:
    """Returns the PyTorch side's outputs (N, H', W') of images (N, H, W)."""
    arguments = _arguments(windows, kernel, (2, 3))
    operation = getattr(torch_ops, windows.operation)
    outputs = operation(torch.from_numpy(images[:, None]), **arguments)
    return outputs.numpy()[:, 0]


def _arguments(
    windows: Windows, kernel: np.ndarray | None, axes: Pair
) -> dict[str, object]:
    """Returns an operation's arguments; the kernel's height and width are `axes`."""
    arguments = {"stride": _short(windows.stride), "padding": windows.mode}
    if max(windows.dilation) > 1:
        arguments["dilation"] = _short(windows.dilation)
    if kernel is None:
        return arguments | {"kernel_size": _short(windows.kernel_size)}
    others = tuple({0, 1, 2, 3} - set(axes))
    return arguments | {"kernel": np.expand_dims(kernel, others)}


def _short(pair: Pair) -> int | Pair:
    return pair[0] if pair[0] == pair[1] else pair


def _states(windows: Windows, image: np.ndarray) -> np.ndarray:
    """Returns the images to run: one, or for a transposed convolution one a step.

    There the image of a step has the pixels up to it, and 0 behind.
    """
    if not windows.transposed:
        return image[None]
    upto = np.tril(np.ones((image.size, image.size)))
    return (upto * image.ravel()).reshape(-1, *image.shape)


def _fit(windows: Windows, outputs: np.ndarray) -> np.ndarray:
    """Returns the outputs after each step, NaN where there is none (yet)."""
    height, width = windows.output_size
    fitted = np.full((windows.steps, height, width), np.nan)
    given = outputs[:, :height, :width]
    fitted[:, : given.shape[1], : given.shape[2]] = given
    if not windows.transposed:
        for step in range(windows.steps):
            fitted[step].ravel()[step + 1 :] = np.nan
    return fitted

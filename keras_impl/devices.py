"""Where a model runs, and with which arithmetic."""

import contextlib

import keras
import tensorflow as tf

from parity.spec import devices
from parity.spec.errors import UsageError


def select_device(
    name: str, *, tf32: bool = False, deterministic: bool = False
) -> str:
    """Returns TensorFlow's name of a device, set up as the PyTorch side sets it up.

    GPU memory is taken as it is needed.

    Args:
        name: "cpu", "gpu", "gpu:1" for the second, or "auto" for a GPU where there is
            one.
        tf32: whether the GPU may round the factors of float32 products to 10 bits.
        deterministic: whether the same operation gives the same result each time.

    Raises:
        UsageError: a GPU is asked for and TensorFlow does not see it, or Keras runs on
            another backend.
    """
    wanted, index = devices.parse(name)
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {keras.backend.backend()!r} here; "
            "KERAS_BACKEND=tensorflow would do"
        )
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    count = len(share_gpus())
    if wanted == "gpu" and not count:
        raise UsageError("TensorFlow sees no GPU here; --device cpu or auto would do")
    if index >= max(count, 1):
        raise UsageError(
            f"TensorFlow sees {count} GPUs here; --device gpu:0 is the first"
        )
    return "/CPU:0" if wanted == "cpu" or not count else f"/GPU:{index}"


def share_gpus() -> list:
    """Returns the GPUs, whose memory TensorFlow then takes as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # in use already, as its user set it
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus

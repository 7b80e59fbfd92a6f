"""Where a model runs, and with which arithmetic."""

import contextlib

import keras
import tensorflow as tf

from parity.spec.errors import UsageError


def select_device(name: str) -> str:
    """Returns TensorFlow's name of a device, set up as the PyTorch side sets it up.

    TensorFloat-32 is off, and GPU memory is taken as it is needed.

    Args:
        name: "cpu", "gpu", or "auto" for the GPU where there is one.

    Raises:
        UsageError: a GPU is asked for and TensorFlow sees none, or Keras runs on
            another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on {keras.backend.backend()!r} here; "
            "KERAS_BACKEND=tensorflow would do"
        )
    tf.config.experimental.enable_tensor_float_32_execution(False)
    gpus = share_gpus()
    if name == "gpu" and not gpus:
        raise UsageError("TensorFlow sees no GPU here; --device cpu or auto would do")
    return "/GPU:0" if gpus and name != "cpu" else "/CPU:0"


def share_gpus() -> list:
    """Returns the GPUs, whose memory TensorFlow then takes as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # in use already, as its user set it
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus

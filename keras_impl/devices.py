"""Where a model runs, and with which arithmetic."""

import contextlib

import keras

from parity.spec import devices
from parity.spec.errors import UsageError

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
NAME = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}.get(BACKEND)


def select_device(name: str, *, tf32: bool = False, deterministic: bool = False) -> str:
    """Returns the name of a device, set up as the PyTorch side sets it up.

    GPU memory is taken as it is needed.

    Args:
        name: "cpu", "gpu", "gpu:1" for the second, or "auto" for a GPU where there is
            one.
        tf32: whether the GPU may round the factors of float32 products to 10 bits.
        deterministic: whether the same operation gives the same result each time.

    Raises:
        UsageError: a GPU is asked for and Keras's backend does not see it, or the
            backend has no such setting.
    """
    wanted, index = devices.parse(name)
    if BACKEND == "tensorflow":
        allow_tf32(tf32)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
    elif tf32 or deterministic:
        flag = "--precision tf32" if tf32 else "--deterministic"
        raise UsageError(
            f"{flag} is TensorFlow's, and Keras runs on {BACKEND} here; "
            "KERAS_BACKEND=tensorflow would do"
        )
    count = _count_gpus()
    if wanted == "gpu" and not count:
        raise UsageError(f"{NAME} sees no GPU here; --device cpu or auto would do")
    if index >= max(count, 1):
        raise UsageError(f"{NAME} sees {count} GPUs here; --device gpu:0 is the first")
    return "/CPU:0" if wanted == "cpu" or not count else f"/GPU:{index}"


def allow_tf32(allowed: bool) -> None:
    """Lets the GPU round the factors of float32 products, or not."""
    if BACKEND == "tensorflow":
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def _count_gpus() -> int:
    if BACKEND == "tensorflow":
        return len(share_gpus())
    if BACKEND == "torch":
        import torch

        return torch.cuda.device_count()
    import jax

    return sum(device.platform == "gpu" for device in jax.devices())


def share_gpus() -> list:
    """Returns the GPUs, whose memory TensorFlow then takes as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # in use already, as its user set it
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus

"""Where a model runs, and with which arithmetic."""

import os

import torch

from parity.spec import devices
from parity.spec.errors import UsageError


def select_device(
    name: str, *, tf32: bool = False, deterministic: bool = False
) -> torch.device:
    """Returns PyTorch's device, set up as the Keras side sets it up.

    Args:
        name: "cpu", "gpu", "gpu:1" for the second, or "auto" for a GPU where there is
            one.
        tf32: whether the GPU may round the factors of float32 products to 10 bits.
        deterministic: whether the same operation gives the same result each time.

    Raises:
        UsageError: a GPU is asked for and PyTorch does not see it.
    """
    wanted, index = devices.parse(name)
    allow_tf32(tf32)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    count = torch.cuda.device_count()
    if wanted == "gpu" and not count:
        raise UsageError("PyTorch sees no GPU here; --device cpu or auto would do")
    if index >= max(count, 1):
        raise UsageError(f"PyTorch sees {count} GPUs here; --device gpu:0 is the first")
    if wanted == "cpu" or not count:
        return torch.device("cpu")
    torch.cuda.set_device(index)  # where memory is pinned for
    return torch.device("cuda", index)


def allow_tf32(allowed: bool) -> None:
    """Lets the GPU round the factors of float32 products, or not."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed

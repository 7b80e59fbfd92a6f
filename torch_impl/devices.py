"""Where a model runs, and with which arithmetic."""

import torch

from parity.spec.errors import UsageError


def select_device(name: str) -> torch.device:
    """Returns PyTorch's device, set up as the Keras side sets it up.

    TensorFloat-32 is off.

    Args:
        name: "cpu", "gpu", or "auto" for the GPU where there is one.

    Raises:
        UsageError: a GPU is asked for and PyTorch sees none.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    has_gpu = torch.cuda.is_available()
    if name == "gpu" and not has_gpu:
        raise UsageError("PyTorch sees no GPU here; --device cpu or auto would do")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")

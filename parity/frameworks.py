"""The only place that imports both frameworks, in the one order that works.

TensorFlow and triton (which torchvision loads) both carry LLVM. The process is aborted
when triton comes second and not when it comes first, so torchvision comes first.
Import the frameworks from here wherever both are needed.
"""

import importlib.util
import os
import sys

if (
    "tensorflow" in sys.modules
    and "triton" not in sys.modules
    and importlib.util.find_spec("triton")
):
    raise ImportError(
        "TensorFlow was imported before torchvision, and loading torchvision now would "
        "abort the process: import parity (or torchvision) before tensorflow and keras"
    )

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import torchvision  # noqa: E402, I001
import torch  # noqa: E402
import tensorflow as tf  # noqa: E402
import keras  # noqa: E402
from keras_impl.devices import share_gpus  # noqa: E402

__all__ = ["keras", "missing_gpu", "tf", "torch", "torchvision"]


def missing_gpu() -> str | None:
    """Returns why the two frameworks cannot be compared on a GPU here, if so."""
    if not share_gpus():
        return "TensorFlow sees no GPU"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    return None


share_gpus()  # before the first use, at which TensorFlow would take all their memory

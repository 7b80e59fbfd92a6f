"""Weight files in the common form, and writing that never loses an old file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parity.spec.errors import UsageError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under another name and then puts it in its place.

    Args:
        path: the file to be; an old one stays as it is until the new one is whole.
        write: writes to the path that it is given, which has the same suffixes.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            write(Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def save_weights(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes weights in the common form (PyTorch's names and layout) as safetensors.

    Args:
        path: the file to be, ending in `.safetensors`.
        tensors: name to array.
        metadata: what describes the model, kept in the file's header.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomically(path, lambda target: save_file(tensors, target, metadata))


def load_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns a safetensors file's tensors and its metadata.

    Raises:
        UsageError: there is no such file or it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UsageError(f"no such weights file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from None

"""Weight files in the common form, and writing that never loses an old file."""

import contextlib
import json
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parity.spec.errors import UsageError

UNFINISHED = ".writing-"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under another name and then puts it in its place.

    Args:
        path: the file to be; an old one stays as it is until the new one is whole.
        write: writes to the path that it is given, which has the same suffixes.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as folder:
            write(Path(folder) / path.name)
            _sync(Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # PyTorch and HDF5 raise the latter
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"cannot write {path}: {reason}") from None


def _sync(path: Path) -> None:
    """Returns when a file or a folder is on the disk."""
    with contextlib.suppress(PermissionError, IsADirectoryError):  # Windows' folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Removes what a program that was killed had begun to write."""
    for path in Path(folder).glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def lock(folder: Path, holder: object) -> Callable[[], None]:
    """Keeps every other program from writing to a folder as long as an object lives.

    Returns:
        A function that ends it before.

    Raises:
        UsageError: another program does, or the folder cannot be written to.
    """
    import fcntl

    path = Path(folder) / ".lock"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UsageError(
            f"another program is writing to {folder}; choose another folder"
        ) from None
    return weakref.finalize(holder, os.close, descriptor)


def write_json(path: Path, content: object) -> None:
    """Writes a nested value; NaN and infinities, which JSON lacks, as strings."""
    text = json.dumps(plain(content), indent=2, allow_nan=False, default=str)
    write_atomically(path, lambda file: file.write_text(f"{text}\n", "utf-8"))


def plain(value: object) -> object:
    """Returns a nested value with "NaN", "Infinity" and "-Infinity" as strings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def save_weights(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes weights in the common form (PyTorch's names and layout) as safetensors.

    Args:
        path: the file to be, ending in `.safetensors`.
        tensors: name to array.
        metadata: what describes the model, kept in the file's header.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}

    def write(target: Path) -> None:
        try:
            save_file(tensors, target, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    write_atomically(path, write)


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
    except TypeError as error:  # bfloat16, which NumPy lacks
        raise UsageError(f"{path} holds numbers that NumPy lacks: {error}") from None
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from None

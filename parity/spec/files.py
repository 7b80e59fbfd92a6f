"""Weight files in the common form, and writing that never loses an old file."""

import contextlib
import errno
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

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

UNFINISHED = ".writing-"


def write_atomically(
    path: Path,
    write: Callable[[Path], None],
    *,
    also: Path | None = None,
    old: Path | None = None,
) -> None:
    """Writes a file under another name and then puts it in its place.

    Args:
        path: the file to be; an old one stays as it is until the new one is whole.
        write: writes to the path that it is given, which has the same suffixes.
        also: a second name of the new file, which it has before the first; in the same
            folder.
        old: the name that the old file keeps; likewise.

    Raises:
        UsageError: it could not be written; the old files are as they were.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as folder:
            new = Path(folder) / path.name
            write(new)
            _sync(new)
            if also:
                _name(new, also, Path(folder))
            if old and path.exists():
                _name(path, old, Path(folder))
            os.replace(new, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # PyTorch and HDF5 raise the latter
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UsageError(f"cannot write {path}: {reason}") from None


def _name(path: Path, second: Path, folder: Path) -> None:
    """Gives a file a second name, in the place of what had it."""
    temporary = folder / f"second-{second.name}"
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
        _sync(temporary)
    os.replace(temporary, second)


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

    The lock is the process's: it ends with it, and its children have no part in it.

    Returns:
        A function that ends it before.

    Raises:
        UsageError: another program does, or the folder cannot be written to.
    """
    path = Path(folder) / ".lock"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        if fcntl:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            os.close(descriptor)
            raise UsageError(
                f"another program is writing to {folder}; choose another folder, or "
                "wait for its end"
            ) from None
        # Otherwise the file system has no locks.
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
    path: Path,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, str],
    **others: Path | None,
) -> None:
    """Writes weights in the common form (PyTorch's names and layout) as safetensors.

    Args:
        path: the file to be, ending in `.safetensors`.
        tensors: name to array.
        metadata: what describes the model, kept in the file's header.
        others: second names; see `write_atomically`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}

    def write(target: Path) -> None:
        target.touch()
        mode = target.stat().st_mode
        try:
            save_file(tensors, target, metadata)
            target.chmod(mode)  # safetensors makes a file of its own, for nobody else
        except SafetensorError as error:
            raise OSError(str(error)) from None

    write_atomically(path, write, **others)


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

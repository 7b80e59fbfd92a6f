"""Runs the rows of the table: what the naive port errs by, what the fix leaves."""

import contextlib
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from parity.frameworks import keras, tf, torch, torchvision
from keras_impl.devices import select_device as select_keras_device
from parity.comparison import TOLERANCES, relative_error
from parity.rows.execution import execute, flatten
from parity.rows.record import BACKENDS, Input, Row
from torch_impl.devices import select_device as select_torch_device

# What rounding leaves, as relative L2 errors. No naive port in the table errs by less
# than 1000 times what its fix leaves, or than 1000 units of rounding.
ROUNDING = {"float64": TOLERANCES["outputs"], "float32": 1e-5}
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}
CLEARLY = 1000
PACKAGES = ("keras", "tensorflow", "torch", "torchvision", "jax", "numpy")

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Error:
    """How far one result is from another.

    Attributes:
        relative: |a - b| / |b| in the L2 norm; infinite for other shapes, NaN, and
            exceptions.
        absolute: the largest |a - b|.
        text: what there is instead of numbers: another shape, an exception.
    """

    relative: float
    absolute: float
    text: str = ""

    def __str__(self) -> str:
        """Returns the relative error, or what there is in its place."""
        return self.text or f"{self.relative:.1e}"


@dataclass(frozen=True)
class Measurement:
    """What running a row gave.

    Attributes:
        name: of the row.
        naive: the error of the naive port; None without one.
        left: the error that the fix leaves, by dtype.
        backends: the error of the Keras code on other backends against TensorFlow,
            float32; where it does not run there, why.
        problem: what is not as the row says; empty if all is.
    """

    name: str
    naive: Error | None
    left: dict[str, Error]
    backends: dict[str, Error] = field(default_factory=dict)
    problem: str = ""

    def to_dict(self) -> dict:
        """Returns the measurement as JSON has it; infinite numbers become None."""
        return json.loads(json.dumps(_finite(asdict(self))))


def measure(
    rows: Iterable[Row],
    *,
    device: str = "cpu",
    tf32: bool = False,
    backends: Iterable[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Measurement]:
    """Runs rows.

    Args:
        rows: of the table.
        device: "cpu" or "gpu".
        tf32: whether float32 products may round to TensorFloat-32 on a GPU.
        backends: other Keras backends to run the Keras code on, of BACKENDS.
        progress: wraps the rows, to show how far it is.
    """
    rows = list(rows)
    wanted = {row.backend for row in rows if row.backend}
    elsewhere = {
        backend: _run_on_backend(backend, rows)
        for backend in BACKENDS
        if backend in wanted or backend in backends
    }
    found = []
    for row in progress(rows):
        if row.backend:
            found.append(_measure_backend(row, elsewhere[row.backend]))
            continue
        run = _run_process if row.process else _Runner(device, tf32)
        naive, left = _measure(row, run)
        others = {
            name: _on_backend(row, elsewhere[name])
            for name in backends
            if portable(row)
        }
        found.append(
            Measurement(row.name, naive, left, others, _problem(row, naive, left))
        )
    return found


def versions() -> dict[str, str]:
    """Returns the versions of the packages that were measured."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def portable(row: Row) -> bool:
    """Returns whether a row's Keras code runs on Keras backends beside TensorFlow."""
    code = f"{row.keras}\n{row.naive_keras}"
    return not row.process and not re.search(r"\btf\b|tensorflow|keras_impl", code)


def _measure(row: Row, run: Callable) -> tuple[Error | None, dict[str, Error]]:
    left, naive = {}, None
    for dtype in row.dtypes:
        ours = run(row, "keras", row.keras, dtype)
        theirs = run(row, "torch", row.torch, dtype)
        left[dtype] = error(theirs, ours)
        if row.naive and naive is None:
            side = "keras" if row.naive_keras else "torch"
            value = run(row, side, row.naive, dtype, naive=True)
            naive = error(value, theirs if row.naive_keras else ours)
    return naive, left


def _measure_backend(row: Row, elsewhere: dict) -> Measurement:
    there = elsewhere.get(row.name, elsewhere.get("*"))
    if isinstance(there, Exception):
        why = Error(math.inf, math.inf, str(there))
        return Measurement(row.name, None, {"float32": why}, problem=str(there))
    runner = _Runner("cpu", False)
    naive, fixed = (
        error(value, runner(row, "keras", code, "float32"))
        for value, code in zip(there, (row.naive_keras, row.keras), strict=True)
    )
    naive, left = (naive if row.naive else None), {"float32": fixed}
    return Measurement(row.name, naive, left, {}, _problem(row, naive, left))


def _on_backend(row: Row, elsewhere: dict) -> Error:
    there = elsewhere.get(row.name, elsewhere.get("*"))
    if isinstance(there, Exception):
        return Error(math.inf, math.inf, str(there))
    here = _Runner("cpu", False)(row, "keras", row.keras, "float32")
    return error(there[1], here)


def _problem(row: Row, naive: Error | None, left: dict[str, Error]) -> str:
    """Returns what is not as the row says it is."""
    for dtype, remaining in left.items():
        bound = row.limit or ROUNDING[dtype]
        if not remaining.relative <= bound:
            return f"the fix leaves {remaining} in {dtype}, more than {bound:.0e}"
    if naive is None:
        return ""
    dtype, remaining = next(iter(left.items()))
    least = CLEARLY * max(remaining.relative, UNITS[dtype])
    if row.limit:
        least = max(remaining.relative, row.limit)
    if not naive.relative > least:
        return f"the naive port shows no error any more ({naive})"
    shows = "error"
    if naive.text:
        shows = "shape" if naive.text.startswith("shape") else naive.text.split(":")[0]
    if shows != row.shows:
        return f"the naive port shows {naive.text or naive}, not {row.shows}"
    return ""


def error(value: Arrays | Exception, reference: Arrays | Exception) -> Error:
    """Returns how far results are from a reference, the worst of several."""
    for result in (reference, value):
        if isinstance(result, Exception):
            line = (str(result).strip() or "no message").splitlines()[0]
            text = f"{type(result).__name__}: {line}"[:160]
            return Error(math.inf, math.inf, text)
    shapes, wanted = ([x.shape for x in arrays] for arrays in (value, reference))
    if shapes != wanted:
        pairs = zip(shapes, wanted, strict=False)
        got, want = next((p for p in pairs if p[0] != p[1]), (shapes, wanted))
        return Error(math.inf, math.inf, f"shape {got} instead of {want}")
    errors = [
        Error(relative_error(a, b), _largest(a, b))
        for a, b in zip(value, reference, strict=True)
    ]
    return max(errors, key=lambda e: e.relative, default=Error(0.0, 0.0))


def _largest(value: np.ndarray, reference: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.asarray(value, float) - np.asarray(reference, float))
    same = np.isnan(value) & np.isnan(reference) | (value == reference)
    distance[np.isnan(distance)] = math.inf
    return float(np.where(same, 0.0, distance).max(initial=0.0))


@dataclass(frozen=True)
class _Runner:
    """Runs the code of either side in this process."""

    device: str
    tf32: bool

    def __call__(
        self, row: Row, side: str, code: str, dtype: str, naive: bool = False
    ) -> Arrays | Exception:
        """Returns the arrays that the code ends in, or the exception that it raises."""
        inputs = {name: _side_array(x, name, side) for name, x in row.inputs.items()}
        with _settings(dtype, self.device, self.tf32):
            names = (
                _keras_names(inputs, dtype)
                if side == "keras"
                else _torch_names(inputs, dtype, self.device)
            )
            try:
                value = execute(code, names)
                arrays = [_numpy(x) for x in flatten(value)]
            except Exception as failure:  # whatever the naive port raises is its result
                return failure
        if side == "keras" and row.layout == "maps":
            arrays = [np.moveaxis(x, -1, 1) if x.ndim == 4 else x for x in arrays]
        return arrays


@contextlib.contextmanager
def _settings(dtype: str, device: str, tf32: bool) -> Iterator[None]:
    """Makes a dtype the default of both frameworks, and seeds their generators."""
    floatx, default = keras.config.floatx(), torch.get_default_dtype()
    torch_device = select_torch_device(device)
    before = (
        tf.config.experimental.tensor_float_32_execution_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    try:
        keras_device = tf.device(select_keras_device(device))
        with (
            keras_device,
            torch_device,
            torch.random.fork_rng(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            tf.config.experimental.enable_tensor_float_32_execution(tf32)
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cuda.matmul.allow_tf32 = tf32
            keras.config.set_floatx(dtype)
            torch.set_default_dtype(getattr(torch, dtype))
            keras.utils.set_random_seed(0)
            yield
    finally:
        keras.config.set_floatx(floatx)
        torch.set_default_dtype(default)
        tf.config.experimental.enable_tensor_float_32_execution(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        torch.backends.cuda.matmul.allow_tf32 = before[2]


def _side_array(tensor: Input, name: str, side: str) -> np.ndarray:
    """Returns an input in the layout of a side."""
    values = tensor.array(name)
    if side == "torch":
        axes = {"maps": (0, 3, 1, 2), "kernel": (3, 2, 0, 1), "matrix": (1, 0)}
        if tensor.layout in axes:
            values = values.transpose(axes[tensor.layout])
    return np.ascontiguousarray(values)


def _keras_names(inputs: dict[str, np.ndarray], dtype: str) -> dict[str, object]:
    """Returns what the Keras code may use by name."""
    tensors = {
        name: keras.ops.convert_to_tensor(_cast(x, dtype)) for name, x in inputs.items()
    }
    names = {"keras": keras, "layers": keras.layers, "np": np, "dtype": dtype}
    return names | {"tf": tf} | tensors


def _torch_names(inputs: dict[str, np.ndarray], dtype: str, device: str) -> dict:
    tensors = {
        name: torch.from_numpy(_cast(x, dtype)).to(select_torch_device(device))
        for name, x in inputs.items()
    }
    names = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "np": np}
    return names | {"torchvision": torchvision, "dtype": dtype} | tensors


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(dtype) if values.dtype.kind == "f" else values


def _numpy(value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(keras.ops.convert_to_numpy(value))


def _run_process(
    row: Row, side: str, code: str, dtype: str, naive: bool = False
) -> Arrays | Exception:
    """Returns the numbers that a script prints, or its exit code."""
    environment = os.environ | (dict(row.environment) if naive else {})
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode or not done.stdout.strip():
        return [np.asarray(float(done.returncode))]
    return [np.asarray(json.loads(done.stdout), float)]


def _run_on_backend(backend: str, rows: Iterable[Row]) -> dict:
    """Returns what the Keras code of rows gives on another Keras backend, in float32.

    Returns:
        By the row's name: the results of the naive and of the right Keras code; "*"
        is an exception when the backend does not start.
    """
    rows = [row for row in rows if row.backend == backend or portable(row)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.npz"
        done = subprocess.run(
            [sys.executable, "-m", "parity.rows.backend", str(path)],
            input="\n".join(row.name for row in rows),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"KERAS_BACKEND": backend},
        )
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            return {"*": RuntimeError(f"does not start: {last}")}
        with np.load(path) as file:
            stored = {key: file[key] for key in file}
    return {
        row.name: [_stored(stored, f"{row.name}/{which}") for which in (0, 1)]
        for row in rows
    }


def _stored(stored: dict[str, np.ndarray], key: str) -> Arrays | Exception:
    if f"{key}/failure" in stored:
        kind, message = stored[f"{key}/failure"]
        return type(str(kind), (Exception,), {})(str(message))
    count = int(stored.get(f"{key}/count", 0))
    return [stored[f"{key}/{index}"] for index in range(count)]


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

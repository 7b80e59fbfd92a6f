"""Runs the rows of the table: what the naive port errs by, what the fix leaves."""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from parity.frameworks import keras, missing_gpu, tf, torch, torchvision
from keras_impl.devices import select_device as select_keras_device
from parity.rows.execution import Arrays, Failure, run
from parity.rows.record import AXES, BACKENDS, Input, Row
from parity.spec.errors import UsageError, unknown
from parity.spec.tolerances import TOLERANCES, relative_error
from torch_impl.devices import select_device as select_torch_device

# What rounding leaves, as relative L2 errors. TensorFloat-32 keeps 10 bits of both
# factors of a product, each of which is off by up to 2^-11 then, and the product by
# 2^-10; the two sides may err in opposite directions.
ROUNDING = {"float64": TOLERANCES["outputs"], "float32": 1e-5, "tf32": 2.0**-9}
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11}
# No naive port in the table errs by less than so many times what its fix leaves, or
# than so many units of rounding.
CLEARLY = 1000
# Nor, where the fix may leave more than rounding, than so many times that.
BEYOND = 5
PACKAGES = ("keras", "tensorflow", "torch", "torchvision", "jax", "numpy")
# What no backend has a part in: random numbers, of which each has its own, arithmetic
# of Python, and files.
NOT_PORTABLE = ("initializers", "schedules", "data")
# A process that takes longer hangs.
PROCESS_SECONDS = 300
SILENT = Failure("silent", "prints no numbers")


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
        naive: the error of the naive port, in the first type that the row says it errs
            in; None without one.
        left: the error that the fix leaves: by "float64" and "float32", and on a GPU
            by "tf32", float32 whose products may round to TensorFloat-32.
        backends: the error of the Keras code on other backends against TensorFlow,
            float32; where it does not run there, why.
        problem: what is not as the row says; empty if all is.
        naives: the error of the naive port, by the same types as `left`.
        skipped: why the row cannot be measured here, which is no problem; then there
            are no errors.
    """

    name: str
    naive: Error | None
    left: dict[str, Error]
    backends: dict[str, Error] = field(default_factory=dict)
    problem: str = ""
    naives: dict[str, Error] = field(default_factory=dict)
    skipped: str = ""

    def to_dict(self) -> dict:
        """Returns the measurement as JSON has it; infinite numbers become None."""
        return json.loads(json.dumps(_finite(asdict(self))))


def measure(
    rows: Iterable[Row],
    *,
    device: str = "cpu",
    backends: Iterable[str] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Measurement]:
    """Runs rows.

    Args:
        rows: of the table.
        device: "cpu" or "gpu", which also shows what TensorFloat-32 makes of the rows.
        backends: other Keras backends to run the Keras code on, of BACKENDS.
        progress: wraps the rows, to show how far it is.

    Raises:
        UsageError: a framework sees no GPU, or there is no such backend.
    """
    rows, backends = list(rows), list(backends)
    for name in backends:
        if name not in BACKENDS:
            raise unknown("backend", name, BACKENDS)
    if device == "gpu" and (reason := missing_gpu()):
        raise UsageError(f"{reason} here; --device cpu would do")
    # One process at a time, while this one runs the other rows.
    children = ThreadPoolExecutor(1)
    try:
        elsewhere = {
            name: children.submit(_run_on_backend, name, rows, name in backends)
            for name in BACKENDS
            if name in backends or any(row.backend == name for row in rows)
            if _installed(name)
        }
        scripts = {
            row.name: children.submit(_measure_scripts, row)
            for row in rows
            if row.process and not _missing(row, device)
        }
        found = []
        for row in progress(rows):
            if reason := _missing(row, device):
                found.append(Measurement(row.name, None, {}, skipped=reason))
            elif row.backend:
                there = elsewhere[row.backend].result()[row.name]
                found.append(_measure_backend(row, there))
            elif row.process:
                found.append(scripts[row.name].result())
            else:
                found.append(_measure(row, device))
        elsewhere = {name: future.result() for name, future in elsewhere.items()}
    finally:
        children.shutdown(cancel_futures=True)
    return [
        judged_on_backends(row, measurement, _on_backends(row, backends, elsewhere))
        if portable(row)
        else measurement
        for row, measurement in zip(rows, found, strict=True)
    ]


def versions() -> dict[str, str]:
    """Returns the versions of the packages that were measured."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def portable(row: Row) -> bool:
    """Returns whether a row's Keras code runs on Keras backends beside TensorFlow."""
    if row.process or row.backend or row.device == "gpu":
        return False
    if row.section in NOT_PORTABLE or "float32" not in row.dtypes:
        return False
    ours = r"\btf\b|tensorflow|keras_impl|jit_compile=True"
    return not re.search(ours, row.keras)


def error(value: Arrays | Failure, reference: Arrays | Failure) -> Error:
    """Returns how far results are from a reference, the worst of several."""
    if isinstance(reference, Failure):
        return Error(math.inf, math.inf, f"no reference, {reference}")
    if isinstance(value, Failure):
        return Error(math.inf, math.inf, str(value))
    shapes, wanted = ([x.shape for x in arrays] for arrays in (value, reference))
    if shapes != wanted:
        pairs = zip(shapes, wanted, strict=False)
        got, want = next((p for p in pairs if p[0] != p[1]), (shapes, wanted))
        return Error(math.inf, math.inf, f"shape {got} instead of {want}")
    if not any(x.size for x in reference):
        return Error(math.inf, math.inf, "no numbers to compare")
    errors = map(_error, value, reference)
    return max(errors, key=lambda e: e.relative)


def _error(value: np.ndarray, reference: np.ndarray) -> Error:
    """Returns the error of one array, infinite where it cannot be calculated."""
    value, reference = np.asarray(value, float), np.asarray(reference, float)
    with np.errstate(invalid="ignore", over="ignore"):
        relative = relative_error(value, reference)
        distance = np.abs(value - reference)
    same = np.isnan(value) & np.isnan(reference) | (value == reference)
    distance = np.where(np.isnan(distance), math.inf, distance)
    largest = np.where(same, 0.0, distance).max(initial=0.0)
    return Error(math.inf if math.isnan(relative) else relative, float(largest))


def _missing(row: Row, device: str) -> str:
    """Returns why a row cannot be measured here."""
    if row.device == "gpu" and device != "gpu":
        return "needs a GPU"
    if row.backend and not _installed(row.backend):
        return f"{row.backend} is not installed"
    return ""


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _measure(row: Row, device: str) -> Measurement:
    device = "cpu" if row.device == "cpu" else device
    runner = Runner(device)
    columns = row.dtypes
    if device == "gpu" and "float32" in columns:
        columns = (*columns, "tf32")
    naives, left = {}, {}
    for column in columns:
        ours = runner(row, "keras", row.keras, column)
        theirs = runner(row, "torch", row.torch, column)
        left[column] = error(theirs, ours)
        if row.naive_keras:
            value = runner(row, "keras", row.naive, column)
            naives[column] = error(value, theirs)
        elif row.naive_torch:
            value = runner(row, "torch", row.naive, column)
            naives[column] = error(value, ours)
    return judged(row, naives, left)


def _measure_backend(row: Row, there: dict[str, Arrays | Failure]) -> Measurement:
    runner, dtype = Runner("cpu"), row.backend_dtype
    fixed, naives = error(there["keras"], runner(row, "keras", row.keras, dtype)), {}
    if row.naive:
        here = runner(row, "keras", row.naive_keras, dtype)
        naives[dtype] = error(there["naive"], here)
    return judged(row, naives, {dtype: fixed})


def _measure_scripts(row: Row) -> Measurement:
    column, naives = row.dtypes[0], {}
    ours = _run_script(row, row.keras)
    if row.torch:
        theirs = _run_script(row, row.torch)
    else:
        theirs = _run_script(row, row.keras, row.environment)
    if row.naive:
        reference = theirs if row.naive_keras else ours
        if not row.torch:
            reference = _run_script(row, row.naive)
        value = _run_script(row, row.naive, row.environment)
        fails = isinstance(value, Failure) and value != SILENT
        if fails and all(x == SILENT for x in (ours, theirs, reference)):
            ours = theirs = reference = [np.zeros(1)]  # they end well
        naives[column] = error(value, reference)
    return judged(row, naives, {column: error(theirs, ours)})


def judged(row: Row, naives: dict[str, Error], left: dict[str, Error]) -> Measurement:
    """Returns a measurement with what is not as the row says.

    Args:
        row: of the table.
        naives: the errors of the naive port, by type; it must err in those that the
            row says.
        left: the errors that the fix leaves, by type; each must be rounding.
    """
    said = row.trap_dtypes or row.dtypes
    traps = {column: naives[column] for column in said if column in naives}
    naive = next(iter(traps.values()), None)
    if problem := _problem(row, traps, left):
        names = ["keras", "tensorflow", row.backend or "torch"]
        if "torchvision" in row.torch + row.naive_torch:
            names.append("torchvision")
        problem = _with_versions(names, problem)
    return Measurement(row.name, naive, left, problem=problem, naives=naives)


def judged_on_backends(
    row: Row, found: Measurement, backends: dict[str, Error]
) -> Measurement:
    """Returns a measurement with what is not as the row says on other backends.

    Args:
        row: of the table.
        found: the measurement without them.
        backends: the errors of the Keras code against TensorFlow, by backend.
    """
    problem = found.problem
    for name, off in backends.items():
        if problem or not _installed(name):
            continue
        if agrees(row, off) and name in row.differs_on:
            problem = f"the Keras code on {name} shows no error any more ({off})"
        elif not agrees(row, off) and name not in row.differs_on:
            problem = f"the Keras code on {name} shows {off}"
        if problem:
            problem += " against TensorFlow"
            problem = _with_versions(("keras", "tensorflow", name), problem)
    return replace(found, backends=backends, problem=problem)


def agrees(row: Row, off: Error) -> bool:
    """Returns whether a backend's error against TensorFlow is rounding in float32."""
    return off.relative <= max(row.limit, ROUNDING["float32"])


def _with_versions(names: Iterable[str], problem: str) -> str:
    known = versions()
    return f"with {', '.join(f'{name} {known[name]}' for name in names)} {problem}"


def _problem(row: Row, traps: dict[str, Error], left: dict[str, Error]) -> str:
    """Returns what is not as the row says it is."""
    for column, remaining in left.items():
        bound = max(row.limit, ROUNDING[column])
        if not remaining.relative <= bound:
            return f"the fix leaves {remaining} in {column}, more than {bound:.0e}"
    for column, naive in traps.items():
        if problem := _trap_problem(row, naive, left[column], column):
            return problem
    return ""


def _trap_problem(row: Row, naive: Error, remaining: Error, column: str) -> str:
    if naive.relative <= max(row.limit, ROUNDING[column]):
        return f"the naive port shows no error any more ({naive}) in {column}"
    times, least = CLEARLY, max(remaining.relative, UNITS[column])
    if row.limit:
        times, least = BEYOND, max(remaining.relative, row.limit)
    if naive.relative < times * least:
        return (
            f"the naive port shows {naive} in {column}, less than {times} times what "
            f"the fix {'may leave' if row.limit else 'leaves'} ({least:.1e})"
        )
    shows = "error"
    if naive.text:
        shows = re.split(r"[ :]", naive.text)[0]
    if shows != row.shows:
        return f"the naive port shows {naive} in {column}, not {row.shows}"
    if row.says not in naive.text:
        return f"the naive port shows {naive} in {column}, without {row.says!r}"
    return ""


def _on_backends(row: Row, backends: list[str], elsewhere: dict) -> dict[str, Error]:
    if not backends:
        return {}
    here, found = Runner("cpu")(row, "keras", row.keras, "float32"), {}
    for name in backends:
        if name in elsewhere:
            found[name] = error(elsewhere[name][row.name]["keras"], here)
        else:
            found[name] = Error(math.inf, math.inf, f"{name} is not installed")
    return found


@dataclass(frozen=True)
class Runner:
    """Runs the code of either side in this process."""

    device: str

    def __call__(self, row: Row, side: str, code: str, column: str) -> Arrays | Failure:
        """Returns the arrays that the code ends in, or the exception that it raises."""
        dtype = "float32" if column == "tf32" else column
        inputs = {
            name: _cast(_side_array(tensor, name, side), dtype)
            for name, tensor in row.inputs.items()
        }
        channels_last = side == "keras" and row.layout == "maps"
        with _settings(dtype, self.device, column == "tf32") as torch_device:
            names = (
                _keras_names(inputs)
                if side == "keras"
                else _torch_names(inputs, torch_device)
            )
            names |= {"np": np, "dtype": dtype}
            return run(code, names, _numpy, channels_last=channels_last)


@contextlib.contextmanager
def _settings(dtype: str, device: str, tf32: bool) -> Iterator[torch.device]:
    """Makes a dtype the default of both frameworks, and seeds their generators."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    default = torch.get_default_dtype()
    before = (
        tf.config.experimental.tensor_float_32_execution_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    try:
        torch_device = select_torch_device(device)
        with (
            tf.device(select_keras_device(device)),
            torch_device,
            torch.random.fork_rng(),
        ):
            _allow_tf32(tf32, tf32, tf32)
            keras.config.set_floatx(dtype)
            keras.config.set_dtype_policy(dtype)  # the first layer fixed it otherwise
            torch.set_default_dtype(getattr(torch, dtype))
            keras.utils.set_random_seed(0)
            torch.manual_seed(0)
            yield torch_device
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        torch.set_default_dtype(default)
        _allow_tf32(*before)


def _allow_tf32(tensorflow: bool, convolutions: bool, products: bool) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(tensorflow)
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


def _side_array(tensor: Input, name: str, side: str) -> np.ndarray:
    """Returns an input in the layout of a side."""
    values = tensor.array(name)
    if side == "torch":
        values = values.transpose(AXES.get(tensor.layout, range(values.ndim)))
    return np.ascontiguousarray(values)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(dtype) if values.dtype.kind == "f" else values


def _keras_names(inputs: dict[str, np.ndarray]) -> dict[str, object]:
    """Returns what the Keras code may use by name."""
    tensors = {name: keras.ops.convert_to_tensor(x) for name, x in inputs.items()}
    return {"keras": keras, "layers": keras.layers, "tf": tf} | tensors


def _torch_names(inputs: dict[str, np.ndarray], device: torch.device) -> dict:
    """Returns what the PyTorch code may use by name."""
    tensors = {name: torch.from_numpy(x).to(device) for name, x in inputs.items()}
    names = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    return names | {"torchvision": torchvision} | tensors


def _numpy(value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(keras.ops.convert_to_numpy(value))


def _run_script(
    row: Row, code: str, environment: Mapping[str, str] | None = None
) -> Arrays | Failure:
    """Returns the numbers that a script prints, or what it ended with."""
    command = [sys.executable, "-c", code]
    done = _process(command, on_gpu=row.device == "gpu", environment=environment)
    if isinstance(done, Failure):
        return done
    lines = done.decode().strip().splitlines()
    if not lines:
        return SILENT
    try:
        return [np.asarray(json.loads(lines[-1]), float)]
    except ValueError:
        return Failure("ValueError", f"no list of numbers: {lines[-1]}")


def _run_on_backend(name: str, rows: list[Row], every: bool) -> dict[str, dict]:
    """Returns what the Keras code of rows gives on another Keras backend.

    Args:
        name: of the backend.
        rows: of the table.
        every: whether to run all that are portable, not only those about the backend.

    Returns:
        By the row's name, the results of its `keras` code and of its `naive` one.
    """
    rows = [row for row in rows if row.backend == name or every and portable(row)]
    with tempfile.TemporaryDirectory() as folder:
        done = _process(
            [sys.executable, "-m", "parity.rows.backend", folder],
            stdin=pickle.dumps(rows),
            environment={"KERAS_BACKEND": name, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        )
        found = {
            path.name: pickle.loads(path.read_bytes())
            for path in Path(folder).iterdir()
        }
    lost = [row.name for row in rows if row.name not in found]
    why = Failure("stopped", f"at {lost[0]}, {done}") if lost else None
    if not found:
        why = Failure("does not start", str(done))
    return found | {row: {"keras": why, "naive": why} for row in lost}


def _process(
    command: list[str],
    *,
    stdin: bytes = b"",
    on_gpu: bool = False,
    environment: Mapping[str, str] | None = None,
) -> bytes | Failure:
    """Returns what a process prints, or what it ended with."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    without = {} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=PROCESS_SECONDS,
            env=os.environ | quiet | without | dict(environment or {}),
        )
    except subprocess.TimeoutExpired:
        return Failure("TimeoutExpired", f"runs for more than {PROCESS_SECONDS} s")
    if done.returncode == 0:
        return done.stdout
    if done.returncode < 0:
        return Failure("killed", f"by {signal.Signals(-done.returncode).name}")
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    kind, colon, line = lines[-1].partition(": ")
    kind = kind.split(".")[-1]
    if colon and kind.isidentifier():
        return Failure(kind, line)
    return Failure("SystemExit", f"{done.returncode}, {lines[-1]}")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

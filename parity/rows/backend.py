"""Runs the Keras code of rows on the backend that KERAS_BACKEND names.

`python -m parity.rows.backend FOLDER` reads pickled rows and writes a file of results
for each; its own process, since Keras takes one backend per process. It must not load
TensorFlow: PyTorch's compiler, loaded after that, would abort the process.
"""

import pickle
import random
import sys
from pathlib import Path

import keras
import numpy as np

from parity.rows.execution import Arrays, Failure, run
from parity.rows.record import Row


def main() -> None:
    """Runs the rows that are on standard input."""
    for row in pickle.load(sys.stdin.buffer):
        found = {"keras": _run(row, row.keras)}
        if row.backend and row.naive_keras:
            found["naive"] = _run(row, row.naive_keras)
        (Path(sys.argv[1]) / row.name).write_bytes(pickle.dumps(found))


def _run(row: Row, code: str) -> Arrays | Failure:
    dtype = row.backend_dtype
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    names = {"keras": keras, "layers": keras.layers, "np": np, "dtype": dtype}
    for name, tensor in row.inputs.items():
        values = tensor.array(name)
        values = values.astype(dtype) if values.dtype.kind == "f" else values
        names[name] = keras.ops.convert_to_tensor(values)
    # Not keras.utils.set_random_seed, which loads TensorFlow; Keras draws the seeds of
    # its layers from Python's generator.
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return run(code, names, _numpy, channels_last=row.layout == "maps")


def _numpy(value: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


if __name__ == "__main__":
    main()

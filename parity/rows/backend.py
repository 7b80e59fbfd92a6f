"""Runs the Keras code of rows on the backend that KERAS_BACKEND names.

`python -m parity.rows.backend FILE.npz` reads names of rows, one a line, and writes the
results; its own process, since Keras takes one backend per process.
"""

import sys
import warnings

import keras
import numpy as np

from parity import rows
from parity.rows.execution import execute, flatten
from parity.rows.record import Row


def main() -> None:
    """Runs the rows whose names are on standard input."""
    wanted = set(sys.stdin.read().split("\n"))
    results = {}
    for row in rows.ROWS:
        if row.name in wanted:
            for which, code in enumerate((row.naive_keras, row.keras)):
                _run(row, code, f"{row.name}/{which}", results)
    np.savez(sys.argv[1], **results)


def _run(row: Row, code: str, key: str, results: dict[str, np.ndarray]) -> None:
    if not code:
        return
    names = {"keras": keras, "layers": keras.layers, "np": np, "dtype": "float32"}
    for name, tensor in row.inputs.items():
        values = tensor.array(name)
        values = values.astype("float32") if values.dtype.kind == "f" else values
        names[name] = keras.ops.convert_to_tensor(values)
    keras.utils.set_random_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = execute(code, names)
            arrays = [np.asarray(keras.ops.convert_to_numpy(x)) for x in flatten(value)]
    except Exception as failure:  # what the code raises is its result
        line = (str(failure).strip() or "no message").splitlines()[0]
        results[f"{key}/failure"] = np.array([type(failure).__name__, line])
        return
    if row.layout == "maps":
        arrays = [np.moveaxis(x, -1, 1) if x.ndim == 4 else x for x in arrays]
    results[f"{key}/count"] = np.asarray(len(arrays))
    results |= {f"{key}/{index}": x for index, x in enumerate(arrays)}


if __name__ == "__main__":
    main()

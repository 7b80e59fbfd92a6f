"""One side of the device report, in this process or in one of its own.

`python -m parity.device.side keras` loads that framework alone and answers requests,
one line of JSON each, on standard input and output; arrays go through files.
"""

import contextlib
import importlib
import importlib.util
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from parity.device import inputs
from parity.device.judge import errors
from parity.spec import runs

PACKAGES = {"keras": ("keras", "tensorflow"), "torch": ("torch", "torchvision")}
REASON = 200  # characters of one


class NotRun(Exception):
    """Why something could not be run, in one line."""


def installed() -> list[str]:
    """Returns the frameworks that are installed."""
    return [
        framework
        for framework, packages in PACKAGES.items()
        if all(importlib.util.find_spec(package) for package in packages)
    ]


def reason(error: BaseException) -> str:
    """Returns an error in one line, without the paths of this machine."""
    if isinstance(error, NotRun):
        return str(error)
    line = " ".join(str(error).split())
    line = re.sub(r"(?<![\w.:])(?:/[\w.+@-]+){2,}/?", "...", line)[:REASON]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


# What a side is asked for; every argument can be written as JSON.


def facts(side: ModuleType) -> dict[str, object]:
    """Returns versions and the GPU."""
    return side.facts()


def results(
    side: ModuleType, name: str, dtype: str, device: str, steps: int = 0
) -> dict[str, np.ndarray]:
    """Returns a network's outputs and gradients, or what training it gives."""
    network = side.Network(name, dtype, device)
    given = inputs.batches(name, steps) if steps else inputs.batch(name)
    return _run(network, inputs.weights(network.shapes()), *given, steps)


def _run(network, weights, images, labels, steps) -> dict[str, np.ndarray]:
    network.load(weights)
    return (network.train if steps else network.passes)(images, labels)


def effects(
    side: ModuleType, name: str, device: str, dtypes: Sequence[str], steps: int = 0
) -> dict[str, dict[str, float]]:
    """Returns what the disturbances of each type do in float64, by tensor."""
    network = side.Network(name, "float64", device)
    weights = inputs.weights(network.shapes())
    images, labels = inputs.batches(name, steps) if steps else inputs.batch(name)
    exact = _run(network, weights, images, labels, steps)
    largest = {dtype: dict.fromkeys(exact, 0.0) for dtype in dtypes}
    for dtype, seed in itertools.product(dtypes, range(inputs.SIMULATIONS)):
        near = inputs.disturb({"images": images}, dtype, seed)["images"]
        disturbed = inputs.disturb(weights, dtype, seed)
        found = errors(exact, _run(network, disturbed, near, labels, steps))
        for tensor, error in found.items():
            largest[dtype][tensor] = max(largest[dtype][tensor], error)
    return largest


def convolutions(
    side: ModuleType, dtype: str, device: str, absolute: bool = False
) -> dict[str, np.ndarray]:
    """Returns `conv2d` and its gradients on the grid."""
    return side.convolutions(dtype, device, absolute)


def accuracy(
    side: ModuleType,
    name: str,
    device: str,
    image_size: int,
    epochs: int,
    folder: str,
    weights: str | None = None,
) -> dict[str, object]:
    """Trains on the digits; returns the test accuracy and the first weights' file."""
    options = runs.options(
        name,
        dataset="digits",
        image_size=image_size,
        epochs=epochs,
        batch_size=64,
        learning_rate=1e-3,
        scheduler="constant",
        augment=(),
        device=device,
        output=Path(folder),
        weights=weights and Path(weights),
        quiet=True,
    )
    run = side.train_model(options)
    *_, last = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    initial = str(run / "initial.safetensors")
    return {"accuracy": json.loads(last)["test_accuracy"], "weights": initial}


def speed(
    side: ModuleType,
    name: str,
    device: str,
    image_size: int,
    batch_size: int,
    seconds: float,
) -> dict[str, float]:
    """Returns the images per second of float32 training steps."""
    found = side.speed(name, device, image_size, batch_size, seconds)
    return {name: float(value) for name, value in found.items()}


REQUESTS = {
    request.__name__: request
    for request in (facts, results, effects, convolutions, accuracy, speed)
}


def load(framework: str) -> ModuleType:
    """Returns a side's module, and loads its framework."""
    return importlib.import_module(f"parity.device.{framework}_side")


class Here:
    """A side in this process."""

    def __init__(self, framework: str):
        self.framework = framework

    def call(self, request: str, arguments: dict, seconds: float) -> dict:
        """Returns the answer to a request, however long it takes.

        Raises:
            NotRun: it failed.
        """
        try:
            if len(installed()) > 1:
                importlib.import_module("parity.frameworks")  # the order that works
            side = load(self.framework)
            # What a side prints has the folders of this machine in it.
            with contextlib.redirect_stdout(io.StringIO()):
                found = REQUESTS[request](side, **arguments)
            side.clear()
        except Exception as error:
            raise NotRun(reason(error)) from error
        return found

    def close(self) -> None:
        """Does nothing."""


class Apart:
    """A side in a process of its own, which is started anew when it ends.

    Args:
        framework: "keras" or "torch".
        folder: for the arrays that it answers with.
    """

    def __init__(self, framework: str, folder: Path):
        self.framework, self.folder = framework, folder
        self.process = None

    def call(self, request: str, arguments: dict, seconds: float) -> dict:
        """Returns the answer to a request.

        Args:
            request: of REQUESTS.
            arguments: of the request.
            seconds: after which the process is ended.

        Raises:
            NotRun: it failed, or took too long, or the process ended.
        """
        if self.process is None or self.process.poll() is not None:
            self._start()
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        path = self.folder / f"{self.framework}.npz"
        line = json.dumps([request, arguments, str(path)])
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            timer.cancel()
        if not reply:
            code = self.process.wait()
            raise NotRun("time" if late.is_set() else f"its process ended with {code}")
        kind, value = json.loads(reply)
        if kind == "error":
            raise NotRun(value)
        if kind == "value":
            return value
        with np.load(path) as arrays:
            found = dict(arrays)
        path.unlink()
        return found

    def _start(self) -> None:
        self.close()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parity.device.side", self.framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def serve(framework: str) -> None:
    """Answers requests until there are no more."""
    # What a framework prints is no answer.
    with os.fdopen(os.dup(1), "w", buffering=1) as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            request, arguments, path = json.loads(line)
            try:
                side = load(framework)
                found = REQUESTS[request](side, **arguments)
                side.clear()
                if any(isinstance(x, np.ndarray) for x in found.values()):
                    np.savez(path, **found)
                    reply = ["arrays", None]
                else:
                    reply = ["value", found]
            except Exception as error:
                reply = ["error", reason(error)]
            replies.write(f"{json.dumps(reply)}\n")


if __name__ == "__main__":
    serve(sys.argv[1])

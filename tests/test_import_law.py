"""parity.spec <- keras_impl, torch_impl <- the rest of parity; and what loads what."""

import pkgutil
import subprocess
import sys

import pytest

import keras_impl
import parity.spec
import torch_impl

FRAMEWORKS = ("keras", "tensorflow", "torch", "torchvision")


def modules(package) -> list[str]:
    names = [
        module.name
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    assert names
    return names


def loaded_by(code: str) -> set[str]:
    """Returns the frameworks that a fresh interpreter has loaded after some code."""
    code = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(FRAMEWORKS) & set(done.stdout.split())


def importing(names: list[str]) -> str:
    return "\n".join(f"import {name}" for name in names)


@pytest.mark.parametrize(
    "code",
    [
        "import parity, keras_impl, torch_impl",
        importing(modules(parity.spec)),
        "import keras_impl; keras_impl.list_models('lenet*')",
    ],
)
def test_no_framework_is_loaded(code):
    assert loaded_by(code) == set()


def test_the_keras_side_loads_no_torch():
    assert loaded_by(importing(modules(keras_impl))) == {"keras", "tensorflow"}


def test_the_torch_side_loads_no_keras():
    loaded = loaded_by(importing(modules(torch_impl)))
    assert loaded <= {"torch", "torchvision"}
    assert "torch" in loaded


def test_parity_loads_both_in_any_order_that_can_work():
    both = {"keras", "tensorflow", "torch", "torchvision"}
    assert loaded_by("import parity; parity.compare") == both
    assert loaded_by("import torch, torchvision, keras; import parity.weights") == both


@pytest.mark.parametrize("first", ["keras", "tensorflow"])
def test_tensorflow_first_is_an_error_and_not_an_abort(first):
    pytest.importorskip("triton")
    code = f"import {first}, parity\ntry: parity.compare\nexcept ImportError as e: "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(e)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "import parity (or torchvision) before tensorflow" in done.stdout


@pytest.mark.parametrize(
    ("side", "blocked"),
    [("keras", ["torch", "torchvision"]), ("torch", ["keras", "tensorflow"])],
)
def test_either_side_trains_without_the_other(side, blocked, tmp_path):
    code = f"""
import importlib.machinery, runpy, sys
class Block:
    def find_spec(self, name, *_):
        if name in {blocked}:
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name)
sys.meta_path.insert(0, Block())
sys.argv = ["train", "lenet5", "--epochs", "1", "--output", {str(tmp_path / "run")!r}]
try:
    runpy.run_module("{side}_impl.train", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0, stop.code
"""
    assert loaded_by(code).isdisjoint(blocked)
    assert (tmp_path / "run" / "final.safetensors").exists()

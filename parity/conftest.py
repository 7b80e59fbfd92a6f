"""Fixtures of the ladder: the device it runs on, and twins with the same weights."""

import functools
import os
import sys
from pathlib import Path

import pytest

from parity import probe
from parity.probe import DEEP
from parity.spec import recipes

# Each framework in a process of its own: only what can compare them so is collected,
# and this process loads neither.
SEPARATE = "--separate-processes" in " ".join(
    [*sys.argv, os.environ.get("PYTEST_ADDOPTS", "")]
)
if SEPARATE:
    tests = Path(__file__).parent.glob("test_*.py")
    collect_ignore = [x.name for x in tests if x.name != "test_sides.py"]
else:
    from parity.frameworks import missing_gpu, torch
    from parity.commands import create_twins

MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name
    for name in recipes.names()
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the number of generated cases per operation."""
    parser.addoption(
        "--cases", type=int, default=60, help="generated cases per operation"
    )
    parser.addoption(
        "--separate-processes",
        action="store_true",
        help="outputs and gradients only, each framework in a process of its own",
    )


@pytest.fixture(autouse=True)
def default_dtype():
    """No test leaves another default of PyTorch behind for the next."""
    yield
    if not SEPARATE:
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        assert dtype == torch.float32


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest) -> str:
    """The device of a rung; the GPU is skipped where either framework sees none."""
    if request.param == "gpu" and (reason := missing_gpu()):
        pytest.skip(reason)
    return request.param


@pytest.fixture(params=MODELS)
def twins(request: pytest.FixtureRequest):
    """Each model on both sides, with the same probe weights; for looking only."""
    return shared_twins(request.param)


@functools.cache
def shared_twins(name: str):
    """Returns twins made once for all tests, which leave them as they are."""
    return make_twins(name)


def make_twins(name: str, num_classes=None, image_size=None, in_channels=None, **rest):
    """Returns both sides' model with the same probe weights, at unequal H and W.

    Dense layers of 4,096 units become narrow ones, unless `hidden_units` is given.
    """
    recipe = recipes.find(name)
    image_size = image_size or probe.image_size(recipe)
    shape = recipes.shape(recipe, num_classes, image_size, in_channels)
    if name.startswith(("alexnet", "vgg")):
        rest = {"hidden_units": 48} | rest
    return create_twins(name, shape, **rest)

"""Fixtures of the ladder: the device it runs on, and twins with the same weights."""

import pytest

from parity.frameworks import missing_gpu
from parity import probe
from parity.commands import create_twins
from parity.spec import recipes

MODELS = recipes.names()


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest) -> str:
    """The device of a rung; the GPU is skipped where either framework sees none."""
    if request.param == "gpu" and (reason := missing_gpu()):
        pytest.skip(reason)
    return request.param


@pytest.fixture(params=MODELS)
def twins(request: pytest.FixtureRequest):
    """Each model on both sides, with the same probe weights, at unequal H and W."""
    return make_twins(request.param)


def make_twins(name: str, **changes: int):
    """Returns both sides' model with the same probe weights, at unequal H and W."""
    recipe = recipes.find(name)
    arguments = {"image_size": probe.image_size(recipe), **changes}
    return create_twins(name, recipes.shape(recipe, **arguments))

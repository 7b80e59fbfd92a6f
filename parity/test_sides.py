"""Outputs, gradients and convolutions, each framework in a process of its own.

For `pytest parity/ --separate-processes`: where one process cannot have both, as with
unlike CUDA libraries. The rules are the device report's.
"""

import os
import subprocess
import sys
import time

import pytest

from parity.conftest import MODELS, SEPARATE
from parity.device.networks import convolution_job, network_job
from parity.device.parts import Sides
from parity.device.side import installed

apart = pytest.mark.skipif(not SEPARATE, reason="only with --separate-processes")


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Both frameworks, each in its process."""
    if len(frameworks := installed()) < 2:
        pytest.skip(f"only {frameworks} of both frameworks are here")
    found = Sides(frameworks, True, tmp_path_factory.mktemp("sides"), time.time() * 2)
    yield found
    found.close()


@apart
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients(name, sides):
    check(network_job(sides, name))


@apart
def test_convolutions(sides):
    check(convolution_job(sides))


def check(job):
    found = list(job.run())
    assert len(found) == len(job.planned)
    assert [x for x in found if x.verdict not in ("equal", "rounding")] == []
    assert all(x.verdict == "equal" for x in found if x.dtype == "float64")


@pytest.mark.slow
def test_the_choice_is_honoured():
    """The process that compares has neither framework."""
    code = (
        "import sys, pytest\n"
        "code = pytest.main(['parity', '--separate-processes', '-q', '-k', 'block'])\n"
        "assert not {'torch', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--separate-processes"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "3 passed" in done.stdout

"""Every kernel of csrc/cuda is run by emulated tests. Comes last: it looks back on the session."""

from __future__ import annotations

import os
import re

import pytest
from kernel_list import RUN, kernels_in_source, plain_name, whole_folder

# Kernels that only hardware can run, and why.
HARDWARE_ONLY: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _needs_all_tests(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the tests are spread over processes, which do not know of each other")
    if not whole_folder(request.config):
        pytest.skip("only a part of the tests of this folder was chosen")


def test_every_kernel_ran() -> None:
    sources = kernels_in_source()
    assert len(sources) > 10, "the pattern finds kernels no more"
    run = {plain_name(kernel) for kernel in RUN}
    assert run <= sources
    assert sources - run == set(HARDWARE_ONLY)


def test_every_instance_ran() -> None:
    """What runs for float32 runs for float64, and the other way round."""
    for kernel in RUN:
        for one, other in (("float", "double"), ("double", "float")):
            assert re.sub(rf"\b{one}\b", other, kernel) in RUN

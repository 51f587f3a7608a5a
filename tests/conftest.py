"""Fixtures for all tests: data folders, devices, implementations, seeds, hypothesis profiles."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import usucl_ext

pytest_plugins = ["grids", "kernel_list"]

_ROOT = Path(__file__).resolve().parents[1]

_SHARED_BY_EXAMPLES = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
hypothesis.settings.register_profile(
    "ci",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=_SHARED_BY_EXAMPLES,
)
hypothesis.settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=_SHARED_BY_EXAMPLES
)
hypothesis.settings.load_profile(os.environ.get("USUCL_HYPOTHESIS_PROFILE", "ci"))

torch.set_num_threads(2)


def pytest_configure(config: pytest.Config) -> None:
    """Keeps what the tests find out about videos apart from what the user's own data hold."""
    folder = tempfile.TemporaryDirectory(prefix="usucl-tests-")
    os.environ["USUCL_CACHE"] = folder.name  # for the processes that tests start, too
    config.add_cleanup(folder.cleanup)


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable) or _ROOT.parent / "shared" / default)
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set {variable} to where the {default} files are")
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real ultrasound data: USUCL_DATA, or shared/data next to the repository."""
    return _folder("USUCL_DATA", "data")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """The folder of the official implementation's numbers: USUCL_GOLDEN, or shared/golden."""
    return _folder("USUCL_GOLDEN", "golden")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session", params=["reference", "native"])
def impl(request: pytest.FixtureRequest, device: torch.device) -> str:
    """Each implementation for the device; if one is absent, the skip says why."""
    if request.param == "native":
        _require_native(device)
    return str(request.param)


@pytest.fixture(scope="session")
def native_device(device: torch.device) -> torch.device:
    """A device with native kernels, for tests that only these must pass."""
    _require_native(device)
    return device


def _require_native(device: torch.device) -> None:
    info = usucl_ext.build_info()
    name = "native" if device.type == "cpu" else "cuda"
    if not info[name]:
        pytest.skip(f"no native kernels for {device.type}: {info[name + '_reason']}")

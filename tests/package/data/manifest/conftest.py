"""A cache of its own and a small archive for every test of the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import small_archive, told_what_is_read

from usucl.data.catalog.scanning import manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USUCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return told_what_is_read(monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return small_archive(tmp_path / "archive")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets scans begin long after the files were written, unless a test says otherwise."""
    monkeypatch.setattr(manifest, "YOUNG", -3600 * 10**9)

"""Fixtures of the package's tests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from usucl._progress import displays


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Uses one thread, because with so little work per call threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints no progress, however slow this machine is."""
    for name in ("FIRST_LINE", "BETWEEN_LINES", "WORTH_A_LINE"):
        monkeypatch.setattr(displays, name, math.inf)


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws reports as always, but paints nothing, which takes most of a report's time."""
    from matplotlib.figure import Figure

    from usucl import _style

    save, vector = _style.save, _style.vector

    def blank(figure: Figure) -> Figure:
        return Figure(figsize=figure.get_size_inches())

    def save_blank(figure: Figure, path: Path) -> None:
        save(blank(figure), path)

    monkeypatch.setattr(_style, "save", save_blank)
    monkeypatch.setattr(_style, "vector", lambda figure: vector(blank(figure)))

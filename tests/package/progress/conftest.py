"""Somebody who listens to progress."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from progress import Heard, Recorder

from usucl._progress import displays, listen, listening


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard(Recorder())
    with listen(display=heard.display, clock=heard.clock, ticks=False) as heard.listener:
        yield heard
    assert not listening()


@pytest.fixture
def usual_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints lines as often as to a user's pipe."""
    for name, seconds in (("FIRST_LINE", 3.0), ("BETWEEN_LINES", 30.0), ("WORTH_A_LINE", 2.0)):
        monkeypatch.setattr(displays, name, seconds)

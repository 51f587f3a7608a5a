"""The sizes in miniature; ``python -m tests.soak scale`` tries the promised ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.scale import bank, catalogue, endurance


def test_a_bank_is_the_same_filled_mapped_and_loaded(tmp_path: Path) -> None:
    facts, found = bank.run(tmp_path, frames=3000)
    assert not found and facts["mapped"]["equal"] and facts["loaded"]["equal"]


@pytest.mark.at_length
def test_a_catalogue_is_the_same_again(tmp_path: Path) -> None:
    facts, found = catalogue.run(tmp_path, files=40)
    assert not found and facts["files"] >= 20


@pytest.mark.at_length
def test_a_training_ends_when_its_time_is_over(tmp_path: Path) -> None:
    facts, found = endurance.run(tmp_path, steps=100_000, seconds=40)
    assert not found and 0 < facts["steps"] < 100_000

"""The benchmark of the augmentations refuses wrong views and says what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import data_augmentation
from benchmarks.rows import read
from usucl.data import Augmentation


def test_a_run_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_augmentation, "VIEWS", 4)
    monkeypatch.setattr(data_augmentation, "SEEDS", [0, 1, 2, 3])
    out = tmp_path / "results" / "augmentation.json"
    assert data_augmentation.main(["--quick", "--out", str(out)]) == 0
    assert "| `local` |" in capsys.readouterr().out
    result = read(out)
    for name in data_augmentation.PROVIDERS:
        assert (result.value(op="64 px", provider=name, metric="rate") or 0) > 0
    assert (result.value(op="64 px", provider="global", metric="ratio") or 0) > 0
    assert result.run["goals"] == {"64 px": 1500}
    assert data_augmentation.main(["--show", str(out)]) == 0
    with pytest.raises(SystemExit, match="never overwritten"):
        data_augmentation.main(["--quick", "--out", str(out)])


def test_views_with_neighbours_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Augmentation.__call__

    def wrong(self: Augmentation, images: list[Tensor], seeds: list[int]) -> Tensor:
        return right(self, images, seeds) + len(images)

    monkeypatch.setattr(Augmentation, "__call__", wrong)
    images: list[Any] = [torch.zeros(1, 32, 32, dtype=torch.uint8)] * 3
    with pytest.raises(AssertionError, match="global: view 0 has neighbours"):
        data_augmentation.check(Augmentation("global", 32), images, [1, 2, 3])

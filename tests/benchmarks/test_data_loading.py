"""The benchmark of loading refuses wrong frames and says what it measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import data_loading
from benchmarks.rows import read


def test_a_run_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_loading, "get_args", lambda _: ("crop",))
    monkeypatch.setattr(data_loading, "DECODED", ("none", "crop"))
    out = tmp_path / "results" / "loading.json"
    assert data_loading.main(["--quick", "--out", str(out)]) == 0
    assert "| the frame store at training size, mapped |" in capsys.readouterr().out
    result = read(out)
    for source in data_loading.SOURCES:
        for order in ("none", "crop"):
            assert (result.value(provider=source, order=order, metric="rate") or 0) > 0
    assert "assumed" in result.run["projection"]
    assert data_loading.main(["--show", str(out)]) == 0
    assert "| a folder of PNG images |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="never overwritten"):
        data_loading.main(["--quick", "--out", str(out)])


def test_stored_frames_that_are_wrong_are_refused() -> None:
    frames = torch.arange(5).view(5, 1, 1, 1)

    def right(numbers: np.ndarray) -> torch.Tensor:
        return frames[numbers]

    data_loading.check("png", right, right)
    with pytest.raises(AssertionError, match="png: stored frames differ"):
        data_loading.check("png", right, lambda numbers: frames[numbers[::-1].copy()])

"""The benchmarks of the bank refuse wrong searches and say what they measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("faiss")

from benchmarks import bank, bank_scale
from benchmarks.rows import read
from usucl.bank import NegativeBank
from usucl_ext import Frames, Selection


def test_a_run_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bank, "SIZES", (2000,))
    document = tmp_path / "bank.md"
    document.write_text("before <!-- measured: begin -->old<!-- measured: end --> after")
    out = tmp_path / "results" / "bank.json"
    assert bank.main(["--quick", "--out", str(out), "--docs", str(document)]) == 0
    text = document.read_text()
    assert "| Flat |" in text and "old" not in text
    assert text.startswith("before") and text.endswith("after")
    result = read(out)
    assert result.value(op="search", provider="Flat", metric="recall") == 1.0
    for name in ("exact", "Flat", "IVF"):
        for op in ("search", "update", "build"):
            assert (result.value(op=op, provider=name, metric="time") or 0) > 0
    capsys.readouterr()
    assert bank.main(["--show", str(out)]) == 0
    assert "2,000 frames" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="never overwritten"):
        bank.main(["--quick", "--out", str(out)])


def test_a_search_that_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = NegativeBank.hardest

    def wrong(self: NegativeBank, frames: Frames, k: int) -> Selection:
        found = right(self, frames, k)
        return (
            found._replace(cross_index=found.cross_index.flip(1))
            if self.search == "Flat"
            else found
        )

    monkeypatch.setattr(NegativeBank, "hardest", wrong)
    with pytest.raises(AssertionError, match="Flat selects other frames"):
        bank.check()


def test_bytes_of_a_step() -> None:
    """The formula equals the sizes of the tensors that are sent."""
    ranks, n, k, d = 3, 5, 4, 8
    by = bank_scale.received(ranks, n, k, d)
    anchor = torch.zeros(d).nbytes + 8 + 4 + 8
    assert by.anchors == 2 * n * anchor and by.candidates == 2 * n * k * 12
    assert by.frames == n * k * (8 + anchor) * 2 // 3
    assert bank_scale.received(1, n, k, d).total == 0


def test_committed_results_are_readable() -> None:
    for path in (Path(bank.__file__).parent / "results" / "bank").glob("*.json"):
        assert "| exact |" in bank.markdown(read(path).rows)

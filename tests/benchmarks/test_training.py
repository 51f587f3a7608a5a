"""The benchmark of a training step counts every part once, and compares the same encoder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks import training
from benchmarks.rows import OURS, read
from benchmarks.training_turns import PARTS, Profile


def test_a_run_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightly")
    monkeypatch.setattr(training, "QUICK", (training.QUICK[0], training.QUICK[3]))
    out, threads = tmp_path / "training.json", torch.get_num_threads()
    assert training.main(["--quick", "--processor-time", "--steps", "2", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "| encoder, backward |" in printed and "lightly, MoCo |" in printed
    result = read(out)
    assert result.run["clock"] == "processor"
    op = training.QUICK[0].name
    parts = [result.value(op=op, order=part) or 0.0 for part in PARTS]
    whole = result.value(op=op, order="step without data", provider=OURS)
    assert whole is not None and min(parts) >= 0
    assert result.value(op=op, order="share of the loss") is not None
    assert (result.value(provider="lightly, MoCo", metric="ratio") or 0) > 0
    assert training.main(["--show", str(out)]) == 0
    assert capsys.readouterr().out == printed
    with pytest.raises(SystemExit, match="never overwritten"):
        training.main(["--quick", "--out", str(out)])


def test_no_time_is_counted_twice() -> None:
    profile = Profile()

    def wait() -> None:
        time.sleep(0.01)

    inner = profile.timed(wait, "inner")

    def both() -> None:
        inner()
        time.sleep(0.01)
        profile.move(0.004, "moved")

    start = time.perf_counter()
    profile.timed(both, "outer")()
    took = time.perf_counter() - start
    parts = profile.taken()
    assert parts["inner"] >= 0.01 and parts["outer"] >= 0.005 and parts["moved"] == 0.004
    assert sum(parts.values()) <= took
    assert profile.taken() == {}

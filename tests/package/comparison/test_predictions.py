"""The record of one run comes back from its folder as it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from usucl._files import DamagedFileError
from usucl.comparison.measurement.predictions import PREDICTIONS, RESULT, Predictions, RunResult


def _predictions(n: int = 5, task: str = "zone", share: float = 1.0) -> Predictions:
    rng = np.random.default_rng(n)
    return Predictions(
        task=task,
        probe="linear",
        level="frame",
        share=share,
        classes=("a", "b", "c"),
        truth=rng.integers(3, size=n),
        probability=rng.dirichlet(np.ones(3), n).astype(np.float32),
        patient=tuple(f"patient {i % 2}" for i in range(n)),
    )


def _result(*predictions: Predictions) -> RunResult:
    return RunResult(
        arm="dense",
        seed=3,
        fold=1,
        predictions=predictions,
        retrieval={"temporal": {"p": 0.75, "q": math.nan}},
        spread={"effective_rank": 7.5, "uniformity": math.nan},
        curve=((10, 3.5), (20, math.nan)),
        seconds=12.5,
        images_per_second=100.0,
    )


def test_a_run_comes_back(tmp_path: Path) -> None:
    saved = _result(_predictions(), _predictions(0, "b_lines", 0.05), _predictions(8))
    saved.save(tmp_path / "run")
    loaded = RunResult.load(tmp_path / "run")
    for name in ("arm", "seed", "fold", "seconds", "images_per_second"):
        assert getattr(loaded, name) == getattr(saved, name)
    np.testing.assert_equal(loaded.retrieval, saved.retrieval)
    np.testing.assert_equal(loaded.spread, saved.spread)
    np.testing.assert_equal(loaded.curve, saved.curve)
    assert len(loaded.predictions) == 3
    for after, before in zip(loaded.predictions, saved.predictions, strict=True):
        np.testing.assert_equal(vars(after), vars(before))
        assert after.truth.dtype == np.int64 and after.probability.dtype == np.float32


def test_an_unfinished_or_changed_run_is_told(tmp_path: Path) -> None:
    _result(_predictions()).save(tmp_path)
    content = bytearray((tmp_path / PREDICTIONS).read_bytes())
    content[-1] ^= 1
    (tmp_path / PREDICTIONS).write_bytes(content)
    with pytest.raises(DamagedFileError):
        RunResult.load(tmp_path)
    _result(_predictions()).save(tmp_path)
    (tmp_path / RESULT).unlink()
    with pytest.raises(FileNotFoundError):
        RunResult.load(tmp_path)


def test_predictions_check_their_shapes() -> None:
    good = vars(_predictions())
    with pytest.raises(ValueError, match=r"truth and probability must be \[5\] and \[5, 3\]"):
        Predictions(**{**good, "truth": np.zeros(4, np.int64)})
    with pytest.raises(ValueError, match=r"truth must be in 0 \.\. 2, got 0 \.\. 3"):
        Predictions(**{**good, "truth": np.array([0, 1, 2, 3, 0])})
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got 0"):
        Predictions(**{**good, "share": 0.0})

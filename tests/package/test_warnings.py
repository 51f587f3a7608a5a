"""Warnings point at the line of the user's own that can do something about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import make_data

import usucl
from usucl.training import plan


def test_unknown_patients_are_told_to_whoever_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path / "data", videos=3, frames=4, labels=False)
    options: dict[str, Any] = {"backbone": "resnet10", "image_size": 32, "progress": False}
    monkeypatch.setattr("usucl.training.fitting.fit", lambda *_, **__: None)
    for call in (plan, usucl.train):
        with pytest.warns(UserWarning, match="name the patients in labels.csv") as told:
            call(data=data, out=tmp_path / "run", **options)
        assert {warning.filename for warning in told} == {__file__}

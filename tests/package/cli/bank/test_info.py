"""``usucl bank info``: what is in a bank, whoever saved it, and which of its files is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from shell import bank_json, stderr_line

from usucl.bank import NegativeBank
from usucl.cli import main
from usucl.losses import Frames


def test_info(bank: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = bank_json(capsys, "info", str(bank))
    assert (facts["frames"], facts["capacity"], facts["videos"], facts["patients"]) == (
        19,
        19,
        5,
        3,
    )
    assert facts["labels"] == {"cyst": 2, "stone": 2}
    assert facts["folds"] == {"0": 2, "1": 1, "2": 1}
    assert facts["frames_per_video"] == {"least": 3, "median": 4, "most": 4}
    assert (facts["dim"], facts["dtype"], facts["search"]) == (16, "float32", "exact")
    assert facts["run"] == str(run)
    assert facts["bytes"] == sum(f.stat().st_size for f in bank.iterdir())
    assert main(["bank", "info", str(bank)]) == 0
    assert "cyst: 2, stone: 2" in capsys.readouterr().out


def test_info_of_a_bank_saved_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = NegativeBank(8, 4)
    bank.enqueue(Frames(torch.eye(4), torch.tensor([0, 0, 1, 2]), torch.zeros(4)))
    bank.save(tmp_path)
    facts = bank_json(capsys, "info", str(tmp_path))
    assert (facts["frames"], facts["capacity"], facts["videos"]) == (4, 8, 3)
    assert main(["bank", "search", str(tmp_path), "--slot", "0"]) == 2
    assert "usucl bank build" in stderr_line(capsys)


def test_a_damaged_table_is_named(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bank, copy)
    (table,) = copy.glob("contents-*.json")
    for content in ("{", "{}", '{"format": "other"}', table.read_text().replace('"frames"', '"f"')):
        table.write_text(content)
        assert main(["bank", "search", str(copy), "--slot", "0"]) == 2
        assert f"{table.name} is damaged" in stderr_line(capsys)

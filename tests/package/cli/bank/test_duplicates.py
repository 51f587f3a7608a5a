"""``usucl bank duplicates``: every pair of frames that are alike, copies told from look-alikes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from shell import bank_json, stderr_line

from usucl.cli import main
from usucl.gallery import Gallery
from usucl.gallery.contents import Contents


def test_duplicates_across_patients_and_folds(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy of b is found, called the same picture, and told from pairs that are only alike."""
    sheet, table = tmp_path / "sheet.png", tmp_path / "pairs.csv"
    words = ["duplicates", str(bank), "--threshold", "0.5"]
    answer = bank_json(capsys, *words, "--out", str(sheet), "--csv", str(table))
    same = [pair for pair in answer["pairs"] if pair["same_picture"]]
    (pair,) = same
    assert (pair["a"]["video"], pair["b"]["video"]) == ("b", "e")
    assert pair["a"]["frame"] == pair["b"]["frame"]
    assert pair["correlation"] > 0.99 and pair["difference"] < 5
    assert pair["other_patient"] and pair["other_fold"]
    assert answer["summary"]["same_picture_across_folds"] == 1
    assert answer["summary"]["pairs"] == len(answer["pairs"])
    similarities = [pair["similarity"] for pair in answer["pairs"]]
    assert similarities == sorted(similarities, reverse=True)
    assert Image.open(sheet).width > 500
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["similarity"]) for row in rows] == similarities
    assert main(["bank", *words, "--top", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 pairs of videos the same picture: 1 across patients, 1 across folds" in said

    of_d = [pair for pair in answer["pairs"] if "d" in (pair["a"]["video"], pair["b"]["video"])]
    assert all(pair["other_patient"] is None and pair["other_fold"] is None for pair in of_d)
    for across, field in (("patient", "patient"), ("fold", "fold")):
        for pair in bank_json(capsys, *words, "--across", across)["pairs"]:
            a, b = pair["a"][field], pair["b"][field]
            assert a != b or a is None
            assert across == "patient" or None not in (a, b)


def test_no_duplicates_and_no_folds(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["bank", "duplicates", str(bank), "--threshold", "1", "--out", str(out)]) == 0
    assert "No pairs of videos" in capsys.readouterr().out
    assert out.exists()
    assert main(["bank", "duplicates", str(bank), "--threshold", "2"]) == 2
    assert "threshold must be a cosine" in stderr_line(capsys)
    _save_changed(bank, tmp_path / "bank", fold=None)
    assert main(["bank", "duplicates", str(tmp_path / "bank"), "--across", "fold"]) == 2
    assert "0 folds" in stderr_line(capsys)


def test_pictures_that_are_gone_are_not_compared(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save_changed(bank, tmp_path / "bank", path=str(tmp_path / "nowhere"))
    words = ["duplicates", str(tmp_path / "bank"), "--threshold", "0.5"]
    answer = bank_json(capsys, *words, "--out", str(tmp_path / "sheet.png"))
    assert answer["summary"]["unreadable"] == len(answer["pairs"]) > 0
    assert main(["bank", *words]) == 0
    assert "can no longer be read" in capsys.readouterr().out


def _save_changed(bank: Path, out: Path, **changes: object) -> None:
    """A copy of the gallery with changed fields of each video."""
    gallery = Gallery.open(bank)
    videos = tuple(replace(video, **changes) for video in gallery.contents.videos)  # type: ignore[arg-type]
    Gallery(out, gallery.bank, Contents(videos, gallery.contents.source)).save()

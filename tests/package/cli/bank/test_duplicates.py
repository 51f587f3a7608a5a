"""``usucl bank duplicates``: every pair of frames that are alike, copies told from look-alikes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shell import bank_json, stderr_line

from usucl.bank import NegativeBank
from usucl.cli import main
from usucl.cli.bank import pairs
from usucl.cli.bank.stored import StoredBank, StoredVideo
from usucl.losses import Frames


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
    stored = StoredBank.open(bank)
    videos = tuple(StoredVideo(**{**v.__dict__, "fold": None}) for v in stored.videos)
    StoredBank(tmp_path / "bank", stored.bank, videos, stored.source).save()
    assert main(["bank", "duplicates", str(tmp_path / "bank"), "--across", "fold"]) == 2
    assert "0 folds" in stderr_line(capsys)


def test_pictures_that_are_gone_are_not_compared(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = StoredBank.open(bank)
    moved = {"path": str(tmp_path / "nowhere")}
    videos = tuple(StoredVideo(**{**v.__dict__, **moved}) for v in stored.videos)
    StoredBank(tmp_path / "bank", stored.bank, videos, stored.source).save()
    words = ["duplicates", str(tmp_path / "bank"), "--threshold", "0.5"]
    answer = bank_json(capsys, *words, "--out", str(tmp_path / "sheet.png"))
    assert answer["summary"]["unreadable"] == len(answer["pairs"]) > 0
    assert main(["bank", *words]) == 0
    assert "no longer there" in capsys.readouterr().out


@settings(max_examples=25)
@given(st.data())
def test_every_pair_at_or_above_the_threshold_is_found(data: st.DataObject) -> None:
    """Against all pairs of rows, with many copies of a frame, so that pages are full."""
    videos = data.draw(st.integers(2, 4))
    counts = data.draw(st.lists(st.integers(1, 45), min_size=videos, max_size=videos))
    total = sum(counts)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    corner = rng.integers(0, data.draw(st.integers(1, 3)), total)
    embedding = torch.eye(4)[torch.from_numpy(corner)]
    patients = [data.draw(st.sampled_from([None, "p", "q"])) for _ in counts]
    folds = [data.draw(st.sampled_from([None, 0, 1])) for _ in counts]
    stored_videos = tuple(
        StoredVideo(str(i), "nowhere", n, patients[i], None, folds[i], tuple(range(n)))
        for i, n in enumerate(counts)
    )
    bank = NegativeBank(total, 4)
    stored = StoredBank(Path("nowhere"), bank, stored_videos, {})
    number = {None: -1, "p": 0, "q": 1}
    patient = torch.tensor([number[p] for p in patients])[torch.from_numpy(stored.video)]
    video = torch.from_numpy(stored.video)
    bank.enqueue(Frames(embedding, video, torch.zeros(total), patient))

    across = data.draw(st.sampled_from(["video", "patient", "fold"]))

    def counts_as_pair(a: int, b: int) -> bool:
        x, y = stored.video_of(a), stored.video_of(b)
        if across == "fold":
            return None not in (x.fold, y.fold) and x.fold != y.fold
        same_patient = across == "patient" and x.patient is not None and x.patient == y.patient
        return x.id != y.id and not same_patient

    if across == "fold" and len({fold for fold in folds if fold is not None}) < 2:
        with pytest.raises(ValueError, match="folds"):
            pairs.find_pairs(stored, 0.5, across)
        return
    wanted = {
        (a, b)
        for a in range(total)
        for b in range(a + 1, total)
        if corner[a] == corner[b] and counts_as_pair(a, b)
    }
    found = pairs.find_pairs(stored, 0.5, across, every_frame=True)
    assert {(pair.a, pair.b) for pair in found} == wanted and len(found) == len(wanted)
    best = pairs.find_pairs(stored, 0.5, across)
    of_videos = {(stored.video[a], stored.video[b]) for a, b in wanted}
    assert {(stored.video[p.a], stored.video[p.b]) for p in best} == of_videos
    assert sum(pair.frames for pair in best) == len(wanted)


def test_correlation_is_of_details() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 64, 64, generator=generator) * 255
    slope = torch.linspace(0, 400, 64)[:, None]
    assert pairs.correlation(a, a * 0.5 + 20) == pytest.approx(1, abs=1e-5)  # float32 sums
    assert abs(pairs.correlation(a + slope, b + slope)) < 0.1
    assert pairs.correlation(a, -a) == pytest.approx(-1, abs=1e-5)
    flat = torch.full((64, 64), 7.0)
    assert pairs.correlation(flat, flat) == 1
    assert pairs.correlation(flat, a) == 0

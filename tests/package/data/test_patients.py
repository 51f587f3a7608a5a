"""Patients from names: what a pattern finds, what contradicts, and what is suggested."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from usucl.data import VideoCatalog
from usucl.data.catalog.patients import merge, split_words, suggest


def make_videos(root: Path, *paths: str) -> Path:
    for i, path in enumerate(paths):
        (root / path).mkdir(parents=True)
        for frame in range(2):
            image = np.full((16, 16), 40 * i + frame, dtype=np.uint8)
            Image.fromarray(image).save(root / path / f"{frame}.png")
    return root


def patients(catalog: VideoCatalog) -> dict[str, str | None]:
    return {e.id: e.group if e.patient_known else None for e in catalog}


def test_a_pattern_finds_the_patients_in_paths(tmp_path: Path) -> None:
    make_videos(tmp_path, "pA/s1/a", "pA/s2/b", "pB/s1/c", "pB/s1/d")
    assert VideoCatalog.scan(tmp_path).patients == "unknown"
    catalog = VideoCatalog.scan(tmp_path, patient_pattern="^([^/]+)/")
    assert patients(catalog) == {"a": "pA", "b": "pA", "c": "pB", "d": "pB"}
    assert catalog.patients == "known" and catalog.patient_doubt == ""
    training, held_out = catalog.hold_out()
    assert {e.group for e in training}.isdisjoint({e.group for e in held_out})


def test_a_pattern_says_how_many_it_does_not_find(tmp_path: Path) -> None:
    make_videos(tmp_path, "p1_a", "p1_b", "other")
    with pytest.warns(UserWarning, match=r"1 of 3 videos have none .*: other"):
        catalog = VideoCatalog.scan(tmp_path, patient_pattern=r"(p\d)_")
    assert patients(catalog) == {"p1_a": "p1", "p1_b": "p1", "other": None}
    assert catalog.patients == "partly"
    assert "1 of 3 videos" in catalog.patient_doubt and "both sides" in catalog.patient_doubt


def test_labels_win_and_contradictions_are_told(tmp_path: Path) -> None:
    make_videos(tmp_path, "x1_a", "x1_b", "x1_c", "x2_a", "x2_b")
    table = "video_id,label,patient\nx1_a,1,P\nx1_b,1,Q\nx2_a,1,R\n"
    (tmp_path / "labels.csv").write_text(table)
    with pytest.warns(UserWarning) as told:
        catalog = VideoCatalog.scan(tmp_path, patient_pattern="^([^_]+)_")
    text = " ".join(str(w.message) for w in told)
    assert "'x1' is one patient by the pattern, but 'P' and 'Q' by labels.csv" in text
    assert patients(catalog) == {"x1_a": "P", "x1_b": "Q", "x1_c": None, "x2_a": "R", "x2_b": "R"}


def test_contradictions_both_ways() -> None:
    found, told = merge(["P", "P", "", ""], ["1", "2", "3", ""])
    assert found == ["P", "P", "3", ""]
    assert told == ["'P' is one patient by labels.csv, but '1' and '2' by the pattern"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "must be a regular expression"),
        ("p1", r"with one group, \( \), .* got 0"),
        ("(p)(1)", r"one group, .* got 2"),
        ("(q9)", "which finds none"),
        ("(x*)", "which finds none"),
    ],
)
def test_a_pattern_that_cannot_be_is_named(tmp_path: Path, pattern: str, said: str) -> None:
    make_videos(tmp_path, "p1", "p2")
    with pytest.raises(ValueError, match=said):
        VideoCatalog.scan(tmp_path, patient_pattern=pattern)


@pytest.mark.parametrize(
    ("paths", "pattern", "number"),
    [
        (["pA/s1/a", "pA/s2/b", "pB/s1/c"], "^([^/]+)/", 2),
        (["train/01/a.mp4", "train/01/b.mp4", "test/02/c.mp4", "test/02/d.mp4"], None, 2),
        (["patient1_a", "patient1_b", "patient12_a", "patient12_b"], r"(patient\d+)", 2),
        (["P3-1.avi", "P3-2.avi", "P4-1.avi"], r"(?:^|[/ _-])(P\d+)", 2),
        (["Doe 1.mp4", "Doe 2.mp4", "Roe 1.mp4"], r"([^/]+)[ _-][^/ _-]+$", 2),
        (["0001.mp4", "0002.mp4", "0003.mp4"], None, 0),
        (["covid/1.mp4", "covid/2.mp4", "normal/3.mp4"], None, 0),
        ([f"{c}_{i}.mp4" for c in ("Cov", "Reg") for i in range(5)], None, 0),
        (["a.mp4"], None, 0),
    ],
)
def test_suggestions(paths: list[str], pattern: str | None, number: int) -> None:
    found = suggest(paths, [None] * len(paths))
    assert len(found[0].videos if found else ()) == number
    if pattern:
        assert found[0].pattern == pattern


def test_classes_are_not_taken_for_patients() -> None:
    paths = [f"{c}-{i}" for c in ("benignum", "malignum") for i in range(4)]
    assert suggest(paths, [path.split("-")[0] for path in paths]) == []


def test_a_table_elsewhere_is_named(tmp_path: Path) -> None:
    make_videos(tmp_path, "data/study/a", "data/study/b")
    table = "video_id,label\na,x\n"
    (tmp_path / "data" / "study" / "labels.csv").write_text(table)
    (tmp_path / "frame_labels.csv").touch()
    with pytest.warns(UserWarning) as told:
        VideoCatalog.scan(tmp_path / "data")
    text = " ".join(str(w.message) for w in told)
    assert str(Path("study") / "labels.csv") in text and str(tmp_path / "frame_labels.csv") in text
    (tmp_path / "data" / "labels.csv").write_text(table)
    (tmp_path / "frame_labels.csv").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoCatalog.scan(tmp_path / "data")


def test_words_of_a_split() -> None:
    assert split_words([True, True]) == ""
    unknown = "patients unknown: split by video; a patient may be on both sides"
    assert split_words([False]) == unknown
    assert split_words([True, False, False]).startswith("patients unknown for 2 of 3 videos")


def test_a_pattern_does_not_put_videos_of_two_folds_together(tmp_path: Path) -> None:
    for name in ("p1_a", "p1_b", "p2_a"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("L", (8, 8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "labels.csv").write_text("video_id,label,fold\np1_a,x,0\np1_b,x,1\np2_a,y,1\n")
    with pytest.raises(ValueError, match="group 'p1' are in folds 0, 1"):
        VideoCatalog.scan(tmp_path, patient_pattern=r"(p\d)")

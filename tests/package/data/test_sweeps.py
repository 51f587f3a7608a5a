"""Sweeps: one video of several clips, by a pattern or a table, with what is known of each clip."""

from __future__ import annotations

import pickle
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dicom import write

from usucl.data import (
    DenseSampler,
    FrameBatches,
    FrameDataset,
    FrameSampler,
    Sampler,
    UniformSampler,
    VideoCatalog,
    VideoEntry,
)
from usucl.data.catalog.sweeps import NoSweepError
from usucl.data.sampling.parts import PartBounds
from usucl.evaluation.retrieval import query_auroc

CLIPS = ("patient_1_L1", "patient_1_L2", "patient_1_L10", "patient_1_R1", "patient_2_L1", "other")
PATTERN = r"patient_(\d+)_([LR])"


def folder(path: Path, grey: int, count: int = 3, size: tuple[int, int] = (16, 16)) -> Path:
    """Makes a video of frames whose grey levels are ``grey``, ``grey + 1``, ..."""
    path.mkdir(parents=True)
    for i in range(count):
        Image.new("L", size, grey + i).save(path / f"{i}.png")
    return path


def gif(path: Path, grey: int, count: int = 3, milliseconds: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("L", (16, 16), grey + 40 * i) for i in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds)
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number, name in enumerate(CLIPS):
        folder(tmp_path / name, 10 * (number + 1))
    return tmp_path


def parts(catalog: VideoCatalog) -> dict[str, list[str]]:
    return {entry.id: [part.name for part in entry.parts] for entry in catalog}


def greys(entry: VideoEntry) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in entry.open().frames(range(entry.num_frames))]


def test_a_pattern_makes_one_video_of_the_clips_of_an_examination(clips: Path) -> None:
    catalog = VideoCatalog.scan(clips, sweep=PATTERN)
    assert parts(catalog) == {
        "other": [],
        "patient_1_L": ["patient_1_L1", "patient_1_L2", "patient_1_L10"],
        "patient_1_R": ["patient_1_R1"],
        "patient_2_L": ["patient_2_L1"],
    }
    sweep = catalog.entries[1]
    assert sweep.num_frames == 9 and sweep.frame_rate is None and len(catalog.clips) == 6
    assert greys(sweep) == [10, 11, 12, 20, 21, 22, 30, 31, 32]
    assert sweep.part_of(4) == (sweep.parts[1], 1) and sweep.part_of(9) is None
    assert VideoCatalog.scan(clips).with_sweeps(PATTERN) == catalog
    assert catalog.with_sweeps("none") == VideoCatalog.scan(clips)
    assert catalog.with_sweeps(r"(patient_\d+)").entries[1].num_frames == 12


def test_frames_of_a_sweep_are_those_of_its_clips_in_any_order(clips: Path) -> None:
    entry = VideoCatalog.scan(clips, sweep=PATTERN).entries[1]
    video = entry.open()
    assert video is entry.open() and (len(video), video.height, video.width) == (9, 16, 16)
    assert [int(f[0, 0, 0]) for f in video.frames([8, 0, 3, 3, 2])] == [32, 10, 20, 20, 12]
    assert int(video[-1][0, 0, 0]) == 32 and video[2:5].shape == (3, 3, 16, 16)
    again = pickle.loads(pickle.dumps(entry)).open()
    assert torch.equal(again.frames([1, 7]), video.frames([1, 7]))
    with pytest.raises(IndexError):
        video.frames([9])


def test_the_named_group_names_the_clips(clips: Path) -> None:
    catalog = VideoCatalog.scan(clips, sweep=r"patient_(\d+)_(?P<part>[LR]\d+)")
    assert parts(catalog) == {
        "other": [],
        "patient_1": ["L1", "L2", "L10", "R1"],
        "patient_2": ["L1"],
    }


def test_labels_of_clips_become_those_of_frames(clips: Path) -> None:
    rows = "1_L1,no,A,0 1_L2,yes,A,0 1_R1,no,A, 2_L1,,,1".replace(" ", "\npatient_")
    (clips / "labels.csv").write_text(f"video_id,label,patient,fold\npatient_{rows}\nother,no,,1\n")
    other, left, right, second = VideoCatalog.scan(clips, sweep=PATTERN)
    assert left.frame_labels == ("no",) * 3 + ("yes",) * 3 + (None,) * 3
    assert (left.label, left.group, left.patient_known, left.fold) == (None, "A", True, 0)
    assert (right.label, right.frame_labels, right.fold) == ("no", ("no",) * 3, None)
    assert (second.label, second.frame_labels, second.group) == (None, None, "patient_2_L")
    assert (other.label, other.frame_labels) == ("no", None) and not second.patient_known


def test_labels_of_frames_are_not_mixed_with_those_of_clips(clips: Path) -> None:
    (clips / "labels.csv").write_text("video_id,label\npatient_1_L1,ill\npatient_1_L2,ill\n")
    rows = "patient_1_L2,1,a\npatient_1_L2,0,b\npatient_1_L2,2,a\n"
    (clips / "frame_labels.csv").write_text(f"video_id,frame,label\n{rows}")
    left = VideoCatalog.scan(clips, sweep=PATTERN).entries[1]
    assert left.label == "ill"
    assert left.frame_labels == (None,) * 3 + ("b", "a", "a") + (None,) * 3


def test_tables_may_name_sweeps(clips: Path) -> None:
    (clips / "labels.csv").write_text(
        "video_id,label,patient,fold\npatient_1_L,ill,A,1\npatient_2_L,well,B,0\nother,well,B,0\n"
    )
    (clips / "frame_labels.csv").write_text("video_id,frame,last_frame,label\npatient_1_L,2,8,a\n")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*called")
        warnings.filterwarnings("ignore", message=".*some frames only")
        catalog = VideoCatalog.scan(clips, sweep=PATTERN)
    left = catalog.entries[1]
    assert (left.label, left.group, left.fold) == ("ill", "A", 1)
    assert left.frame_labels == (None,) * 2 + ("a",) * 7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1_L1,A,0 1_L2,B,0", "patient must be the same .*'patient_1_L'.*have 'A' and 'B'"),
        ("1_L1,A,0 1_L2,,1", "fold must be the same .*'patient_1_L'.*have 0 and 1"),
        ("1_L1,A, 1_L2,,1 1_R1,A,0", "group 'A' are in folds 0, 1"),
    ],
)
def test_contradictions_between_clips_are_named(clips: Path, rows: str, message: str) -> None:
    table = "video_id,patient,fold,label\n" + "".join(f"patient_{r},x\n" for r in rows.split(" "))
    (clips / "labels.csv").write_text(table)
    assert len(VideoCatalog.scan(clips)) == 6
    with pytest.raises(ValueError, match=message):
        VideoCatalog.scan(clips, sweep=PATTERN)


def test_patients_are_found_in_the_names_of_clips(clips: Path) -> None:
    catalog = VideoCatalog.scan(clips, sweep=PATTERN, patient_pattern=r"patient_(\d)")
    assert [e.group for e in catalog] == ["other", "1", "1", "2"]
    again = VideoCatalog.scan(clips, sweep=PATTERN).with_patients(r"patient_(\d)_\w\d+$")
    assert again == catalog
    with pytest.raises(ValueError, match="one patient in all clips of a sweep, got '1' and '10'"):
        VideoCatalog.scan(clips, sweep=PATTERN).with_patients(r"L(\d+)$")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("patient", r"sweep must be a regular expression with a group, \( \), around each"),
        (r"(?P<part>L\d)", "sweep must be a regular expression with a group"),
        ("(", r"sweep must be a regular expression, got '\('"),
        ("(.*)", "sweep must be a pattern by which clips belong together.*no two clips alike"),
        ("(x9)", "finds no two clips alike in paths such as 'other'"),
        ("patient_(3?)", "no two clips"),
    ],
)
def test_a_pattern_that_makes_no_sweep_is_refused(clips: Path, pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoCatalog.scan(clips, sweep=pattern)
    with pytest.raises(ValueError, match=message):
        VideoCatalog.scan(clips).with_sweeps(pattern)
    assert issubclass(NoSweepError, ValueError)


def test_a_pattern_may_put_all_clips_into_one(clips: Path) -> None:
    with pytest.warns(UserWarning, match="puts all 6 clips into one"):
        (entry,) = VideoCatalog.scan(clips, sweep="(t)")
    assert (entry.id, entry.num_frames) == ("t", 18)


def test_a_table_makes_sweeps(clips: Path) -> None:
    (clips / "sweeps.csv").write_bytes(
        "\ufeffSweep ID;Part;Order\r\nexam;patient_1_R1;2,0\r\nexam;other;1\r\n"
        "b;patient_2_L1;\r\nb;./patient_1_L1;\r\n".encode()
    )
    with pytest.warns(UserWarning, match=r"sweeps.csv: read as utf-8 with ';'"):
        catalog = VideoCatalog.scan(clips)
    assert parts(catalog) == {
        "exam": ["other", "patient_1_R1"],
        "b": ["patient_2_L1", "patient_1_L1"],
        "patient_1_L2": [],
        "patient_1_L10": [],
    }
    assert greys(catalog.entries[0]) == [60, 61, 62, 40, 41, 42]
    assert parts(VideoCatalog.scan(clips, sweep="none")) == {name: [] for name in CLIPS}
    assert "patient_1_L" in parts(VideoCatalog.scan(clips, sweep=PATTERN))
    (clips / "sweeps.csv").rename(clips / "mine.csv")
    with pytest.warns(UserWarning, match="mine.csv: read as"):
        assert VideoCatalog.scan(clips).with_sweeps(str(clips / "mine.csv")) == catalog


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a,other,1 a,patient_1_L9,2",
            r"line 3: no video in the folder is called patient_1_L9 \(di",
        ),
        ("a,other,1 a,other,2", "lines 2 and 3 both name 'other'$"),
        ("a,other,1 b,other,1", "lines 2 and 3 both name 'other', as a part of 'a' and of 'b'"),
        ("a,other,1 a,patient_1_L1,1.0", "lines 2 and 3 both give order 1 to a part of 'a'"),
        ("a,other,1 a,patient_1_L1,", "line 3: order must be given for every part of 'a'"),
        ("a,other,first", "line 2: order must be a number, got 'first'"),
        (",other,1", "line 2: sweep_id must be a name .*got ''"),
        ("..,other,1", "line 2: sweep_id must be a name"),
        ("other,patient_1_L1,1", "the sweep 'other' has the name of a video that is no part"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_by_line(clips: Path, rows: str, message: str) -> None:
    (clips / "sweeps.csv").write_text("sweep_id,part,order\n" + rows.replace(" ", "\n") + "\n")
    with pytest.raises(ValueError, match=f"^sweeps.csv: {message}"):
        VideoCatalog.scan(clips)
    assert len(VideoCatalog.scan(clips, sweep="none")) == 6


def test_a_table_without_its_columns_and_with_broken_clips(clips: Path) -> None:
    (clips / "sweeps.csv").write_text("sweep,part\na,other\n")
    with pytest.raises(ValueError, match=r"missing: sweep_id \(its columns are sweep, part"):
        VideoCatalog.scan(clips)
    (clips / "torn.mp4").touch()
    (clips / "sweeps.csv").write_text("sweep_id,part\nother,other\nother,torn.mp4\n")
    with pytest.warns(UserWarning, match="1 parts are left out, .*read: torn.mp4 of other"):
        catalog = VideoCatalog.scan(clips)
    assert parts(catalog)["other"] == ["other"]


def test_accents_and_folders(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "Jürgen")
    for i, hospital in enumerate(("a", "b")):
        for number in (1, 2):
            folder(tmp_path / hospital / f"{name}_L{number}", 10 * i + number)
    for day in ("day1", "day2"):
        folder(tmp_path / "exam" / day / f"clip_{day}", 50)
    composed = unicodedata.normalize("NFC", "Jürgen")
    catalog = VideoCatalog.scan(tmp_path, sweep=r"(ü\w+)_L")
    assert list(parts(catalog)) == ["a/ürgen_L", "b/ürgen_L", "clip_day1", "clip_day2"]
    assert parts(catalog)["a/ürgen_L"] == [f"a/{composed}_L1", f"a/{composed}_L2"]
    assert parts(VideoCatalog.scan(tmp_path, sweep="^(exam)/day"))["exam/day"] == [
        "clip_day1",
        "clip_day2",
    ]
    (tmp_path / "sweeps.csv").write_text(
        f"sweep_id,part\n{name},a\\{name}_L1\n{name},b/{name}_L2\n"
    )
    assert len(parts(VideoCatalog.scan(tmp_path))[composed]) == 2


def test_clips_of_all_kinds_make_one_sweep(tmp_path: Path) -> None:
    folder(tmp_path / "p1_a", 10, size=(16, 16))
    gif(tmp_path / "p1_b.gif", 20)
    pictures = [Image.new("L", (32, 16), 90 + i) for i in range(2)]
    pictures[0].save(tmp_path / "p1_c.tif", save_all=True, append_images=pictures[1:])
    (entry,) = VideoCatalog.scan(tmp_path, sweep=r"(p\d)_")
    video = entry.open()
    assert [type(part).__name__ for part in video.parts] == [
        "FrameFolder",
        "VideoFile",
        "ImageStack",
    ]
    assert (entry.num_frames, video.times, entry.frame_rate) == (8, None, None)
    frames = video.frames(range(8))
    assert frames.shape == (8, 3, 16, 16)
    last = frames[7, 0]  # of twice the width: it fills half of the height
    assert (last[4:12] == 91).all() and (last[:4] == 0).all() and (last[12:] == 0).all()


def test_times_go_on_after_a_gap_of_one_frame(tmp_path: Path) -> None:
    gif(tmp_path / "x_1.gif", 10, count=3, milliseconds=50)
    gif(tmp_path / "x_2.gif", 60, count=2, milliseconds=100)
    (entry,) = VideoCatalog.scan(tmp_path, sweep="(x)_")
    assert np.allclose(entry.open().times, [0, 0.05, 0.1, 0.15, 0.25])
    assert entry.frame_rate == pytest.approx(5 / 0.35)
    frames = FrameDataset(VideoCatalog.scan(tmp_path, sweep="(x)_"), time_unit="seconds")
    assert [round(frames[i].time, 3) for i in range(5)] == [0, 0.05, 0.1, 0.15, 0.25]


@pytest.mark.parametrize("sampler", [DenseSampler(2, 8), FrameSampler(anchor_range=(0, 1))])
def test_positives_are_of_the_clip_of_their_anchor(tmp_path: Path, sampler: Sampler) -> None:
    for name, count in (("a_1", 7), ("a_2", 1), ("a_3", 2), ("a_4", 30), ("b_1", 20)):
        folder(tmp_path / name, 10, count)
    catalog = VideoCatalog.scan(tmp_path, sweep="([ab])_")
    bounds, plain = PartBounds(catalog.entries), PartBounds(VideoCatalog.scan(tmp_path).entries)
    lengths, windows = [e.num_frames for e in catalog], [(8.0, 20.0)] * 2
    moved = 0
    for step in range(sampler.steps(lengths) * 60):
        epoch, step = divmod(step, sampler.steps(lengths))
        drawn = sampler.draw(lengths, windows, seed=0, epoch=epoch, step=step)
        kept = bounds.keep_positives_within(drawn)
        assert plain.keep_positives_within(drawn) is drawn
        for video, anchor, before, after in zip(
            drawn.video, drawn.anchor, drawn.positive, kept.positive, strict=True
        ):
            entry = catalog.entries[video]
            here, there, then = entry.part_numbers([anchor, after, before])
            assert here == there and abs(after - anchor) <= 3
            assert after == before if here == then else after != before
            alone = entry.parts[here].video.num_frames == 1
            assert (after == anchor) == alone
            moved += here != then
    assert moved


def test_where_any_frame_of_a_video_is_a_positive_clips_do_not_matter(tmp_path: Path) -> None:
    for name in ("a_1", "a_2"):
        folder(tmp_path / name, 10, 6)
    catalog = VideoCatalog.scan(tmp_path, sweep="(a)_")
    drawn = FrameBatches(catalog, UniformSampler(12, 12)).draw(0, 0)
    assert ((drawn.anchor < 6) != (drawn.positive < 6)).any()
    near = FrameBatches(catalog, UniformSampler(12, 5)).draw(0, 0)
    assert ((near.anchor < 6) == (near.positive < 6)).all()


def test_near_frames_are_of_the_same_clip() -> None:
    similarity, frames = np.array([0.9, 0.05, 0.1]), np.array([2, 4, 20])
    elsewhere = np.array([0.5])
    apart = query_auroc(similarity, 3, frames, 21, elsewhere, np.array([True, False, False]))
    joint = query_auroc(similarity, 3, frames, 21, elsewhere)
    assert (joint["temporal"], apart["temporal"]) == (0.5, 1.0)
    assert joint["same_video"] == apart["same_video"]


def test_patients_in_dicom_files_are_those_of_sweeps_too(tmp_path: Path) -> None:
    for name, patient in (("x1_a", "P1"), ("x1_b", "P1"), ("x2_a", "P2")):
        pixels = np.full((3, 16, 24), len(name), dtype=np.uint8)
        write(tmp_path / f"{name}.dcm", pixels, PatientID=patient)
    folder(tmp_path / "x2_b", 10, size=(16, 16))
    catalog = VideoCatalog.scan(tmp_path, sweep=r"(x\d)_")
    assert [(e.id, e.group, e.patient_known) for e in catalog] == [
        ("x1", "P1", True),
        ("x2", "P2", True),
    ]
    assert [type(p).__name__ for p in catalog.entries[1].open().parts] == [
        "DicomVideo",
        "FrameFolder",
    ]
    renamed = catalog.with_patients(r"(x\d)_")
    assert [e.group for e in renamed] == ["x1", "x2"]
    with pytest.raises(ValueError, match=r"patient must be the same .* 'P1' and 'P2'"):
        VideoCatalog.scan(tmp_path).with_sweeps("(x)")

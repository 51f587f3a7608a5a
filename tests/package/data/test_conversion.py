"""Conversion loses nothing, whatever the folder, the shards and the interruptions."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import usucl.data.conversion.writing as writing
from tests.helpers.tiny_dicom import SYNTAXES
from tests.helpers.tiny_dicom import write as write_dicom
from usucl.cli import main
from usucl.data import VideoCatalog, VideoError, open_video
from usucl.data.conversion import Conversion, Shard, convert
from usucl.data.conversion.layout import names, places
from usucl.data.transforms import resize_short_side
from usucl.data.video.images.times import read_times


def write_folder(folder: Path, *, frames: int = 3, shade: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(shade)
    for i in range(frames):
        Image.fromarray(rng.integers(0, 256, (16, 24), dtype=np.uint8)).save(folder / f"{i}.png")


def write_mp4(path: Path, *, frames: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 32, 24
        for i in range(frames):
            picture = np.full((24, 32, 3), 20 * i, dtype=np.uint8)
            picture[:, :16, 1] = 90
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Nested and mixed: two clips of one name, and two that differ by their suffix alone."""
    root = tmp_path / "archive"
    write_folder(root / "p1" / "clip", shade=1)
    write_folder(root / "p2" / "clip", shade=2)
    write_mp4(root / "p2" / "b.mp4")
    write_mp4(root / "p2" / "b.avi", frames=4)
    write_folder(root / "alone", shade=3)
    (root / "labels.csv").write_text(
        "Video ID,label,patient,note\np1/clip,x,,1\np2\\clip,y,q,2\nalone,x,,3\np2/b.avi,y,,4\n"
    )
    (root / "frame_labels.csv").write_text(
        "video_id,frame,label\nalone,0,u\nalone,1,v\nalone,2,v\n"
    )
    return root


def same(before: VideoCatalog, after: VideoCatalog, *, size: int | None = None) -> None:
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert (a.label, a.frame_labels, a.num_frames) == (b.label, b.frame_labels, b.num_frames)
        assert (a.patient_known, a.fold) == (b.patient_known, b.fold)
        assert not a.patient_known or a.group == b.group
        one, other = a.open(), b.open()
        frames = one[:] if size is None else resize_short_side(one[:], size)
        assert torch.equal(frames, other[:])
        assert (one.times is None) == (other.times is None)
        if one.times is not None and other.times is not None:
            assert np.array_equal(one.times, other.times)
            assert one.frame_rate == pytest.approx(other.frame_rate)


@pytest.mark.parametrize("to", ["frames", "store"])
@pytest.mark.parametrize("size", [None, 12])
def test_folders_names_times_and_tables_are_kept(
    archive: Path, tmp_path: Path, to: str, size: int | None
) -> None:
    out = tmp_path / "out"
    options = [] if size is None else ["--size", str(size)]
    words = ["data", "convert", str(archive), "--out", str(out), "--to", to, *options]
    assert main([*words, "--jobs", "2"]) == 0
    suffix = ".safetensors" if to == "store" else ""
    for place in ("p1/clip", "p2/clip", "p2/b.mp4", "p2/b.avi", "alone"):
        assert (out / f"{place}{suffix}").exists()
    before = VideoCatalog.scan(archive, patient_pattern="^(p[0-9]|alone)")
    after = VideoCatalog.scan(out, patient_pattern="^(p[0-9]|alone)")
    same(before, after, size=size)
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("*/*") if file.is_file()}
    assert main(words) == 0
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    other = "frames" if to == "store" else "store"
    assert main([*words[:6], other, *options]) == 2


def test_patients_that_names_or_headers_tell_go_into_the_table(
    archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pattern = ["--patient-pattern", "^(p1|alone)"]
    assert main(["data", "convert", str(archive), "--out", str(out), *pattern]) == 0
    rows = (out / "labels.csv").read_text().splitlines()
    assert rows == [
        "Video ID,label,patient,note",
        "p1/clip,x,p1,1",
        "p2/clip,y,q,2",
        "alone,x,alone,3",
        "b.avi,y,,4",
    ]
    (archive / "labels.csv").unlink()
    assert main(["data", "convert", str(archive), "--out", f"{out}2", *pattern]) == 0
    assert (tmp_path / "out2" / "labels.csv").read_text().splitlines() == [
        "video_id,label,patient",
        "alone,,alone",
        "p1/clip,,p1",
    ]
    groups = {e.id: e.group for e in VideoCatalog.scan(tmp_path / "out2") if e.patient_known}
    assert groups == {"p1/clip": "p1", "alone": "alone"}


def test_sweeps_stay_parts(archive: Path, tmp_path: Path) -> None:
    (archive / "labels.csv").unlink()
    (archive / "frame_labels.csv").unlink()
    (archive / "sweeps.csv").write_text("sweep_id,part,order\ns,p2/clip,2\ns,p1/clip,1\n")
    for to in ("frames", "store"):
        out = tmp_path / to
        assert main(["data", "convert", str(archive), "--out", str(out), "--to", to]) == 0
        same(VideoCatalog.scan(archive), after := VideoCatalog.scan(out))
        assert [entry.num_frames for entry in after if entry.id == "s"] == [6]


def test_a_folder_of_frames_may_hold_videos_and_be_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, place in enumerate([".", "a", "a/b", "a/b/c", "root"]):
        write_folder(root / place, shade=number)
    out = tmp_path / "out"
    assert main(["data", "convert", str(root), "--out", str(out)]) == 0
    pixels = sorted(entry.open()[:].sum().item() for entry in VideoCatalog.scan(root))
    assert sorted(entry.open()[:].sum().item() for entry in VideoCatalog.scan(out)) == pixels
    found = places(root, VideoCatalog.scan(root).entries)
    assert len(set(found)) == 5 and len(set(names(found))) == 5
    assert not any(one in other.parents for one in found for other in found)


def test_two_shards_are_one_run(archive: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = ["data", "convert", str(archive), "--to", "store", "--size", "12"]
    assert main([*words, "--out", str(one)]) == 0
    for part in ("1/2", "0/2", "1/2"):
        assert main([*words, "--out", str(two), "--shard", part]) == 0
    files = [
        sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file()) for out in (one, two)
    ]
    assert files[0] == files[1]
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files[0])


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/0", ""])
def test_shards_are_checked(archive: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", str(archive), "--out", "x", f"--shard={text}"]) == 2
    assert "--shard must be I/N with I from 0 to N - 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="I/N"):
        Shard.parse(text)


def test_every_video_is_in_one_shard() -> None:
    shards = [Shard(i, 7) for i in range(7)]
    counts = [sum(f"video{n}" in shard for n in range(700)) for shard in shards]
    assert sum(counts) == 700 and min(counts) > 60


def test_a_video_that_fails_is_told_and_the_others_are_converted(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = VideoCatalog.scan(archive)
    (archive / "alone" / "1.png").write_bytes(b"\x89PNG")
    done = convert(catalog, tmp_path / "out", Conversion())
    assert (done.written, done.before, len(done.failed)) == (4, 0, 1)
    ((path, reason),) = done.failed
    assert path == archive / "alone" and reason.startswith("1.png")
    left = [p.name for p in (tmp_path / "out").iterdir()]
    assert sorted(left) == ["conversion.json", "frame_labels.csv", "labels.csv", "p1", "p2"]


@pytest.mark.parametrize("to", ["frames", "store"])
def test_a_full_disk_ends_the_conversion_and_leaves_whole_videos(
    archive: Path, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    written: list[int] = []
    real = writing.interruptible

    def full(*args: Any) -> Any:
        for frame in real(*args):
            written.append(1)
            if len(written) > 7:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield frame

    monkeypatch.setattr("usucl.data.conversion.conversion.interruptible", full)
    words = ["data", "convert", str(archive), "--out", str(out), "--to", to]
    assert main([*words, "--jobs", "3"]) == 2
    assert not [p for p in out.rglob("*") if "unfinished" in p.name or p.suffix == ".tmp"]
    monkeypatch.undo()
    assert main(words) == 0
    same(VideoCatalog.scan(archive), VideoCatalog.scan(out))


def _slowly(archive: Path, out: Path, to: Any) -> None:
    real = writing.interruptible

    def slow(*args: Any) -> Any:
        for number, frame in enumerate(real(*args)):
            if number == 2:
                time.sleep(30)
            yield frame

    import usucl.data.conversion.conversion as conversion

    conversion.interruptible = slow
    convert(VideoCatalog.scan(archive), out, Conversion(to=to), jobs=2)


@pytest.mark.parametrize("to", ["frames", "store"])
def test_a_conversion_that_was_killed_goes_on(archive: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=_slowly, args=(archive, out, to))
    process.start()
    while len(list(out.glob("**/.*"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert main(["data", "convert", str(archive), "--out", str(out), "--to", to]) == 0
    same(VideoCatalog.scan(archive), VideoCatalog.scan(out))
    assert not list(out.glob("**/.*"))


def test_other_options_are_refused(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "convert", str(archive), "--out", str(tmp_path / "out"), "--to", "store"]
    assert main([*words, "--size", "12"]) == 0
    capsys.readouterr()
    assert main(words) == 2
    assert "already exists and was made with size 12, not None" in capsys.readouterr().err
    assert main([*words, "--size", "12", "--preview"]) == 2
    assert "--preview must be given with --crop sector or --mask" in capsys.readouterr().err


def test_what_cannot_fit_on_the_disk_is_not_begun(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    words = ["data", "convert", str(archive), "--out", str(tmp_path / "out"), "--to", "store"]
    assert main(words) == 2
    assert "0.0 MB are free: give a smaller size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--size", "8"]) == 0


@pytest.mark.parametrize("to", ["frames", "store"])
def test_dicom_loops_keep_times_and_patients(tmp_path: Path, to: str) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for number, patient in enumerate("ab"):
        frames = np.random.default_rng(number).integers(0, 256, (4, 16, 24), dtype=np.uint8)
        (root / f"study{patient}").mkdir(parents=True)
        more = {"FrameTime": "40", "PatientID": f"id-{patient}"}
        write_dicom(root / f"study{patient}" / "IM0001", frames, syntax=SYNTAXES["rle"], **more)
    assert main(["data", "convert", str(root), "--out", str(out), "--to", to]) == 0
    before, after = VideoCatalog.scan(root), VideoCatalog.scan(out)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a.open()[:], b.open()[:])
        assert np.array_equal(a.open().times, b.open().times) and b.open().frame_rate == 25
    assert [(entry.group, entry.patient_known) for entry in after] == [
        ("id-a", True),
        ("id-b", True),
    ]


def test_times_beside_frames_are_checked(tmp_path: Path) -> None:
    write_folder(tmp_path / "v")
    table = tmp_path / "v" / "times.csv"
    assert read_times(tmp_path / "v", ["0.png"]) is None
    table.write_text("frame,seconds,note\n0.png,1.5,a\n1.png,1.75,\n2.png,2.5,\n")
    video = open_video(tmp_path / "v")
    assert video.times is not None and video.times.tolist() == [0, 0.25, 1]
    assert video.frame_rate == 2
    for text, said in (
        ("frame,seconds\n0.png,0\n1.png,1\n", "has no row for 2.png"),
        ("frame,seconds\n0.png,0\n1.png,1\n2.png,1\n", "must increase"),
        ("frame,seconds\n0.png,0\n1.png,nan\n2.png,1\n", "must increase"),
        ("frame,time\n0.png,0\n", "must have the columns frame, seconds"),
        ("frame,seconds\n0.png,x\n", "cannot be read"),
        ("frame,seconds\n0.png\n", "must have the columns"),
    ):
        table.write_text(text)
        with pytest.raises(VideoError, match=said):
            open_video(tmp_path / "v")


def write_scan(folder: Path, *, moving: bool = True) -> None:
    """A sector that moves, below a name that does not."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:96, :128]
    inside = (abs(x - 64) < (y - 20) * 0.7 + 8) & (np.hypot(x - 64, y - 10) < 78) & (y > 24)
    for i in range(6):
        picture = np.zeros((96, 128), dtype=np.uint8)
        picture[6:12, 8:50:2] = 250
        if moving:
            picture[inside] = rng.integers(40, 200, inside.sum())
        Image.fromarray(picture if moving else picture * 0).save(folder / f"{i}.png")


@pytest.mark.parametrize("to", ["frames", "store"])
def test_the_sector_is_cropped_and_all_else_becomes_black(tmp_path: Path, to: str) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    write_scan(root / "scan")
    words = ["data", "convert", str(root), "--out", str(out), "--crop", "sector", "--mask"]
    assert main([*words, "--preview"]) == 0
    assert [file.name for file in out.iterdir()] == ["sectors.html"]
    for _ in range(2):
        assert main([*words, "--to", to]) == 0
        page = (out / "sectors.html").read_text()
        assert page.count("<img ") == 2 and "128x96, sector" in page
    before, after = (VideoCatalog.scan(folder).entries[0].open() for folder in (root, out))
    assert after.height < before.height and after.width < before.width
    assert not after[:][..., :5, :5].any() and before[:][..., 6:12, 8:50].any()
    middle = after[:][..., after.height // 2, after.width // 2]
    assert (middle > 0).all()


def test_what_is_masked_keeps_its_place(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    write_scan(root / "scan")
    assert main(["data", "convert", str(root), "--out", str(out), "--mask"]) == 0
    before, after = (VideoCatalog.scan(folder).entries[0].open()[:] for folder in (root, out))
    assert before.shape == after.shape
    kept = after > 0
    assert torch.equal(after[kept], before[kept]) and not after[..., 6:12, 8:50].any()
    assert kept.float().mean() > 0.9 * (before > 0).float().mean() - 0.02


def test_a_video_without_a_sector_is_not_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    write_scan(root / "scan")
    write_scan(root / "black", moving=False)
    assert main(["data", "convert", str(root), "--out", str(out), "--crop", "sector"]) == 1
    said = capsys.readouterr()
    assert f"not converted: {root / 'black'}: no ultrasound sector was found in it" in said.err
    assert "1 videos written" in said.out and not (out / "black").exists()
    assert "no ultrasound sector" in (out / "sectors.html").read_text()


@pytest.mark.parametrize("to", ["frames", "store"])
def test_what_headers_say_of_everybody_stays_no_patient(tmp_path: Path, to: str) -> None:
    (tmp_path / "in").mkdir()
    loop = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    for number, patient in enumerate(["ANONYMOUS", "ANONYMOUS", "0", "7"]):
        write_dicom(tmp_path / "in" / f"{number}.dcm", loop + number, PatientID=patient)
    source, out = VideoCatalog.scan(tmp_path / "in"), tmp_path / "out"
    convert(source, out, Conversion(to=to))  # type: ignore[arg-type]
    patients = [(entry.group, entry.patient_known) for entry in VideoCatalog.scan(out)]
    assert patients == [(entry.group, entry.patient_known) for entry in source]
    assert patients == [("0", False), ("1", False), ("2", False), ("7", True)]


def test_a_table_that_would_change_is_told_with_a_way_out(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(VideoCatalog.scan(archive), out)
    table = archive / "labels.csv"
    table.write_text(table.read_text().replace("alone,x", "alone,y"))
    with pytest.raises(FileExistsError, match=r"labels\.csv already exists .* remove it"):
        convert(VideoCatalog.scan(archive), out)
    (out / "labels.csv").unlink()
    assert convert(VideoCatalog.scan(archive), out).written == 0


@pytest.mark.parametrize("to", ["frames", "store"])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, to: str) -> None:
    write_mp4(tmp_path / "in" / f"{'x' * 235}.mp4")
    source, out = VideoCatalog.scan(tmp_path / "in"), tmp_path / "out"
    assert convert(source, out, Conversion(to=to)).written == 1  # type: ignore[arg-type]
    assert convert(source, out, Conversion(to=to)).before == 1  # type: ignore[arg-type]
    same(source, VideoCatalog.scan(out))

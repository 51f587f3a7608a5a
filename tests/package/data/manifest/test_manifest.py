"""What a scan found out is kept for the next, and believed only as long as it is true."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
from archives import lines_of_manifest, moving, stills
from PIL import Image
from runs import make_data, make_run
from tiny_videos import write

import usucl
from usucl.data import Video, VideoCatalog, VideoError, open_video
from usucl.data.catalog.scanning import manifest, scan, search
from usucl.data.video import video_facts


def assert_same(a: VideoCatalog, b: VideoCatalog) -> None:
    """Two catalogues and their videos are equal, all frames included."""
    assert a == b and a.notes == b.notes
    for one, other in zip(a, b, strict=True):
        assert one.summary == other.summary and one.summary is not None
        video, again = one.open(), other.open()
        assert video_facts(video) == video_facts(again)
        assert video[:].equal(again[:]), one.id


def test_a_second_scan_reads_nothing_and_finds_the_same(archive: Path, read: list[str]) -> None:
    first = VideoCatalog.scan(archive)
    assert {"frames", "clip.avi", "loop.tif", "loop.gif", "broken.mp4", "odd.xyz"} <= set(read)
    read.clear()
    second = VideoCatalog.scan(archive)
    assert [e.id for e in second] == ["clip", "loop.gif", "loop.tif", "frames"]
    assert_same(first, second)
    assert read == []
    assert {s.path.name: s.reason for s in second.skipped}["short.avi"].startswith("too short")
    assert len(VideoCatalog.scan(archive, min_frames=1)) == 5 and read == []


def test_only_what_changed_is_read(archive: Path, read: list[str]) -> None:
    VideoCatalog.scan(archive)
    write(archive / "clip.avi", moving(6, 16, 24))
    Image.fromarray(moving(4, 16, 24)[3]).save(archive / "site" / "frames" / "3.png")
    shutil.copy(archive / "loop.gif", archive / "new.gif")
    (archive / "loop.tif").unlink()
    read.clear()
    catalog = VideoCatalog.scan(archive)
    assert {e.id: e.num_frames for e in catalog} == {"clip": 6, "loop": 3, "new": 3, "frames": 4}
    pictures = {"0.png", "1.png", "2.png", "3.png"}
    assert set(read) == {"clip.avi", "frames", "new.gif"} | pictures
    read.clear()
    assert_same(catalog, VideoCatalog.scan(archive))
    assert read == []


@pytest.mark.parametrize("change", ["permission", "time", "name"])
def test_files_of_the_same_size_are_told_apart(archive: Path, read: list[str], change: str) -> None:
    clip, other = archive / "clip.avi", archive / "other.avi"
    write(other, moving(4, 16, 24, seed=5))
    size, times = max(clip.stat().st_size, other.stat().st_size), (10**9, 10**9)
    for file in (clip, other):
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        os.utime(file, times)
    before = {e.id: e.summary for e in VideoCatalog.scan(archive)}
    read.clear()
    time.sleep(0.02)  # longer than a tick of the clock of file systems
    if change == "permission":
        clip.chmod(0o600)
    elif change == "time":
        clip.write_bytes(other.read_bytes())
        os.utime(clip, times)
    else:
        for old, new in (("clip", "x"), ("other", "clip"), ("x", "other")):
            (archive / f"{old}.avi").rename(archive / f"{new}.avi")
    after = {e.id: e.summary for e in VideoCatalog.scan(archive)}
    assert "clip.avi" in read
    expected = {
        "permission": before["clip"],
        "time": before["other"],
        "name": before["other"],
    }
    assert after["clip"] == expected[change]


@pytest.mark.parametrize("place", ["clip.avi", "site/frames"])
def test_new_files_are_compared_by_contents(
    archive: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, cache: Path, place: str
) -> None:
    monkeypatch.setattr(manifest, "YOUNG", 3600 * 10**9)
    first = VideoCatalog.scan(archive)
    read.clear()
    assert_same(first, VideoCatalog.scan(archive))
    assert read == []
    path = archive / place
    file = path / "1.png" if path.is_dir() else path
    as_it_was = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    with file.open("rb+") as there:
        there.write(content)
    _pretend(monkeypatch, file, as_it_was)
    VideoCatalog.scan(archive)
    assert path.name in read


def _pretend(monkeypatch: pytest.MonkeyPatch, file: Path, status: os.stat_result) -> None:
    """Lets a file's times be as they were, as within a tick of a coarse clock."""
    of_file, of_images = search.stamp_of_file, search.stamp_of_images
    now = file.stat()

    def one(found: os.stat_result) -> object:
        return of_file(status if found.st_mtime_ns == now.st_mtime_ns else found)

    def several(found: dict[str, os.stat_result]) -> object:
        then = {
            name: status if f.st_mtime_ns == now.st_mtime_ns else f for name, f in found.items()
        }
        return of_images(then)

    monkeypatch.setattr(search, "stamp_of_file", one)
    monkeypatch.setattr(search, "stamp_of_images", several)


def test_new_files_become_old(
    archive: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(manifest, "YOUNG", 3600 * 10**9)
    VideoCatalog.scan(archive)
    _, young = lines_of_manifest(cache)
    assert all(json.loads(line)["contents"] for line in young[1:])
    monkeypatch.setattr(manifest, "YOUNG", -3600 * 10**9)
    read.clear()
    VideoCatalog.scan(archive)
    _, old = lines_of_manifest(cache)
    assert read == [] and len(old) == len(young)
    videos = [line for line in map(json.loads, old[1:]) if "video" in line["found"]]
    assert len(videos) == 5 and not any(line["contents"] for line in videos)


def test_files_of_the_future_are_compared_by_contents(
    archive: Path, read: list[str], cache: Path
) -> None:
    late = time.time() + 10**6
    os.utime(archive / "clip.avi", (late, late))
    VideoCatalog.scan(archive)
    contents = {
        record["name"]: record["contents"]
        for record in map(json.loads, lines_of_manifest(cache)[1][1:])
        if record["found"].keys() != {"stacks"}
    }
    assert [name for name, digest in contents.items() if digest] == ["clip.avi"]
    read.clear()
    VideoCatalog.scan(archive)
    assert read == []


@pytest.mark.parametrize("what", ["version", "library", "code"])
def test_other_versions_start_anew(
    archive: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    VideoCatalog.scan(archive)
    if what == "version":
        monkeypatch.setattr(manifest, "FORMAT", "usucl manifest 0")
    elif what == "library":
        monkeypatch.setattr(manifest, "version_of", lambda name: "0")
    else:
        monkeypatch.setattr(manifest, "_code", lambda: "other")
    read.clear()
    VideoCatalog.scan(archive)
    assert {"frames", "clip.avi", "loop.tif", "loop.gif"} <= set(read)


def test_the_policy_and_the_limits_count(
    archive: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive / "site" / "frames" / "1.png").write_bytes(b"\x89PNG")
    skip, keep = VideoCatalog.scan(archive), VideoCatalog.scan(archive, damaged="keep")
    assert (len(skip), len(keep)) == (3, 4)
    assert "1 of 3 images are broken" in str(keep.entries[3].open().damage)
    assert read.count("clip.avi") == 1 and read.count("frames") == 2  # a whole video is either's
    read.clear()
    for damaged, expected in (("skip", skip), ("keep", keep)):
        assert_same(VideoCatalog.scan(archive, damaged=damaged), expected)  # type: ignore[arg-type]
    assert read == []
    monkeypatch.setenv("USUCL_MAX_FRAMES", "3")
    reasons = [s.reason for s in VideoCatalog.scan(archive).skipped]
    assert sum("USUCL_MAX_FRAMES" in reason for reason in reasons) == 2
    monkeypatch.delenv("USUCL_MAX_FRAMES")
    read.clear()
    assert VideoCatalog.scan(archive) == skip
    assert read == []


def test_the_root_is_the_same_however_it_is_spelled(
    archive: Path, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    VideoCatalog.scan(archive)
    (tmp_path / "link").symlink_to(archive)
    monkeypatch.chdir(archive)
    read.clear()
    for root in (tmp_path / "link", Path("."), Path("../archive"), f"{archive}/site/.."):
        assert len(VideoCatalog.scan(root)) == 4 and read == []
    assert len(list((cache / "catalogs").iterdir())) == 1
    stills(tmp_path / "other" / "v", 2)
    VideoCatalog.scan(tmp_path / "other")
    assert len(list((cache / "catalogs").iterdir())) == 2


def test_a_video_that_changed_since_is_an_error(archive: Path) -> None:
    VideoCatalog.scan(archive)
    clip, *_, folder = VideoCatalog.scan(archive)
    again = VideoCatalog.scan(archive)
    assert again.entries[0].open() is again.entries[0].open()
    write(archive / "clip.avi", moving(9, 16, 24))
    (archive / "site" / "frames" / "2.png").unlink()
    for changed in (clip, folder):
        with pytest.raises(VideoError, match=r"(clip.avi|frames): the file was changed after"):
            changed.open()
    assert len(again.entries[0].open()) == 4  # it was looked at before


def test_nothing_is_kept_of_what_may_pass(
    archive: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    trouble = f"cannot be decoded ({os.strerror(5)})"

    def failing(path: Path, **_: object) -> Video:
        if path.suffix == ".avi":
            raise VideoError(path, trouble)
        return open_video(path)

    with monkeypatch.context() as patched:
        patched.setattr(scan, "open_video", failing)
        catalog = VideoCatalog.scan(archive)
        assert [s.reason for s in catalog.skipped].count(trouble) == 2
    assert trouble.encode() not in b"".join(lines_of_manifest(cache)[1])
    assert len(VideoCatalog.scan(archive)) == 4


def test_a_scan_that_is_interrupted_keeps_what_it_has(
    archive: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(path: Path, **options: object) -> Video:
        if path.name == "frames":
            raise KeyboardInterrupt
        return open_video(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(scan, "open_video", stopping)
        VideoCatalog.scan(archive)
    read.clear()
    assert len(VideoCatalog.scan(archive)) == 4
    assert read == ["frames"]


def test_restored_entries_go_to_other_processes(archive: Path) -> None:
    VideoCatalog.scan(archive)
    catalog = VideoCatalog.scan(archive)
    entries = pickle.loads(pickle.dumps(catalog.entries))
    shapes = [tuple(e.open().frames(range(e.num_frames)).shape) for e in entries]
    assert shapes == [(e.num_frames, 3, 16, 24) for e in catalog]


def test_commands_share_it(tmp_path: Path, read: list[str]) -> None:
    data = make_data(tmp_path / "data", videos=4, frames=3)
    run = make_run(tmp_path / "run", data)
    read.clear()
    usucl.embed(run=run, data=data, out=tmp_path / "embedded")
    assert len(read) == 0
    (data / "video_1" / "2.png").unlink()
    usucl.embed(run=run, data=data, out=tmp_path / "again")
    assert set(read) == {"video_1", "0.png", "1.png"}

"""Where a manifest is kept, and what becomes of it: damage, several processes, no place."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from archives import lines_of_manifest, stills

from usucl._environment import cache_folder
from usucl.data import VideoCatalog
from usucl.data.catalog.scanning import manifest, search


def test_damaged_and_foreign_lines_are_read_anew(
    archive: Path, read: list[str], cache: Path
) -> None:
    first = VideoCatalog.scan(archive)
    file, lines = lines_of_manifest(cache)
    for index in range(len(lines)):
        for change in ("digit", "cut", "gone", "foreign"):
            line = lines[index]
            middle = len(line) // 2
            changed = {
                "digit": line[:middle] + bytes([line[middle] ^ 1]) + line[middle + 1 :],
                "cut": line[:middle],
                "gone": b"",
                "foreign": b'{"a": 1}\n\xff\xfe[1, 2]\nnull\n\n',
            }[change]
            file.write_bytes(b"".join((*lines[:index], changed, *lines[index + 1 :])))
            read.clear()
            assert VideoCatalog.scan(archive) == first
            assert len(read) <= 4 or index == 0, (line, read)  # a line is of one thing
            missing = set(lines) - set(lines_of_manifest(cache)[1])
            assert all(json.loads(line)["found"] == {} for line in missing)  # told elsewhere too
            file.write_bytes(b"".join(lines))
    file.write_bytes(b"\0" * 5000)
    assert VideoCatalog.scan(archive) == first


def test_lines_that_nothing_can_be_made_of_are_read_anew(archive: Path, cache: Path) -> None:
    first = VideoCatalog.scan(archive)
    file, lines = lines_of_manifest(cache)
    for change in (
        {"video": {}},
        {"video": {"kind": "Nothing"}, "summary": {}},
        {"video": {"kind": "VideoFile"}, "summary": None},
        {},
    ):
        broken = [lines[0].rstrip()]
        for line in lines[1:]:
            record = json.loads(line)
            key = record.pop("key").encode()
            del record["sum"]
            if "video" in record["found"]:
                record["found"] = change
            broken.append(manifest._line(key, record))
        file.write_bytes(b"\n".join(broken) + b"\n")
        assert VideoCatalog.scan(archive) == first


def test_two_processes_at_once(archive: Path, cache: Path) -> None:
    for i in range(12):
        stills(archive / "more" / f"v{i}", 2, seed=i)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        counts = list(pool.map(_count, [archive] * 4))
    assert counts == [16] * 4
    file, lines = lines_of_manifest(cache)
    assert len(lines) == len(set(lines)) and [p.name for p in file.parent.iterdir()] == [file.name]
    for line in lines[1:]:
        assert manifest._sum(line.rstrip()) == line[manifest._SUM]


def _count(root: Path) -> int:
    return len(VideoCatalog.scan(root))


def test_what_another_process_adds_in_the_meantime_stays(archive: Path, cache: Path) -> None:
    mine, other = manifest.Manifest.of(archive), manifest.Manifest.of(archive)
    for one, name in ((mine, "clip.avi"), (other, "loop.tif")):
        stamp = search.stamp_of_file((archive / name).stat())
        one.put(name, stamp, "c", {"n": name}, None)
        one.save(whole=False)
    new = manifest.Manifest.of(archive)
    for name in ("clip.avi", "loop.tif"):
        stamp = search.stamp_of_file((archive / name).stat())
        assert new.get(name, stamp, "c") == {"n": name} and new.get(name, stamp, "d") is None


@pytest.mark.parametrize("why", ["a file", "no folder", "full"])
def test_a_cache_that_cannot_be_used_is_no_error(
    archive: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    if why == "a file":
        cache.write_text("in the way")
    elif why == "no folder":
        monkeypatch.setenv("USUCL_CACHE", "/proc/nothing/here")
    else:

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, os.strerror(28), str(path))

        monkeypatch.setattr(manifest, "write_atomically", full)
    with caplog.at_level(logging.WARNING):
        assert len(VideoCatalog.scan(archive)) == 4
    assert len(caplog.records) == 1 and "read again" in caplog.text


def test_it_can_be_turned_off(
    archive: Path, read: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for told in ("", "off"):
        monkeypatch.setenv("USUCL_CACHE", told)
        VideoCatalog.scan(archive)
    monkeypatch.setenv("USUCL_CACHE", str(cache))
    VideoCatalog.scan(archive, manifest=False)
    assert not cache.exists() and read.count("clip.avi") == 3


def test_it_is_not_kept_among_the_data(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(archive.rglob("*"))
    for place in (archive, archive / "site", archive / "new" / "cache"):
        monkeypatch.setenv("USUCL_CACHE", str(place))
        VideoCatalog.scan(archive)
    assert sorted(archive.rglob("*")) == before
    monkeypatch.setenv("USUCL_CACHE", str(archive / ".cache"))  # as in a home of data
    VideoCatalog.scan(archive)
    assert (archive / ".cache" / "catalogs").is_dir()


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("USUCL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "usucl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "usucl"


def test_other_users_cannot_look_into_it(archive: Path, cache: Path) -> None:
    VideoCatalog.scan(archive)
    assert (cache / "catalogs").stat().st_mode & 0o077 == 0  # names of files may name patients

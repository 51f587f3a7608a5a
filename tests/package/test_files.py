"""Sealed files: whole or an error that names the file, whatever bit of them is changed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from usucl import _files
from usucl._files import DamagedFileError, check_seal, read_json, read_tensors, replacing, seal
from usucl._safetensors import DTYPES

TABLE = {"labels": ["é", None, 0.5], "count": 3}
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


def _json(path: Path) -> None:
    _files.write_json(path, TABLE)


def _tensors(path: Path) -> None:
    _files.write_tensors(path, TENSORS, {"format": "test-1"})


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("entry", b"content")
        archive.comment = _files.SEAL.encode()
    seal(path)


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "json": (_json, read_json),
    "safetensors": (_tensors, read_tensors),
    "zip": (_archive, check_seal),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_changed_bit_and_every_cut_is_an_error_that_names_the_file(
    name: str, tmp_path: Path
) -> None:
    write, read = FORMATS[name]
    whole, damaged = tmp_path / f"whole.{name}", tmp_path / f"damaged.{name}"
    write(whole)
    read(whole)
    content = whole.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=damaged.name):
            read(damaged)
    for length in range(len(content) - 1):  # a final newline of JSON has no meaning
        damaged.write_bytes(content[:length])
        if name != "zip" or zipfile.is_zipfile(damaged):
            with pytest.raises(DamagedFileError, match=damaged.name):
                read(damaged)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_in_several_places_does_not_hide_the_seal(name: str, tmp_path: Path) -> None:
    write, read = FORMATS[name]
    file = tmp_path / f"damaged.{name}"
    write(file)
    content = file.read_bytes()
    words, digits = content.index(b"by usucl"), content.index(b"sha256 ") + 20
    file.write_bytes(
        content[: words + 1] + b"9" + content[words + 2 : digits] + b"s" + content[digits + 1 :]
    )
    with pytest.raises(DamagedFileError, match=file.name):
        read(file)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    _json(tmp_path / "a.json")
    _tensors(tmp_path / "a.safetensors")
    assert read_json(tmp_path / "a.json") == TABLE
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "test-1"}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_and_layout_are_written(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = torch.arange(-60, 60).reshape(4, 5, 6).to(dtype)
    tensors = {
        "flag": torch.tensor(True),  # one byte in front of larger elements
        "whole": whole,
        "turned": whole.transpose(0, 2)[::2],
        "repeated": whole[0, 0].expand(3, -1),
        "empty": whole[:0],
        "parameter": torch.nn.Parameter(whole, requires_grad=dtype.is_floating_point),
    }
    _files.write_tensors(tmp_path / "a.safetensors", tensors, {"name": 'ü "quoted"'})
    read, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"name": 'ü "quoted"'}
    assert {name: t.shape for name, t in read.items()} == {n: t.shape for n, t in tensors.items()}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_dtype_that_the_format_lacks_is_named(tmp_path: Path) -> None:
    tensors = {"phase": torch.zeros(2, dtype=torch.complex64)}
    with pytest.raises(TypeError, match=r"phase must have one of the dtypes .*, got .*complex64"):
        _files.write_tensors(tmp_path / "a.safetensors", tensors)
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_leaves_has_a_name_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own writer left files such as ``.tmppW93zt``, which nothing removed."""
    there: list[str] = []

    def listed(parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            there.extend(name.name for name in tmp_path.iterdir())
            yield part

    pieces = _files.pieces
    monkeypatch.setattr(_files, "pieces", lambda *args: listed(pieces(*args)))
    _tensors(tmp_path / "a.safetensors")
    half = _files.temporary_of(tmp_path / "a.safetensors")
    assert set(there) == {half.name}
    there.clear()
    with replacing(tmp_path / "a.safetensors") as temporary:
        _tensors(temporary)
    assert set(there) == {half.name, "a.safetensors"}


def test_who_writes_a_file_again_removes_what_killed_processes_left_of_it(tmp_path: Path) -> None:
    dead, here = 2**22 + 1, _files.HOST
    gone = [f".a.json.{dead}.tmp", f".a.json.{dead}@{here}.tmp"]
    kept = [f".a.json.{dead}@elsewhere.tmp", f".a.json.{os.getppid()}.tmp", ".a.json.mine.tmp"]
    kept += [f".b.json.{dead}.tmp"]
    for name in (*gone, *kept):
        (tmp_path / name).write_text("half")
    _json(tmp_path / "a.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *kept}
    assert not _files.is_empty(tmp_path)
    for name in ("a.json", *kept[:3]):
        (tmp_path / name).unlink()
    assert _files.is_empty(tmp_path)


def test_files_without_a_seal_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"count": 3}')
    safetensors.torch.save_file(TENSORS, tmp_path / "old.safetensors")
    assert read_json(tmp_path / "old.json") == {"count": 3}
    assert read_tensors(tmp_path / "old.safetensors")[1] == {}
    assert not check_seal(tmp_path / "old.json")


def test_a_seal_is_found_in_front_of_and_behind_much_else(tmp_path: Path) -> None:
    _files.write_json(tmp_path / "a.json", {"text": "x" * 200_000})
    _files.write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(100_000)})
    assert check_seal(tmp_path / "a.json")
    assert check_seal(tmp_path / "a.safetensors")


def test_a_write_that_fails_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    _json(path)
    with pytest.raises(OSError, match=r"a\.json"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert read_json(path) == TABLE
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]

"""Damaged files of a gallery: an error that names the file, never another result."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small_gallery import assert_same_gallery, interrupt

from usucl._files import DamagedFileError
from usucl.embedding import Embeddings
from usucl.gallery import Gallery
from usucl.gallery.contents import UNFINISHED, facts


@pytest.mark.parametrize("name", ["bank.json", "contents-*.json", "bank-*.safetensors"])
def test_a_changed_bit_or_a_cut_is_an_error_that_names_the_file(
    bank: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "bank"
    shutil.copytree(bank, out)
    (file,) = out.glob(name)
    content = file.read_bytes()
    for number in range(0, 8 * len(content), 8 * len(content) // 300 | 1):
        changed = bytearray(content)
        changed[number // 8] ^= 1 << number % 8
        file.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=file.name):
            Gallery.open(out)
    for length in range(0, len(content) - 1, len(content) // 30):
        file.write_bytes(content[:length])
        with pytest.raises(DamagedFileError, match=file.name):
            Gallery.open(out)
    file.write_bytes(content)
    assert_same_gallery(bank, out)


def _unsealed(file: Path, **changes: Any) -> None:
    table = json.loads(file.read_text())
    del table["seal"]
    file.write_text(json.dumps({**table, **changes}))


def test_files_without_seals_are_read(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    shutil.copytree(bank, out)
    for file in out.glob("*.json"):
        _unsealed(file)
    assert_same_gallery(bank, out)
    assert facts(out)["frames"] == 19


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 0},
        {"frames": [3, 2, 1, 99]},
        {"frames": [0, 1, 2, -1]},
        {"frames": [0, 1, 2, 10**30]},
        {"frames": [0, 1, 2]},
        {"frames": 4},
        {"label": 7},
        {"fold": "0"},
        {"id": None},
        {"other": 1},
    ],
)
def test_impossible_contents_are_refused_without_a_seal_too(
    bank: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "bank"
    shutil.copytree(bank, out)
    (file,) = out.glob("contents-*.json")
    videos = json.loads(file.read_text())["videos"]
    _unsealed(file, videos=[{**videos[0], **changes}, *videos[1:]])
    with pytest.raises(DamagedFileError, match=file.name):
        Gallery.open(out)


@pytest.mark.parametrize(
    "changes",
    [
        {"capacity": 10**12},
        {"capacity": 10**40},
        {"dim": -1},
        {"dtype": "float64"},
        {"dtype": []},
        {"sha256": "../../" + "0" * 58},
        {"sha256": 5},
        {"format": {}},
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_an_impossible_description_is_refused(
    bank: Path, tmp_path: Path, changes: dict[str, Any], mmap: bool
) -> None:
    out = tmp_path / "bank"
    shutil.copytree(bank, out)
    _unsealed(out / "bank.json", **changes)
    with pytest.raises(DamagedFileError, match="bank"):
        type(Gallery.open(bank).bank).open(out, mmap=mmap)


def test_names_are_data_whatever_they_hold(bank: Path, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, control characters, paths, and the words of a seal."""
    names = ["a\udcff", "\x1b[31m\n", "../../etc/passwd", f"sealed by usucl, sha256 {'0' * 64}"]
    gallery = Gallery.open(bank)
    videos = [
        replace(video, id=name, label=name, patient=name)
        for video, name in zip(gallery.contents.videos, [*names, "e"], strict=True)
    ]
    contents = replace(gallery.contents, videos=tuple(videos), source={"run": names[0]})
    out = tmp_path / "deeper" / "bank"
    Gallery(out, gallery.bank, contents).save()
    again = Gallery.open(out)
    assert again.contents.videos == contents.videos
    assert list(tmp_path.iterdir()) == [tmp_path / "deeper"]
    assert again.search(0, k=1, exclude_video=names[1:]).matches
    with pytest.raises(FileNotFoundError, match="holds no encoder"):
        again.search(tmp_path / "picture.png")
    Gallery(out, gallery.bank, replace(contents, source={})).save()
    with pytest.raises(FileNotFoundError, match="unknown run holds no encoder"):
        Gallery.open(out).search(tmp_path / "picture.png")


def test_damaged_parts_of_an_interrupted_build_are_made_again(
    bank: Path, videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bank"
    with monkeypatch.context() as patch:
        patch.setattr("usucl.gallery.gallery.fill", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Gallery.build(run=run, data=videos, out=out)
    flipped, infinite, longer, other, whole = sorted((out / UNFINISHED).iterdir())
    content = bytearray(flipped.read_bytes())
    content[-9] ^= 1
    flipped.write_bytes(content)
    embedding = safetensors.torch.load_file(infinite)["embedding"]
    for file, wrong in (
        (infinite, torch.full_like(embedding, torch.inf)),
        (longer, 1.1 * safetensors.torch.load_file(longer)["embedding"]),
        (other, torch.ones(1, 1)),
    ):
        safetensors.torch.save_file({"embedding": wrong}, file)  # without a seal
    kept = safetensors.torch.load_file(whole)
    safetensors.torch.save_file(kept, whole)  # as an earlier version wrote it
    events: list[Any] = []
    Gallery.build(run=run, data=videos, out=out, progress=events.append)
    assert (events[1].finished, events[1].videos) == (1, 5)
    assert_same_gallery(bank, out)


def _embeddings() -> Embeddings:
    return Embeddings(
        torch.rand(3, 4), torch.rand(3, 2), torch.tensor([0, 0, 1]), torch.arange(3),
        torch.rand(3), ("x", None, "=1+1"), ("a", "b\n"), ("p", "q"), (None, "y"), (True, False),
    )  # fmt: skip


def test_stored_embeddings_come_back_or_name_the_damaged_file(tmp_path: Path) -> None:
    stored = _embeddings()
    stored.save(tmp_path, "some")
    again = Embeddings.load(tmp_path, "some")
    for name, value in vars(stored).items():
        other = getattr(again, name)
        assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for number in range(0, 8 * len(content), 11):
            changed = bytearray(content)
            changed[number // 8] ^= 1 << number % 8
            file.write_bytes(changed)
            with pytest.raises(DamagedFileError, match=file.name):
                Embeddings.load(tmp_path, "some")
        file.write_bytes(content)


def test_embeddings_without_seals_are_read_if_they_fit_together(tmp_path: Path) -> None:
    path = _embeddings().save(tmp_path, "some")
    tensors, table = safetensors.torch.load_file(path), tmp_path / "some.csv"
    safetensors.torch.save_file(tensors, path)
    assert len(Embeddings.load(tmp_path, "some")) == 3
    text = table.read_text()
    for name, content in (("some.csv", text.replace("\n1,", "\n2,")), ("some", text[:60] + "\n")):
        table.write_text(content)
        with pytest.raises(DamagedFileError, match=name):
            Embeddings.load(tmp_path, "some")
    table.write_text(text)
    safetensors.torch.save_file({**tensors, "time": torch.rand(2)}, path)
    with pytest.raises(DamagedFileError, match=r"some\.safetensors"):
        Embeddings.load(tmp_path, "some")

"""The synthetic data set: deterministic, well-formed, and readable as any other folder."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usucl.data import VideoCatalog, write_phantom
from usucl.data.phantom import is_synthetic
from usucl.data.phantom.anatomy import make_organ, tissue_at


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    return write_phantom(out, videos=5, frames=12, image_size=48, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_same_seed_same_files(folder: Path, tmp_path: Path) -> None:
    expected = contents(folder)
    write_phantom(tmp_path / "again", videos=2, frames=12, image_size=48, seed=3)
    again = {name: data for name, data in contents(tmp_path / "again").items() if "/" in name}
    assert len(again) >= 18
    assert again.items() <= expected.items()  # a video does not depend on how many there are
    write_phantom(tmp_path / "other", videos=1, frames=2, image_size=48, seed=4)
    image = "patient00_a/00000.png"
    assert contents(tmp_path / "other")[image] != expected[image]


def test_is_a_labelled_catalogue(folder: Path) -> None:
    catalog = VideoCatalog.scan(folder).with_folds()
    assert catalog.skipped == () and len(catalog) == 5
    assert [e.label for e in catalog] == ["cyst", "cyst", "nodule", "nodule", "stone"]
    assert [e.group for e in catalog][:3] == ["patient00", "patient00", "patient01"]
    assert all(e.patient_known and 9 <= e.num_frames <= 15 for e in catalog)
    for entry in catalog:
        assert entry.frame_labels is not None
        kinds = {kind for label in entry.frame_labels for kind in label.split("+")}
        assert entry.label in kinds and kinds <= {entry.label, "vessel", "none"}
    with (folder / "frame_labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            alone = [kind for kind in (row["lesion"], row["vessel"]) if kind != "none"]
            assert row["label"] == ("+".join(alone) or "none")


def test_machines_differ_in_their_look_alone(folder: Path, tmp_path: Path) -> None:
    out = write_phantom(
        tmp_path / "machines", videos=5, frames=12, image_size=48, machines=3, seed=3
    )
    with (out / "labels.csv").open(newline="", encoding="utf-8") as file:
        machine = {row["video_id"]: row["machine"] for row in csv.DictReader(file)}
    assert 1 < len(set(machine.values())) <= 3
    assert (out / "frame_labels.csv").read_bytes() == (folder / "frame_labels.csv").read_bytes()
    corners = {}
    for entry in VideoCatalog.scan(out):
        frames = entry.open().frames(range(entry.num_frames))[:, 0]
        still = (frames == frames[0]).all(0)  # the marks and the surroundings of the sector
        corners.setdefault(machine[entry.id], []).append(frames[0].where(still, 0)[:4])
    for alike in corners.values():
        assert all(torch.equal(alike[0], other) for other in alike)


def test_without_variation_structures_alone_change(folder: Path, tmp_path: Path) -> None:
    out = write_phantom(
        tmp_path / "steady", videos=5, frames=12, image_size=48, variation=0.0, seed=3
    )
    assert (out / "frame_labels.csv").read_bytes() == (folder / "frame_labels.csv").read_bytes()
    assert contents(out)["patient00_a/00000.png"] != contents(folder)["patient00_a/00000.png"]
    x = torch.tensor([0.1, 0.9]).view(-1, 1, 1)
    lateral, down = (torch.linspace(a, b, 30).expand(2, 30, 30) for a, b in ((-0.3, 0.3), (0, 1)))
    for variation, steady in ((0.0, True), (1.0, False)):
        organ = make_organ(np.random.default_rng(3), "cyst", variation)
        echo, loss = tissue_at(replace(organ, structures=()), x, lateral, down.transpose(1, 2))
        assert torch.equal(loss[0], loss[1])
        assert torch.equal(echo[0], echo[1]) == steady


def test_its_videos_are_known_to_be_synthetic(folder: Path, tmp_path: Path) -> None:
    assert is_synthetic(folder) and not is_synthetic(tmp_path)
    (tmp_path / "README.txt").write_bytes((folder / "README.txt").read_bytes())
    assert is_synthetic(tmp_path)  # as earlier versions marked it


def test_neighbouring_frames_look_alike(folder: Path) -> None:
    for entry in VideoCatalog.scan(folder):
        frames = entry.open().frames(range(entry.num_frames))[:, 0].float().flatten(1)
        inside = frames[:, frames.std(0) > 0]
        correlation = torch.corrcoef(inside)
        near = correlation.diagonal(1).mean()
        assert near > correlation.diagonal(entry.num_frames // 2).mean() + 0.05
        assert 20 < inside.mean() < 160


def test_refuses_a_folder_in_use_and_small_arguments(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        write_phantom(folder)
    assert contents(folder) == before
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        write_phantom(tmp_path / "x", frames=1)
    with pytest.raises(ValueError, match="videos must be at least 1"):
        write_phantom(tmp_path / "x", videos=0)
    with pytest.raises(ValueError, match=r"variation must be in \[0, 1\], got 1.5"):
        write_phantom(tmp_path / "x", variation=1.5)
    assert not (tmp_path / "x").exists()

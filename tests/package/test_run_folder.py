"""The run folder: names on disk, what a new run may replace, and which videos were held out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from usucl._tables import read_table
from usucl.data import VideoCatalog
from usucl.run_folder import MARK, RunFolder


def make_videos(root: Path, *names: str, patients: bool = False) -> Path:
    """Videos of two frames; with ``patients``, two videos of each."""
    for name in names:
        (root / name).mkdir(parents=True)
        for frame in range(2):
            Image.new("L", (8, 8), frame).save(root / name / f"{frame}.png")
    if patients:
        rows = "".join(f"{name},a,patient{i // 2}\n" for i, name in enumerate(names))
        (root / "labels.csv").write_text("video_id,label,patient\n" + rows)
    return root


def make_run(path: Path, data: Path) -> RunFolder:
    """A run that holds out the first group of videos."""
    catalog = VideoCatalog.scan(data)
    first = catalog.entries[0].group
    run = RunFolder(path)
    run.clear()
    run.write_config("seed: 0\n")
    parts = [[e for e in catalog if (e.group == first) is out] for out in (False, True)]
    run.write_split(*(VideoCatalog(data, tuple(part)) for part in parts))
    return run


def held_out(run: RunFolder, data: Path) -> tuple[bool, ...]:
    return run.held_out_videos(VideoCatalog.scan(data))


def test_names_on_disk_stay() -> None:
    """Run folders of earlier versions have these names."""
    paths = {name: path for name, path in vars(RunFolder("run")).items() if name != "path"}
    assert {name: path.relative_to("run").as_posix() for name, path in paths.items()} == {
        "config": "config.yaml",
        "split": "split.csv",
        "skipped": "skipped.csv",
        "metrics": "metrics.csv",
        "encoder_config": "encoder.json",
        "encoder_weights": "encoder.safetensors",
        "initial": "initial",
        "bank": "bank",
        "checkpoints": "checkpoints",
        "checkpoint": "checkpoints/last.ckpt",
        "tensorboard": "tensorboard",
        "evaluation": "evaluation.json",
        "embeddings": "embeddings",
        "embedded": "embedded",
        "report": "report.html",
        "figures": "figures",
        "results_figure": "figures/results.png",
        "curves_figure": "figures/curves.png",
        "map_figure": "figures/map.png",
        "contact_sheet": "figures/contact.png",
    }
    assert MARK == "# usucl run: overwrite replaces the results beside this file\n"


def test_clearing_removes_every_result_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.clear()
    run.write_config("seed: 0\n")
    others = [run.path / "notes.txt", run.path / "mine" / "figures", tmp_path / "linked.csv"]
    results = [path for name, path in vars(run).items() if name not in ("path", "config")]
    for path in (*results, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if not path.suffix and not path.exists() else path.touch()
    run.metrics.unlink()
    run.metrics.symlink_to(others[2])
    run.clear()
    assert not any(path.exists() for path in results) and all(path.exists() for path in others)
    assert run.is_run


def test_only_a_run_is_replaced(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.check_free(overwrite=False)  # it is not there yet
    run.path.mkdir()
    run.check_free(overwrite=False)
    run.config.write_text("theme: dark\n")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds no run: choose another folder"):
            run.check_free(overwrite=overwrite)
    run.write_config("seed: 0\n")
    with pytest.raises(FileExistsError, match="give overwrite=True to replace it, or resume=True"):
        run.check_free(overwrite=False)
    run.check_free(overwrite=True)
    with pytest.raises(FileExistsError, match=r"out must be a folder, got the file"):
        RunFolder(run.config).check_free(overwrite=True)


def test_a_split_is_known_again(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "v0", "v1", "v2", "v3", patients=True)
    run = make_run(tmp_path / "run", data)
    entries = VideoCatalog.scan(data).entries
    training, out = VideoCatalog(data, entries[2:]), VideoCatalog(data, entries[:2])
    assert run.has_split(training, out) and not run.has_split(out, training)
    assert read_table(run.split)[0] == {
        "video_id": "v2",
        "group": "patient1",
        "label": "a",
        "part": "train",
    }


def test_unknown_videos_of_a_known_patient_are_not_held_out(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", *(f"v{i}" for i in range(6)), patients=True)
    run = make_run(tmp_path / "run", data)
    lines = run.split.read_text().splitlines()
    run.split.write_text("\n".join(line for line in lines if not line.startswith("v3")))
    assert held_out(run, data) == (True, True, False, False, False, False)


def test_patients_named_after_training_count(tmp_path: Path) -> None:
    """A held-out video whose patient, by today's labels, was trained on is not held out."""
    data = make_videos(tmp_path / "data", "v0", "v1", "v2", "v3", patients=True)
    table = (data / "labels.csv").rename(tmp_path / "labels.csv")
    run = make_run(tmp_path / "run", data)  # holds out v0, on its own
    assert held_out(run, data) == (True, False, False, False)
    table.rename(data / "labels.csv")  # v0 and v1 are of one patient
    assert not any(held_out(run, data))


def test_trained_videos_are_known_from_a_part_of_the_folder(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "a/v0", "a/v1", "b/v0", "b/v1")
    run = make_run(tmp_path / "run", data)
    assert held_out(run, data) == (True, False, False, False)
    assert held_out(run, data / "a") == (True, False)
    assert held_out(run, data / "b") == (False, False)
    (tmp_path / "link").symlink_to(data / "b")
    assert held_out(run, tmp_path / "link") == (False, False)
    moved = data.rename(tmp_path / "moved")
    assert held_out(run, moved) == (True, False, False, False)
    assert held_out(run, moved / "b") == (False, False)


def test_trained_videos_are_known_beside_new_ones_of_their_name(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "a/v0", "a/v1")
    run = make_run(tmp_path / "run", data)
    make_videos(data, "b/v0", "b/v1", "b/v2")
    catalog = VideoCatalog.scan(data)
    assert [entry.id for entry in catalog][:2] == ["a/v0", "a/v1"]
    # b/v1 is new, but nothing tells it from the trained v1: rather seen than leaked
    assert run.held_out_videos(catalog) == (True, False, True, False, True)


def test_a_run_knows_its_videos_however_their_accents_are_spelled(tmp_path: Path) -> None:
    """Copying from a Mac's disk to another changes é from two letters to one."""
    one, two = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    data = make_videos(tmp_path / "data", f"a{one}", f"b{one}", "c", "d")
    copied = make_videos(tmp_path / "copied", f"a{two}", f"b{two}", "c", "d")
    run = make_run(tmp_path / "run", data)
    run.split.write_text(unicodedata.normalize("NFD", run.split.read_text()))  # an earlier run's
    assert held_out(run, data) == held_out(run, copied) == (True, False, False, False)
    for root in (data, copied):
        entries = VideoCatalog.scan(root).entries
        assert run.has_split(VideoCatalog(root, entries[1:]), VideoCatalog(root, entries[:1]))


def test_a_video_is_known_by_its_links(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "v0", "v1", "v2")
    run = make_run(tmp_path / "run", data)
    other = tmp_path / "other"
    for i in (1, 2):
        (other / f"case{i}").mkdir(parents=True)
        for frame in (data / f"v{i}").iterdir():
            os.link(frame, other / f"case{i}" / frame.name)
    (other / "z").symlink_to(data)
    assert held_out(run, other) == (False, False, True)


def test_without_a_split_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        held_out(RunFolder(tmp_path), make_videos(tmp_path / "data", "v0"))

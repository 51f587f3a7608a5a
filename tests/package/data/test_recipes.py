"""Recipes: folders made up in the form of published data sets become data folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_blues import write_blues
from tiny_videos import moving, write

from usucl.cli import main
from usucl.comparison.objectives import OBJECTIVES
from usucl.data import VideoCatalog
from usucl.data.recipes import LICENCE, RECIPES, prepare, published_tables

FINDINGS = "Effusion,Consolidations,B-lines,A-lines,Pleural line irregularities,Air bronchogram"


@pytest.fixture(autouse=True)
def no_warnings(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """What a recipe writes is read without a doubt."""
    yield
    assert not [str(w.message) for w in recwarn if w.category is UserWarning]


def frames(folder: Path, names: list[str], size: tuple[int, int] = (32, 24)) -> None:
    """Writes images that differ; ``size`` is width and height."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, str(folder.name))))
    for name in names:
        pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / name)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pocus(root: Path) -> Path:
    """Videos of the owner's repository, of which the table spells some names otherwise."""
    folder = root / "data" / "pocus_videos" / "convex"
    folder.mkdir(parents=True)
    for name in ("Cov-Atlas+(44).mp4", "Pneu_northumbria_0409_set1_vid1.mp4", "Reg_other.mp4"):
        write(folder / name, moving(4 + len(name) % 7))
    (folder.parent / "linear" / "label_uncertain").mkdir(parents=True)
    write(folder.parent / "linear" / "label_uncertain" / "Reg_unclear.mp4", moving(9))
    frames(root / "data" / "pocus_images" / "convex", ["Reg_still.png"])
    (root / "data" / "dataset_metadata.csv").write_text(
        f"Filename,Label,Lung Severity Score,License,Probe,Patient ID / Name,,{FINDINGS}\n"
        "Cov-Atlas+(44),COVID-19,2,CC BY-NC 4.0,convex,36,,0,1,1,,0,0\n"
        "Pneu_northumbria_0409_set1_vid1.mp4,Bacterial pneumonia,,CC BY 4.0,convex,184,,"
        "1,0,0,0,0,0\n"
        "Reg_unclear,regular,0,None,linear,7,,0,0,0,1,0,0\n"
        "Reg_still,regular,0,None,convex,8,,0,0,0,1,0,0\n"
    )
    return root


def ultrabench(root: Path, parts: dict[str, list[dict[str, object]]]) -> Path:
    for name, entries in parts.items():
        frames(root / "images", [str(entry["image"]).removeprefix("images/") for entry in entries])
        (root / f"{name}.json").write_text(json.dumps(entries))
    frames(root / "masks" / "scan", ["mask.png"])
    return root


def test_clips_of_write_blues(tmp_path: Path) -> None:
    done = prepare("blues", write_blues(tmp_path / "source"), tmp_path / "out")
    assert dict(done.counts) == {"videos": 12, "patients": 2}
    catalog = VideoCatalog.scan(done.folder, label="zone")
    zones = [entry.id.split("_")[2] for entry in catalog]
    assert [entry.label for entry in catalog] == zones
    assert {entry.group for entry in catalog} == {"1", "2"} and catalog.patients == "known"
    assert {(entry.group, entry.fold) for entry in catalog} == {("1", 0), ("2", 4)}
    (second,) = [
        row for row in rows(done.folder / "labels.csv") if row["video_id"].endswith("1_L2")
    ]
    assert (second["severity"], second["a_lines"], second["label"]) == ("1", "yes", "no")
    video = done.folder / "patient_1_L2.mp4"
    assert video.is_symlink() and video.samefile(tmp_path / "source/lus_videos/patient_1_L2.mp4")
    again = prepare("blues", done.folder, tmp_path / "again", copy=True)  # what was made of it
    assert rows(again.folder / "labels.csv") == rows(done.folder / "labels.csv")
    assert not (again.folder / "patient_1_L2.mp4").is_symlink()


def test_links_are_followed_once(tmp_path: Path) -> None:
    source = write_blues(tmp_path / "archive")
    (source / "lus_videos" / "back").symlink_to(source)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lus_videos").symlink_to(source / "lus_videos")
    (tmp_path / "linked" / "severity.csv").symlink_to(source / "severity.csv")
    assert prepare("blues", tmp_path / "linked", tmp_path / "out").counts["videos"] == 12


def test_sweeps_of_blues_are_whole_sides_in_a_seeded_order(tmp_path: Path) -> None:
    source = write_blues(tmp_path / "source")
    done = prepare("blues", source, tmp_path / "out", sweeps=True, seed=3)
    assert dict(done.counts) == {"videos": 6, "patients": 1, "sweeps": 2}
    assert done.remarks == ("6 videos are left out, because they are part of no sweep.",)
    catalog = VideoCatalog.scan(done.folder, label="zone")
    assert [entry.id for entry in catalog] == ["patient_1_L", "patient_1_R"]
    (left, right) = catalog
    assert left.label is None and left.frame_labels is not None
    assert sorted(set(left.frame_labels)) == ["L1", "L2", "L3"] and len(left.frame_labels) == 12
    assert left.group == right.group == "1"

    def order(seed: int) -> list[str]:
        out = prepare("blues", source, tmp_path / f"seed{seed}", sweeps=True, seed=seed).folder
        return [row["part"] for row in rows(out / "sweeps.csv")]

    orders = [order(seed) for seed in range(8)]
    assert [row["part"] for row in rows(done.folder / "sweeps.csv")] == orders[3]
    assert len({tuple(parts) for parts in orders}) > 3
    assert all(sorted(parts) == sorted(orders[0]) for parts in orders)


def test_gbusv_by_folder_and_by_table(tmp_path: Path) -> None:
    names = [f"{n:05d}.jpg" for n in range(3)]
    for name in ("malignant/Video_1", "non-malignant/Video_2"):
        frames(tmp_path / "source" / name, names, size=(480, 360))
    done = prepare("gbusv", tmp_path / "source", tmp_path / "out")
    assert dict(done.counts) == {"videos": 2, "frames": 6}
    catalog = VideoCatalog.scan(done.folder)
    assert [entry.label for entry in catalog] == ["malignant", "non-malignant"]
    assert catalog.patients == "unknown"

    frames(tmp_path / "plain" / "Video_10", names, size=(480, 360))
    frames(tmp_path / "plain" / "Video_9", names, size=(480, 360))
    assert (
        "2 videos have no label" in prepare("gbusv", tmp_path / "plain", tmp_path / "a").remarks[1]
    )
    table = tmp_path / "classes.csv"
    table.write_text("video_id,label\nVideo_9,malignant\nVideo_10,non-malignant\n")
    found = prepare("gbusv", tmp_path / "plain", tmp_path / "b", table=table)
    assert [row["label"] for row in rows(found.folder / "labels.csv")] == [
        "malignant",
        "non-malignant",
    ]
    table.write_text("video_id,label\nVideo_9,1\n")
    with pytest.raises(ValueError, match="label must be one of malignant, non-malignant, got '1'"):
        prepare("gbusv", tmp_path / "plain", tmp_path / "c", table=table)


def test_gbcu_of_the_owner_and_of_ultrabench_are_the_same(tmp_path: Path) -> None:
    owner = tmp_path / "owner" / "GBCU"
    frames(owner / "imgs", ["im00001.jpg", "im00002.jpg", "im00003.jpg"])
    (owner / "train.txt").write_text("im00001.jpg,0\nim00003.jpg,2\n")
    (owner / "test.txt").write_text("im00002.jpg,1\n")

    def entry(number: int, label: int, pathology: str) -> dict[str, object]:
        about = {"image": f"images/im0000{number}.jpg", "bboxes": [], "label": label}
        return {**about, "pathology": pathology}

    parts = {
        "train_val": [entry(3, 2, "malignant"), entry(1, 0, "normal")],
        "test": [entry(2, 1, "benign")],
    }
    other = ultrabench(tmp_path / "ultrabench" / "gbcu_v1.0.1", parts)
    third, first = parts["train_val"]
    released = {"train": [first], "validation": [third], "test": parts["test"]}
    sources = tmp_path / "owner", other, ultrabench(tmp_path / "released", released)
    found = [prepare("gbcu", source, tmp_path / f"out{n}") for n, source in enumerate(sources)]
    assert [done.layout for done in found] == [
        "as its owner distributes it",
        "as UltraBench lays it out",
        "as UltraBench lays it out",
    ]
    tables = [rows(done.folder / "labels.csv") for done in found]
    assert tables[0] == tables[1] == tables[2]
    assert [row["malignant"] for row in tables[0]] == ["no", "no", "yes"]
    catalog = VideoCatalog.scan(found[0].folder, min_frames=1)
    assert [(entry.label, entry.fold) for entry in catalog] == [
        ("normal", 1),
        ("benign", 0),
        ("malignant", 1),
    ]
    training, held_out = catalog.hold_out()
    assert [entry.id for entry in held_out] == ["im00002"] and len(training) == 2


def test_butterfly_of_the_owner_and_of_ultrabench_are_the_same(tmp_path: Path) -> None:
    names = [f"img{n:03d}.png" for n in (1, 2, 10)]
    for folder in ("set1/training/1/lungs", "set2/training/2/ivc", "set3/test/26/lungs"):
        frames(tmp_path / "owner" / folder, names)
    (tmp_path / "owner" / "set3" / "test" / "test.csv").write_text("")
    people = {"train_val": [(2, "ivc", 3), (1, "lungs", 2)], "test": [(26, "lungs", 2)]}
    parts: dict[str, list[dict[str, object]]] = {
        part: [
            {"patient": p, "class": c, "label": n, "image": f"images/{p}_{c}_{name}"}
            for p, c, n in found
            for name in reversed(names)
        ]
        for part, found in people.items()
    }
    sources = tmp_path / "owner", ultrabench(tmp_path / "butterfly_v1", parts)
    for n, source in enumerate(sources):
        done = prepare("butterfly", source, tmp_path / f"out{n}")
        assert dict(done.counts) == {"videos": 3, "frames": 9, "patients": 3}
        found = [(e.id, e.label, e.group, e.fold) for e in VideoCatalog.scan(done.folder)]
        assert found == [
            ("1_lungs", "lungs", "1", 1),
            ("2_ivc", "ivc", "2", 1),
            ("26_lungs", "lungs", "26", 0),
        ]
    assert len(rows(tmp_path / "out0" / "labels.csv")) == 3
    frames(tmp_path / "owner" / "set3" / "test" / "1" / "ivc", names)
    with pytest.raises(ValueError, match="person 1 is in both of its parts"):
        prepare("butterfly", tmp_path / "owner", tmp_path / "out2")


def test_pocus_of_the_owner(tmp_path: Path) -> None:
    done = prepare("pocus", pocus(tmp_path / "source"), tmp_path / "out")
    (remark,) = done.remarks
    assert remark == "Left out, as dataset_metadata.csv does not name them: Reg_other.mp4."
    atlas, northumbria = rows(done.folder / "labels.csv")
    assert atlas["video_id"] == "Cov-Atlas+(44)" and northumbria["label"] == "pneumonia"
    assert [row["patient"] for row in (atlas, northumbria)] == [
        "patient-36",
        "northumbria-0409-set1",
    ]
    asked = ("a_lines", "b_lines", "consolidation", "effusion")
    assert [atlas[name] for name in asked] == ["", "yes", "yes", "no"]
    assert [northumbria[name] for name in asked] == ["no", "no", "no", "yes"]
    assert [row["severity"] for row in (atlas, northumbria)] == ["2", ""]
    assert [e.label for e in VideoCatalog.scan(done.folder, label="effusion")] == ["no", "yes"]
    assert "CC BY-NC 4.0: Cov-Atlas+(44).mp4" in (done.folder / LICENCE).read_text()


def test_pocus_of_a_data_folder_keeps_its_patients_and_folds(tmp_path: Path) -> None:
    table = pocus(tmp_path / "source") / "data" / "dataset_metadata.csv"
    frames(tmp_path / "mine" / "frames" / "Cov_Atlas_44", ["00000.jpg", "00001.jpg"])
    (tmp_path / "mine" / "labels.csv").write_text(
        "video_id,label,group,fold,source\nCov_Atlas_44,covid,p3,4,Atlas\n"
    )
    done = prepare("pocus", tmp_path / "mine", tmp_path / "out", table=table)
    (row,) = rows(done.folder / "labels.csv")
    assert (row["patient"], row["fold"], row["source"], row["b_lines"]) == (
        "p3",
        "4",
        "Atlas",
        "yes",
    )
    (entry,) = VideoCatalog.scan(done.folder)
    assert entry.num_frames == 2 and entry.source == "Atlas"


def test_pocus_of_ultrabench(tmp_path: Path) -> None:
    def entry(source: str, image: str, pathology: str) -> dict[str, object]:
        return {"source": source, "image": f"images/{image}", "pathology": pathology, "label": 0}

    parts = {
        "train_val": [
            *(entry("Cov_a.mp4", f"Cov_a_{n}.png", "covid") for n in (10, 0, 2)),
            entry("Reg_b.jpg", "Reg_b.png", "regular"),
        ],
        "test": [entry("Pneu_c.avi", f"Pneu_c_{n}.png", "pneumonia") for n in (0, 1)],
    }
    done = prepare("pocus", ultrabench(tmp_path / "pocus_v1", parts), tmp_path / "out")
    assert "by file, and not by patient" in done.remarks[0]
    assert "1 files are single images" in done.remarks[1]
    catalog = VideoCatalog.scan(done.folder, min_frames=1)
    found = [(e.id, e.num_frames, e.label, e.fold) for e in catalog]
    assert found == [
        ("Cov_a", 3, "covid", 1),
        ("Pneu_c", 2, "pneumonia", 0),
        ("Reg_b", 1, "regular", 1),
    ]
    parts["test"].append(entry("Cov_a.mp4", "Cov_a_3.png", "covid"))
    again = ultrabench(tmp_path / "again", parts)
    with pytest.raises(ValueError, match=r"Cov_a\.mp4 is in both of its parts"):
        prepare("pocus", again, tmp_path / "out2")


@pytest.mark.parametrize("recipe", RECIPES)
def test_another_folder_is_refused_and_nothing_is_written(recipe: str, tmp_path: Path) -> None:
    frames(tmp_path / "source" / "video", ["0.png", "1.png"])
    with pytest.raises(ValueError, match=r"^source must be .*, got ") as error:
        prepare(recipe, tmp_path / "source", tmp_path / "out")
    assert RECIPES[recipe].form in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_images_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    entry = {"image": "images/a.png", "label": 0, "pathology": "normal", "bboxes": []}
    source = ultrabench(tmp_path / "source", {"train_val": [entry], "test": [entry]})
    frames(tmp_path, ["secret.png"])
    (source / "test.json").write_text(json.dumps([{**entry, "image": "../secret.png"}]))
    with pytest.raises(ValueError, match=r"names \.\./secret\.png, which is not there"):
        prepare("gbcu", source, tmp_path / "out")


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    source = write_blues(tmp_path / "source")
    with pytest.raises(ValueError, match="sweeps must be asked for with blues only, got 'gbcu'"):
        prepare("gbcu", source, tmp_path / "out", sweeps=True)
    with pytest.raises(ValueError, match="out must be outside of source, got "):
        prepare("blues", source, source / "out")
    with pytest.raises(ValueError, match="out must be a new or empty folder, got "):
        prepare("blues", source, source)
    with pytest.raises(ValueError, match="recipe must be one of blues, gbusv, gbcu, "):
        prepare("echonet", source, tmp_path / "out")


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_blues(tmp_path / "source"), tmp_path / "out"
    assert main(["data", "prepare", "blues", str(source), "--out", str(out), "--sweeps"]) == 0
    said = capsys.readouterr().out
    assert "COVID-BLUES, as its owner distributes it: 6 videos, 1 patient, 2 sweeps" in said
    assert "Its owner counts 362 videos, 63 patients." in said
    assert "Licence: CC BY-NC-ND 4.0." in said
    assert "You may not share anything made from them" in (out / LICENCE).read_text()
    assert main(["data", "check", str(out), "--quick"]) == 0
    assert "2 of the videos are sweeps of 6 clips" in capsys.readouterr().out
    assert main(["data", "prepare", "gbcu", str(source), "--out", str(tmp_path / "no")]) == 2
    assert "SOURCE must be GBCU as its owners send it" in capsys.readouterr().err


def test_published_figures_name_their_source_and_lie_between_0_and_1() -> None:
    tables = published_tables()
    assert {table.name for table in tables} >= {"paper-table-1", "paper-table-2"}
    for table in tables:
        assert table.data in RECIPES and table.pretrained_on in ("", *RECIPES)
        assert table.source and table.address.startswith("https://") and table.caution
        assert table.confirmed == ("listing" not in table.caution)
        for figures in table.arms.values():
            assert all(0 < figure.mean < 1 for figure in figures.values())
    (first, *_) = published_tables("gbcu")
    assert first.arms["paper"]["accuracy"] == (0.921, 0.034)
    assert first.arms["paper"]["accuracy"].mean - first.arms["uscl"]["accuracy"].mean < 0.0201
    known = {"imagenet", *OBJECTIVES, "paper", "us-jepa"}
    assert {arm for table in tables for arm in table.arms} <= known

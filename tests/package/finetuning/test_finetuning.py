"""One fine-tuning of a tiny data set: its files, its figures, and how it goes on."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import faults
from runs import make_data, make_run
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import usucl
from usucl._files import DamagedFileError, read_json
from usucl.cli import main
from usucl.data import VideoCatalog
from usucl.finetuning import Finetuning, finetune, load_classifier, read_config
from usucl.finetuning.fold import Fitted
from usucl.finetuning.labels import labelled, parts_of
from usucl.report import write_finetuning_report

TINY = ("epochs=2", "frames_per_video=2", "test_frames_per_video=3", "folds=2", "resamples=50")
OPTIONS: dict[str, Any] = dict(text.split("=") for text in TINY)
VIDEOS = 12  # two per patient


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetuning")
    data = make_data(folder / "data", videos=VIDEOS, frames=6)
    make_run(folder / "run", data, held_out=2)
    return folder


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    """A whole fine-tuning by the shell command, with a classifier of all folds."""
    words = [str(folder / "run"), str(folder / "data"), "--out", str(folder / "out")]
    assert main(["finetune", *words, "--quiet", "--set", *TINY, "final=true"]) == 0
    return folder / "out"


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_figures_are_those_of_the_table(out: Path) -> None:
    result = Finetuning.from_json(read_json(out / "finetune.json"))
    assert result.classes == ("across", "along") or result.classes == ("along", "across")
    for level, number in (("video", VIDEOS), ("frame", 3 * VIDEOS)):
        rows = [row for row in _rows(out / "predictions.csv") if row["level"] == level]
        assert len(rows) == number == result.figures[level].samples
        truth = [row["class"] for row in rows]
        told = [row["predicted"] for row in rows]
        score = [float(row["probability of along"]) for row in rows]
        overall = result.figures[level].overall
        accuracy = overall["balanced_accuracy"].value
        assert accuracy == pytest.approx(balanced_accuracy_score(truth, told))
        auroc = roc_auc_score(np.array(truth) == "along", score)
        assert overall["macro_auroc"].value == pytest.approx(auroc)
    assert {row["seen"] for row in rows} == {"yes", "no"}
    assert result.seen == VIDEOS - 4 and result.unseen is not None
    assert result.unseen["video"].samples == 4
    frames = [row for row in _rows(out / "predictions.csv") if row["level"] == "frame"]
    videos = [row for row in _rows(out / "predictions.csv") if row["level"] == "video"]
    for row in videos:
        own = [float(f["probability of along"]) for f in frames if f["video_id"] == row["video_id"]]
        assert float(row["probability of along"]) == pytest.approx(np.mean(own), abs=1e-12)


def test_no_patient_is_in_two_parts(folder: Path) -> None:
    config = read_config("default", {**OPTIONS, "folds": 3})
    found = labelled(VideoCatalog.scan(folder / "data"), config)
    tested = []
    for fold in found.folds:
        parts = parts_of(found, fold, 0.25, 0)
        groups = [set(found.group[part].tolist()) for part in vars(parts).values()]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == VIDEOS // 2
        assert {c for v in parts.train for c in found.targets[v].tolist()} == {0, 1}
        tested += parts.test.tolist()
    assert sorted(tested) == list(range(VIDEOS))
    assert not len(parts_of(found, 0, 0.0, 0).validation)


def test_single_images_are_taken_if_asked_for(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=8, frames=1)
    run = make_run(tmp_path / "run", make_data(tmp_path / "other", videos=4))
    options = {**OPTIONS, "epochs": 1, "progress": False}
    assert read_config("gbcu", {}).min_frames == 1
    with pytest.raises(ValueError, match="too short"):
        finetune(run=run, data=data, out=tmp_path / "out", **options)
    found = finetune(run=run, data=data, out=tmp_path / "out", min_frames=1, **options)
    assert found.figures["video"].samples == found.figures["frame"].samples == 8


def test_saved_classifiers_give_the_same_probabilities(out: Path, folder: Path) -> None:
    rows = [row for row in _rows(out / "predictions.csv") if row["level"] == "frame"]
    row = next(row for row in rows if row["fold"] == "1")
    classifier = load_classifier(out / "folds" / "1")
    file = folder / "data" / row["video_id"] / f"{row['frame']}.png"
    probability = classifier.predict(file)
    wanted = [float(row[f"probability of {name}"]) for name in classifier.classes]
    assert probability[0].numpy() == pytest.approx(wanted, abs=1e-5)
    assert classifier.predict(file.parent).shape == (6, 2)
    assert usucl.load_classifier(out).classes == classifier.classes  # of final/
    assert usucl.load_encoder(out / "final").config.backbone == "resnet10"
    copy = folder / "copy"
    shutil.copytree(out / "final", copy)
    content = (copy / "classifier.safetensors").read_bytes()
    (copy / "classifier.safetensors").write_bytes(content[:-1] + b"x")
    with pytest.raises(DamagedFileError):
        load_classifier(copy)
    with pytest.raises(FileNotFoundError, match="holds no classifier"):
        load_classifier(folder / "run")


def test_the_report_has_every_picture(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert faults(page) == []
    for name in (
        "Confusion",
        "Thresholds",
        "Calibration",
        "Surest mistakes",
        "Sensitivity at 95 %",
    ):
        assert name in page
    names = {file.stem for file in (out / "figures").glob("*.png")}
    assert names >= {"calibration", "confusion", "learning", "roc"}
    assert "http" not in page.replace("http://www.w3.org", "")


def test_an_interrupted_one_goes_on(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the second fold; the rest gives the same numbers to the bit."""
    module = importlib.import_module("usucl.finetuning.finetune")

    given = {"run": folder / "run", "data": folder / "data", "out": folder / "again"}
    real, calls = module.fit, []

    def interrupted(*words: Any, **options: Any) -> Fitted:
        calls.append(words[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **options)

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(**given, progress=False, **OPTIONS, final=True)
    assert (folder / "again" / "folds" / "0" / "fold.json").is_file()
    with pytest.raises(FileExistsError, match="resume=True"):
        finetune(**given, progress=False, **OPTIONS)
    with pytest.raises(ValueError, match=r"epochs must be as in .* 2, got 3"):
        finetune(out=folder / "again", resume=True, progress=False, epochs=3)
    config = (folder / "again" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"run must hold the encoder with which .*0 began"):
        finetune(**given | {"run": folder / "run" / "initial"}, resume=True, progress=False)
    assert (folder / "again" / "config.yaml").read_bytes() == config
    calls += [None, None]
    assert main(["finetune", "--out", str(folder / "again"), "--resume", "--no-report"]) == 0
    assert "1 of 2 folds are finished" in capsys.readouterr().err
    assert calls[4:] == [1, 2**31]
    for name in ("predictions.csv", "learning.csv", "videos.csv"):
        assert (folder / "again" / name).read_bytes() == (out / name).read_bytes()


def test_overwriting_keeps_the_earlier_one_until_a_fold_is_finished(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("usucl.finetuning.finetune")

    copy = folder / "overwritten"
    shutil.copytree(out, copy)
    (copy / "notes.txt").write_text("mine")
    before = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}

    def fails(*_: Any, **__: Any) -> Fitted:
        raise RuntimeError("the loss is nan")

    monkeypatch.setattr(module, "fit", fails)
    with pytest.raises(RuntimeError, match="nan"):
        finetune(
            run=folder / "run", data=folder / "data", out=copy, overwrite=True, **OPTIONS, seed=3
        )
    after = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert after == before
    with pytest.raises(FileExistsError, match="holds no fine-tuning"):
        finetune(run=folder / "run", data=folder / "data", out=folder / "run", overwrite=True)


def test_frame_labels_in_part(folder: Path, tmp_path: Path) -> None:
    """Only frames with a label are learned and tested; a video of two classes has no class."""
    data = make_data(tmp_path / "data", videos=8, frames=6, labels=False)
    with (data / "labels.csv").open("w", newline="") as file:
        rows = [(f"video_{v}", f"patient_{v // 2}") for v in range(8)]
        csv.writer(file).writerows([("video_id", "patient"), *rows])
    with (data / "frame_labels.csv").open("w", newline="") as file:
        rows = [(f"video_{v}", f, "a" if v % 4 < 2 else "b") for v in range(7) for f in (0, 2, 3)]
        rows += [("video_0", 5, "b"), ("video_0", 4, "odd")]
        csv.writer(file).writerows([("video_id", "frame", "label"), *rows])
    result = finetune(
        run=folder / "run" / "initial",
        data=data,
        out=tmp_path / "out",
        progress=False,
        **{**OPTIONS, "trainable": "head", "test_frames_per_video": None, "validation": 0},
        classes={"odd": None},
        save_folds=False,
    )
    assert result.level == "frame" and result.classes == ("a", "b")
    assert result.figures["frame"].samples == 7 * 3 + 1
    assert result.figures["video"].samples == 6
    assert (result.unlabelled == 1 and result.left_out == {"odd": 1} and result.seen == 0) or (
        result.seen is None
    )
    assert not list((tmp_path / "out").glob("folds/*/*.safetensors"))
    history = _rows(tmp_path / "out" / "learning.csv")
    assert len(history) == 4 and {row["validation_loss"] for row in history} == {""}
    write_finetuning_report(tmp_path / "out")


def test_only_what_is_trainable_moves(folder: Path, out: Path) -> None:
    """With the head alone, the backbone and its statistics stay those of the run."""
    result = finetune(
        run=folder / "run",
        data=folder / "data",
        out=folder / "head",
        progress=False,
        **{**OPTIONS, "trainable": "last-block", "epochs": 1, "start": "random"},
    )
    assert result.seen == 0 and result.unseen is None
    before = usucl.load_encoder(folder / "run" / "initial").backbone.state_dict()
    after = load_classifier(folder / "head" / "folds" / "0").encoder.backbone.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"layer4"}
    trained = load_classifier(out / "folds" / "0").encoder.backbone.state_dict()
    assert not torch.equal(trained["conv1.weight"], before["conv1.weight"])


def test_few_patients_and_wrong_labels(folder: Path, tmp_path: Path) -> None:
    catalog = VideoCatalog.scan(folder / "data")
    with pytest.warns(UserWarning, match=r"class 'across' has 3 patients, fewer than the 4 folds"):
        labelled(catalog, read_config("default", {"folds": 4}))
    with pytest.raises(ValueError, match="at least two classes, got 'label' with only 'along'"):
        labelled(catalog, read_config("default", {"classes": {"across": None}}))
    with pytest.raises(ValueError, match=r"classes must be of labels .*'cross'"):
        labelled(catalog, read_config("default", {"classes": {"cross": None}}))
    with pytest.raises(ValueError, match="with none"):
        labelled(catalog, read_config("default", {"level": "frame"}))
    with pytest.raises(ValueError, match="start must not be 'imagenet' for resnet10"):
        finetune(run=folder / "run", data=folder / "data", out=tmp_path / "o", start="imagenet")
    with pytest.raises(ValueError, match="diagnosis"):
        finetune(run=folder / "run", data=folder / "data", out=tmp_path / "o", label="diagnosis")
    assert not (tmp_path / "o").exists()


def test_a_damaged_record_is_named(out: Path, folder: Path) -> None:
    copy = folder / "damaged"
    shutil.copytree(out, copy)
    content = json.loads((copy / "finetune.json").read_text())
    content["videos"] = "many"
    content.pop("seal")
    (copy / "finetune.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=r"finetune.json"):
        write_finetuning_report(copy)

"""The run folder: names on disk, what a new run may replace, and which videos were held out."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from usucl._files import write_json
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
    run.set_aside()
    run.write_config("seed: 0\n")
    parts = [[e for e in catalog if (e.group == first) is out] for out in (False, True)]
    run.write_split(*(VideoCatalog(data, tuple(part)) for part in parts))
    return run


def held_out(run: RunFolder, data: Path) -> tuple[bool, ...]:
    return run.held_out_videos(VideoCatalog.scan(data))


@pytest.mark.parametrize("damaged", ["skip", "keep"])
def test_a_run_reads_damaged_videos_as_its_training_did(damaged: str, tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "whole", "torn")
    for name in ("2.png", "3.png"):
        (data / "torn" / name).write_bytes(b"not an image")
    run = RunFolder(tmp_path / "run")
    run.set_aside()
    run.write_config(f"seed: 0\ndamaged: {damaged}\n")
    kept = [entry.id for entry in run.scan(data)]
    assert kept == (["torn", "whole"] if damaged == "keep" else ["whole"])


def test_names_on_disk_stay() -> None:
    """Run folders of earlier versions have these names."""
    paths = {name: path for name, path in vars(RunFolder("run")).items() if name != "path"}
    assert {name: path.relative_to("run").as_posix() for name, path in paths.items()} == {
        "config": "config.yaml",
        "facts": "run.json",
        "split": "split.csv",
        "skipped": "skipped.csv",
        "metrics": "metrics.csv",
        "warnings": "warnings.csv",
        "hardness": "hardness.csv",
        "probe": "probe.csv",
        "guard": "guard.csv",
        "negatives": "negatives",
        "loggers": "loggers",
        "encoder_config": "encoder.json",
        "encoder_weights": "encoder.safetensors",
        "backbone_weights": "backbone.safetensors",
        "exported": "exported",
        "initial": "initial",
        "bank": "bank",
        "checkpoints": "checkpoints",
        "checkpoint": "checkpoints/last.ckpt",
        "best": "best",
        "best_facts": "best/best.json",
        "failed_batch": "failed_batch.safetensors",
        "tensorboard": "tensorboard",
        "evaluation": "evaluation.json",
        "evaluations": "evaluations",
        "embeddings": "embeddings",
        "embedded": "embedded",
        "report": "report.html",
        "figures": "figures",
        "results_figure": "figures/results.png",
        "efficiency_figure": "figures/few-labels.png",
        "curves_figure": "figures/curves.png",
        "mining_figure": "figures/mining.png",
        "map_figure": "figures/map.png",
        "contact_sheet": "figures/contact.png",
    }
    assert MARK == "# usucl run: overwrite replaces the results beside this file\n"


def make_results(run: RunFolder) -> tuple[list[Path], list[Path]]:
    """Every file of a run and files that belong to none, each with its name as content."""
    run.set_aside()
    run.write_config("seed: 0\n")
    others = [run.path / "notes.txt", run.path / "mine" / "figures", run.path.parent / "linked.csv"]
    results = [path for name, path in vars(run).items() if name not in ("path", "config")]
    for path in (*results, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text(path.name)
        else:
            path.mkdir(exist_ok=True)
    run.metrics.unlink()
    run.metrics.symlink_to(others[2])
    return results, others


def content(run: RunFolder) -> dict[str, str | None]:
    return {
        path.relative_to(run.path).as_posix(): path.read_text() if path.is_file() else None
        for path in sorted(run.path.rglob("*"))
        if path.suffix != ".tmp"  # of this process, which has not been killed really
    }


def test_an_earlier_run_is_set_aside_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    results, others = make_results(run)
    run.set_aside()
    assert not any(path.exists() for path in results) and all(path.exists() for path in others)
    assert run.is_run
    run.forget_earlier()
    left = sorted(path.name for path in run.path.iterdir())
    assert left == ["config.yaml", "mine", "notes.txt"]


def test_an_earlier_run_comes_back_until_the_new_one_has_a_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    results, _ = make_results(run)
    before = content(run)
    run.set_aside()
    run.write_config("seed: 1\n")
    for path in results:  # as far as the new run came
        if path != run.checkpoint and not path.suffix:
            path.mkdir()
    run.split.write_text("new")
    assert run.recovered.split.read_text() == run.split.name  # of the earlier one
    assert run.recover()
    assert content(run) == before
    assert not run.recover()
    assert content(run) == before

    run.set_aside()
    run.checkpoints.mkdir()
    run.checkpoint.write_text("new")
    run.recover()
    assert content(run).keys() == {
        "checkpoints", "checkpoints/last.ckpt", "config.yaml", "mine", "mine/figures", "notes.txt"
    }  # fmt: skip


@pytest.mark.parametrize("step", ["set_aside", "recover", "forget_earlier"])
def test_a_kill_at_any_moment_loses_no_run(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of the file system may be the last: the run is whole, the earlier or the newer."""
    for last in range(100):
        run = RunFolder(tmp_path / str(last) / "run")
        make_results(run)
        before = content(run)
        if step != "set_aside":
            run.set_aside()
            run.split.write_text("new")
        if step == "forget_earlier":
            run.checkpoints.mkdir()
            run.checkpoint.write_text("new")
        calls = iter(range(1000))
        with monkeypatch.context() as patch:
            for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir")):
                patch.setattr(module, name, killed(getattr(module, name), calls, last))
            try:
                getattr(run, step)()
            except KeyboardInterrupt:
                finished = False
            else:
                finished = True
        assert not run.is_unfinished  # whichever it is, nothing replaces it unasked
        if step == "set_aside" and finished:
            run.split.write_text("new")
        run.recover()
        if step == "forget_earlier":
            assert run.checkpoint.read_text() == run.split.read_text() == "new"
            assert not run.encoder_weights.exists()
        else:
            assert content(run) == before
        if finished:
            assert last > 1
            return
    raise AssertionError("it does not end")


def killed(call: Any, calls: Iterator[int], last: int) -> Any:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= last:
            raise KeyboardInterrupt
        return call(*arguments, **options)

    return wrapped


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    number = [sys.executable, "-c", "import os; print(os.getpid())"]
    ended = subprocess.run(number, capture_output=True, check=True)
    run.best.mkdir()
    left = [
        run.checkpoints / f".last.ckpt.{int(ended.stdout)}.tmp",
        run.best / f".encoder.safetensors.{int(ended.stdout)}.tmp",
    ]
    kept = [run.path / f".encoder.json.{os.getpid()}.tmp", run.path / ".mine.tmp"]
    for path in (*left, *kept):
        path.write_text("half")
    run.recover()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_only_a_run_is_replaced(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.check_free(overwrite=False)  # it is not there yet
    run.path.mkdir()
    run.check_free(overwrite=False)
    (run.path / f".config.yaml.{2**22 + 1}.tmp").write_text("of a process that was killed")
    run.check_free(overwrite=False)
    run.config.write_text("theme: dark\n")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds no run: choose another folder"):
            run.check_free(overwrite=overwrite)
    run.write_config("seed: 0\n")
    run.encoder_weights.write_text("trained")
    with pytest.raises(FileExistsError, match="give overwrite=True to replace it, or resume=True"):
        run.check_free(overwrite=False)
    run.check_free(overwrite=True)
    with pytest.raises(FileExistsError, match=r"out must be a folder, got the file"):
        RunFolder(run.config).check_free(overwrite=True)


def test_a_split_is_known_again(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "v0", "v1", "v2", "v3", patients=True)
    run = make_run(tmp_path / "run", data)
    catalog = VideoCatalog.scan(data)
    training, out = run.stored_split(catalog)
    assert (training.entries, out.entries) == (catalog.entries[2:], catalog.entries[:2])
    assert read_table(run.split)[0] == {
        "video_id": "v2",
        "group": "patient1",
        "label": "a",
        "part": "train",
        "patient_known": "yes",
    }
    fewer = VideoCatalog(data, catalog.entries[1:])
    with pytest.raises(ValueError, match=r"got others: 1 missing, such as v0$"):
        run.stored_split(fewer)
    run.write_split(VideoCatalog(data, fewer.entries[:1]), VideoCatalog(data, fewer.entries[2:]))
    with pytest.raises(ValueError, match=r"got others: 2 new, such as v0$"):
        run.stored_split(catalog)


def test_ids_that_are_formulas_are_known_again(tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "=v0", "@v1", "-v2", "'=v3", patients=True)
    run = make_run(tmp_path / "run", data)
    assert sorted(held_out(run, data)) == [False, False, True, True]
    assert len(run.stored_split(VideoCatalog.scan(data))[1]) == 2
    assert "\n=" not in run.split.read_text()


@pytest.mark.parametrize("content", ["", "video_id\n", "video_id,group,label,part\na,b\n", "\0"])
def test_a_damaged_split_is_named(content: str, tmp_path: Path) -> None:
    data = make_videos(tmp_path / "data", "v0")
    run = RunFolder(tmp_path / "run")
    run.set_aside()
    run.split.write_text(content)
    with pytest.raises(ValueError, match=r"split\.csv is damaged"):
        held_out(run, data)


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
        training, held = run.stored_split(VideoCatalog.scan(root))
        assert (len(training), [unicodedata.normalize("NFC", e.id) for e in held]) == (
            3,
            [f"a{one}"],
        )


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


@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, steps: int) -> None:
    run = RunFolder(tmp_path / "run")
    run.initial.mkdir(parents=True)
    run.write_config("seed: 0\n")
    assert run.is_unfinished  # killed before it had a split
    run.split.write_text("video_id,part\n")
    RunFolder(run.initial).encoder_weights.write_text("first")
    run.encoder_weights.write_text("first")
    assert run.is_unfinished
    # The encoder and the bank of an epoch are written before its checkpoint.
    run.encoder_weights.write_text("trained")
    run.bank.mkdir()
    assert not run.is_unfinished  # of an earlier version, which may have lost its checkpoint
    write_json(run.facts, {"steps_done": steps})
    assert run.is_unfinished == (steps == 0)
    run.checkpoints.mkdir()
    run.checkpoint.write_text("checkpoint")
    assert not run.is_unfinished

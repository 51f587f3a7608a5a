"""What a run folder keeps of the software, the machine, the user's sources and the data."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import BACKBONE, make_data

from usucl._environment import git_state
from usucl._files import read_json
from usucl.data import VideoCatalog
from usucl.run_folder import MARK
from usucl.training import provenance, read_config, train
from usucl.training.explained import RUN_HEAD

TINY = {"backbone": BACKBONE, "image_size": 32, "dim": 8, "videos": 3, "frames": 2}


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, timeout=60)


def test_the_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) is None and git_state(tmp_path / "gone") is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "a")
    state = git_state(tmp_path)
    assert state is not None and len(state["commit"]) >= 7 and state["changes"] is False
    (tmp_path / "a.py").write_text("x = 2\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    here = provenance.working_directory()
    assert here == {"folder": str(tmp_path / "sub"), "commit": state["commit"], "changes": True}
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    here = provenance.working_directory()
    assert here == {"folder": str(tmp_path / "sub"), "commit": None, "changes": None}
    (tmp_path / "sub").rmdir()
    assert provenance.working_directory() is None


def test_versions_and_machine() -> None:
    versions = provenance.versions()
    assert {"python", "torch", "torchvision", "lightning", "numpy", "av", "system"} <= set(versions)
    assert all(isinstance(text, str) and text for text in versions.values())
    machine = provenance.machine()
    assert machine["cores_usable"] >= 1 and machine["memory_gb"] > 0 and machine["cpu_capability"]
    assert "host" not in " ".join(machine)


def test_the_digest_is_of_the_videos_wherever_they_are(tmp_path: Path) -> None:
    def facts(folder: str) -> dict[str, object]:
        return provenance.data_facts(VideoCatalog.scan(tmp_path / folder))

    make_data(tmp_path / "a", videos=4, frames=4)
    first = facts("a")
    assert (first["videos"], first["frames"]) == (4, 16)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert facts("b") == first
    labels = tmp_path / "b" / "labels.csv"
    labels.write_text(labels.read_text().replace("across", "over"))
    relabelled = facts("b")
    assert relabelled["contents"] == first["contents"] and relabelled["digest"] != first["digest"]
    assert provenance.difference(first, relabelled) == "labels, patients or folds"
    Image.fromarray(np.full((48, 48), 9, np.uint8)).save(tmp_path / "b" / "video_1" / "2.png")
    assert provenance.difference(relabelled, facts("b")) == "frames of the videos"
    assert provenance.difference(None, first) == ""  # of an earlier version


@pytest.mark.usefixtures("one_thread")
def test_a_run_keeps_them_and_tells_of_changed_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "data", videos=4, frames=4)
    options = {"held_out": (), "cross_only": 0, "progress": False}
    out = train(data=data, out=tmp_path / "run", epochs=1, **TINY, **options)
    facts = read_json(out / "run.json")
    first = facts["data"]
    assert (first["videos"], first["frames"]) == (4, 16) and "earlier_data" not in facts
    assert facts["working_directory"]["folder"] == str(Path.cwd())
    text = (out / "config.yaml").read_text()
    assert text.startswith(MARK) and RUN_HEAD in text and "# Learning rate" in text
    config = read_config(out / "config.yaml", {})
    assert (config.encoder.dim, config.held_out) == (8, ())
    Image.fromarray(np.full((48, 48), 9, np.uint8)).save(data / "video_1" / "2.png")
    train(out=out, resume=True, epochs=2, progress=False)
    told = capsys.readouterr().err.splitlines()
    assert sum("The data are not as they were: frames of the videos have" in t for t in told) == 1
    facts = read_json(out / "run.json")
    assert facts["earlier_data"] == [first] and facts["data"] != first
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1

"""Two processes from end to end: started by ``usucl.train`` or torchrun, and one that is lost."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_data

from usucl._files import read_json, read_tensors
from usucl.run_folder import RunFolder
from usucl.training import train
from usucl.training.processes.together import LostRankError

pytestmark = pytest.mark.usefixtures("one_thread")

PATIENCE = 300  # seconds after which a process is given up
OPTIONS: dict[str, Any] = {
    "encoder.backbone": "resnet10",
    "encoder.image_size": 32,
    "encoder.dim": 8,
    "encoder.norm": "group",
    "encoder.head": "mlp",
    "sampling.videos": 3,
    "sampling.frames": 2,
    "sampling.steps_per_epoch": 3,
    "key.bank": 25,
    "key.sharded": True,
    "epochs": 3,
    "precision": "64-true",
    "log_every": 1,
    "optimiser.kind": "sgd",
    "optimiser.lr": 0.01,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=4, frames=8)


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    return train(data=videos, out=out, held_out=(), progress=False, **OPTIONS)


def assert_as(out: Path, alone: Path) -> None:
    """The same but for rounding in float64, which nine steps multiply: encoder and bank.

    The tables have seven digits.
    """
    ours, theirs = (list(csv.DictReader((run / "metrics.csv").open())) for run in (out, alone))
    assert [row["step"] for row in ours] == [str(step) for step in range(1, 10)]
    for name in ("loss", "positive_similarity", "cross_similarity", "effective_rank"):
        expected = [float(row[name]) for row in theirs]
        assert [float(row[name]) for row in ours] == pytest.approx(expected, rel=2e-6), name
    for path in ("encoder_weights", "backbone_weights"):
        tensors = [read_tensors(getattr(RunFolder(run), path))[0] for run in (out, alone)]
        assert tensors[0].keys() == tensors[1].keys()
        for name, tensor in tensors[0].items():
            torch.testing.assert_close(tensor, tensors[1][name], rtol=1e-10, atol=1e-12)
    banks = [torch.load(RunFolder(r).checkpoint, weights_only=True)["bank"] for r in (out, alone)]
    for name, column in banks[0].items():
        torch.testing.assert_close(column, banks[1][name], rtol=0, atol=1e-10, equal_nan=True)


def child_of_rank(rank: int) -> int | None:
    """The process of a rank that this one has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == os.getpid() and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    return None


def test_a_lost_rank_ends_all_and_one_process_goes_on(
    videos: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = []

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not RunFolder(out).checkpoint.is_file():
            time.sleep(0.01)
        if (pid := child_of_rank(1)) is not None:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    message = r"rank 1 of 2 was lost, ended by SIGKILL .*exit code 137.* resume=True goes on from"
    with pytest.raises(LostRankError, match=message):
        train(data=videos, out=out, held_out=(), progress=False, devices=2, **OPTIONS)
    killer.join()
    assert killed and child_of_rank(0) is None and child_of_rank(1) is None
    train(out=out, resume=True, progress=False, devices=1)
    assert_as(out, alone)
    assert len(read_json(out / "run.json")["resumed"]) == 1


@pytest.mark.at_length
def test_torchrun_starts_the_same_run(videos: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {**OPTIONS, "watching.probe_every": 1}  # which rank 0 alone does and saves
    changes = [f"{name}={value}" for name, value in options.items()]
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", "-m", "usucl", "train"),
            *(str(videos), "--out", str(out), "--held-out", "--set", *changes),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Encoder: ") <= 1 and "warning" not in run.stderr
    assert_as(out, alone)
    assert "probe_knn_balanced_accuracy" in RunFolder(out).best_facts.read_text()

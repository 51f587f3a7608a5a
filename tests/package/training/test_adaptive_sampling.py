"""Runs whose batches depend on the videos' looks and on what was learned: resumed to the bit."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import BACKBONE, make_data

from usucl.data import Curriculum, DenseSampler, FrameBatches, VideoCatalog
from usucl.losses import Selection
from usucl.run_folder import RunFolder
from usucl.training import read_config, train
from usucl.training.callbacks.hardness import NarrowingWindows
from usucl.training.callbacks.saving import Saving

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = "[[0.5, 1.0], [0.3, 0.6], [0.1, 0.3]]"
OPTIONS: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 8,
    "epochs": 4,
    "sampling.videos": 3,
    "sampling.frames": 4,
    "sampling.positives": 2,
    "sampling.balance": "patient",
    "sampling.positive_radius": 1,
    "sampling.min_gap": 0.1,
    "sampling.guard": 0.99,
    "steps_per_epoch": 2,
    "curriculum.kind": "hardness",
    "curriculum.windows": WINDOWS,
    "curriculum.cross_only": 0.25,
    "curriculum.narrow_below": 1.0,
    "key.bank": 12,
    "log_every": 1,
    "held_out": [],
    "progress": False,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of a moving bar, and one whose frames are all the same."""
    root = make_data(tmp_path_factory.mktemp("data"), videos=6, frames=12)
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    for path in (root / "video_5").iterdir():
        Image.fromarray(image).save(path)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def state(out: Path) -> tuple[dict[str, torch.Tensor], list[list[str]], str]:
    """The tensors of a run, its metrics but for times, and what the guard refused."""
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    timed = {"images_per_second", "data_share", "encoder_share", "loss_share"}
    metrics = [[v for k, v in row.items() if k not in timed] for row in rows(out / "metrics.csv")]
    tensors = checkpoint["state_dict"] | {
        f"bank.{name}": value
        for name, value in checkpoint["bank"].items()
        if isinstance(value, torch.Tensor)
    }
    return tensors, metrics, (out / "guard.csv").read_text()


def test_a_resumed_run_goes_on_in_the_same_windows(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = train(data=videos, out=tmp_path / "whole", **OPTIONS)
    said = capsys.readouterr().err
    assert "the window narrows to 0.3 to 0.6" in said and "narrows to 0.1 to 0.3" in said
    assert "most in video_5 (100%)" in said
    windows = [(row["window_lo"], row["window_hi"]) for row in rows(whole / "metrics.csv")]
    assert windows[::2] == [("", ""), ("0.5", "1"), ("0.3", "0.6"), ("0.1", "0.3")]
    refused = [row for row in rows(RunFolder(whole).guard) if row["video_id"] == "video_5"]
    assert [row["epoch"] for row in refused] == ["1", "2", "3"]
    assert all(row["refused"] == row["pairs"] != "0" for row in refused)

    out = tmp_path / "run"

    def ctrl_c(self: Saving, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 5:  # in the middle of the third epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "on_train_batch_end", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            train(data=videos, out=out, **OPTIONS)
    train(out=out, resume=True, progress=False)
    (ours, metrics, guard), (theirs, expected, table) = state(out), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].nan_to_num(-9), theirs[name].nan_to_num(-9)) for name in ours)
    assert metrics == expected and guard == table
    config = read_config(out / "config.yaml", {})
    assert config.curriculum.kind == "hardness" and config.sampling.guard == 0.99


def output(similarity: list[list[float]]) -> Any:
    similar = torch.tensor(similarity)
    index = torch.where(similar > -math.inf, 0, -1)
    return {"selection": Selection(index, similar, index, similar)}


def test_the_kth_similarity_decides(videos: Path) -> None:
    curriculum = Curriculum("hardness", 10, cross_only=0.1, narrow_below=0.4)
    batches = FrameBatches(VideoCatalog.scan(videos), DenseSampler(), curriculum=curriculum)
    strategy = SimpleNamespace(reduce=lambda found, reduce_op: found)
    module: Any = SimpleNamespace(device="cpu")
    windows = NarrowingWindows(batches)

    def epoch(number: int, *steps: list[list[float]]) -> tuple[int, ...]:
        trainer: Any = SimpleNamespace(strategy=strategy, current_epoch=number)
        windows.on_train_epoch_start(trainer, module)
        for step in steps:
            windows.on_train_batch_end(trainer, module, output(step), None, 0)  # type: ignore[arg-type]
        windows.on_train_epoch_end(trainer, module)
        return batches.narrowed

    missing = -math.inf
    assert epoch(0, [[0.1, 0.1]]) == ()  # cross-video negatives only
    assert epoch(1, [[0.9, 0.5], [0.9, 0.2]], [[0.9, 0.6], [missing, missing]]) == ()
    assert epoch(2, [[0.9, 0.5], [0.9, 0.2]], [[0.45, missing], [missing, missing]]) == (3,)
    assert epoch(3, [[missing, missing]]) == (3,) == epoch(4)
    assert epoch(5, [[0.3]]) == (3, 6) == epoch(6, [[0.3]])  # there are three windows
    assert [batches.window(e) for e in (2, 3, 6)] == list(curriculum.windows)
    resumed = FrameBatches(batches.catalog, DenseSampler(), curriculum=curriculum)
    NarrowingWindows(resumed).load_state_dict(windows.state_dict())
    assert resumed.narrowed == (3, 6)
    keys = list(resumed.loader().sampler)
    assert keys[0] == (0, 0, (3, 6))  # workers have the batches of the start
    assert torch.equal(resumed[6, 0, (3,)].time.nan_to_num(), resumed[6, 0].time.nan_to_num())

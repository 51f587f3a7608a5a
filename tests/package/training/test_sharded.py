"""Two processes train with one bank: through DistributedDataParallel, stopped and resumed."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image


def videos(root: Path) -> None:
    """Six videos of 16 frames of a drifting texture."""
    rng = np.random.default_rng(0)
    for video in range(6):
        (root / f"video{video}").mkdir(parents=True)
        texture = rng.integers(0, 256, (40, 80), dtype=np.uint8)
        for frame in range(16):
            image = Image.fromarray(texture[:, 2 * frame : 2 * frame + 40])
            image.save(root / f"video{video}" / f"{frame:02}.png")


def fit(rank: int, folder: Path, search: str = "exact", start: Path | None = None) -> Any:
    """A module after two epochs; each rank sees other batches."""
    from dataclasses import replace

    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy

    from usucl.data import VideoCatalog
    from usucl.training import read_config
    from usucl.training.fitting import make_datamodule
    from usucl.training.module import ContrastiveTraining

    options = {"backbone": "resnet10", "image_size": 32, "dim": 8, "videos": 3, "frames": 4}
    more = {"steps_per_epoch": 2, "cross_k": 4, "bank": 20, "sharded": True, "search": search}
    config = read_config("dense", {"data": str(folder / "data"), "epochs": 2, **options, **more})
    torch.manual_seed(0)
    module = ContrastiveTraining(config)
    module.encoder.eval()  # running statistics, the same on every rank
    data = make_datamodule(VideoCatalog.scan(config.data), replace(config, seed=rank))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=2,
        callbacks=[ModelCheckpoint(folder / search, "{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data, ckpt_path=start)
    return module


def train(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        WORLD_SIZE="2",
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
    )
    whole = fit(rank, folder)
    half = folder / "exact" / "epoch=0.ckpt"
    dist.barrier()
    parts = torch.load(half, weights_only=False)["bank"]
    assert len(parts) == 2 and not torch.equal(parts[0]["embedding"], parts[1]["embedding"])
    resumed, flat = fit(rank, folder, start=half), fit(rank, folder, "Flat")
    for other in (resumed, flat):
        for name, column in whole.bank.local.state_dict().items():
            assert torch.equal(
                column.nan_to_num(), other.bank.local.state_dict()[name].nan_to_num()
            ), name
        for ours, theirs in zip(whole.parameters(), other.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_one_bank_of_two_processes(tmp_path: Path) -> None:
    videos(tmp_path / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(train, (tmp_path, port), 2)

"""The sheet of mined negatives shows the frames that the loss has selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BACKBONE, make_data
from torch import Tensor

from usucl.data import FrameBatch, FrameBatches, VideoCatalog
from usucl.losses import contrastive_loss
from usucl.methods import METHODS
from usucl.training import read_config
from usucl.training.callbacks.negatives import Step, _picture
from usucl.training.fitting import make_datamodule


def encode(images: Tensor) -> Tensor:
    """An embedding from which the image can be told."""
    small = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
    return torch.nn.functional.normalize(small - small.mean(1, keepdim=True), dim=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=4, frames=12)


def every_view(batch: FrameBatch) -> Tensor:
    views = (batch.anchor_view, batch.positive_view, batch.negative_view)
    return torch.cat([view.reshape(-1, *view.shape[-3:]) for view in views])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positives": 2},
        {"key.momentum": 0.9},
        {"key.momentum": 0.9, "positives": 2},
        {"key.momentum": 0.9, "key.negatives": "momentum", "positives": 2},
        {"method": "paper", "sampling.videos": 4},
    ],
)
def test_every_key_is_shown_as_what_was_embedded(videos: Path, options: dict[str, Any]) -> None:
    preset = options.get("method", "dense")
    size = {"image_size": 32, "backbone": BACKBONE, "pretrained": False, "key.bank": 0}
    config = read_config(preset, {"data": str(videos), **size, **options})
    batches: FrameBatches = make_datamodule(VideoCatalog.scan(videos), config).batches
    batch = batches[2, 0]
    window = torch.tensor([0.1, 1.0]).expand(len(batch.video), 2)
    method = METHODS[preset](config.sampling, config.key)
    inputs = method.inputs(batch, encode, encode, window)
    loss, selection = contrastive_loss(inputs, intra_k=2, cross_k=2)
    step = Step(batch, {"loss": loss, "inputs": inputs, "selection": selection}, batches, "", False)
    embedded = {
        tuple(_picture(view).flatten().tolist()): encode(view[None])[0]
        for view in every_view(batch)
    }
    keys = torch.cat([block.embedding for block in inputs.negatives])
    for index in range(len(keys)):
        key = step._key(0, index, 0.0)
        assert key.image is not None, index
        shown = embedded[tuple(key.image.flatten().tolist())]
        torch.testing.assert_close(shown, keys[index], rtol=0, atol=1e-6)

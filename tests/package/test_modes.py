"""Files are for those whom the umask allows, not for their writer alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from usucl import NegativeBank
from usucl._files import write_json, write_tensors
from usucl._tables import write_table
from usucl.embedding import Embeddings
from usucl.models import EncoderConfig, FrameEncoder, export, save_encoder
from usucl.training.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


def _embeddings(folder: Path) -> None:
    frames = torch.eye(2), torch.eye(2), torch.arange(2), torch.zeros(2, dtype=torch.int64)
    texts = ("a", "b"), ("a", "b"), (None, None), (True, False)
    embeddings = Embeddings(*frames, torch.zeros(2), (None, None), *texts)
    for format in ("safetensors", "npz", "csv"):
        embeddings.save(folder / format, "e", format)


def _encoder(folder: Path) -> None:
    save_encoder(FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=8)), folder)
    export(folder)
    export(folder, out=folder / "weights.pth")


WRITERS: dict[str, Callable[[Path], None]] = {
    "bank": lambda folder: NegativeBank(4, 2).save(folder / "bank"),
    "checkpoint": lambda folder: Checkpoints().save_checkpoint({"a": 1}, folder / "last.ckpt"),
    "embeddings": _embeddings,
    "encoder": _encoder,
    "json": lambda folder: write_json(folder / "table.json", {"a": 1}),
    "table": lambda folder: write_table(folder / "table.csv", ("a",), [(1,)]),
    "tensors": lambda folder: write_tensors(folder / "t.safetensors", {"a": torch.zeros(2)}),
}


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A umask that nobody may look up, since that changes it for all threads of the process."""
    before = os.umask(request.param)
    with monkeypatch.context() as patch:
        patch.delattr(os, "umask")
        yield request.param
    os.umask(before)


@pytest.mark.parametrize("name", WRITERS)
def test_files_have_the_modes_of_the_umask(name: str, umask: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: oct(0o666 & ~umask) for path in files
    }

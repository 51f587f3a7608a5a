"""Fixtures: a gallery of a few small videos, built once for all tests of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shell import write_run, write_video

from usucl.gallery import Gallery


@pytest.fixture(autouse=True)
def few_threads(one_thread: None) -> None:
    """Uses one thread in every test, as the gallery is small."""


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of four patients in three folds, and one that cannot be read.

    Video e is a copy of b, darker and one frame shorter, under another patient's name.
    """
    root = tmp_path_factory.mktemp("data") / "videos"
    for seed, name in enumerate("abcd"):
        write_video(root / name, seed)
    (root / "e").mkdir()
    for number in range(3):
        grey = np.array(Image.open(root / "b" / f"{number}.png"))
        Image.fromarray((grey * 0.98).astype(np.uint8)).save(root / "e" / f"{number}.png")
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "labels.csv").write_text(
        "video_id,label,patient,fold\na,cyst,p1,0\nb,stone,p1,0\nc,cyst,p2,1\nd,,,\ne,stone,p3,2\n"
    )
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an untrained encoder."""
    return write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def bank(videos: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the gallery."""
    out = tmp_path_factory.mktemp("bank") / "bank"
    Gallery.build(run=run, data=videos, out=out)
    return out


def assert_same_gallery(a: Path, b: Path) -> None:
    one, other = Gallery.open(a), Gallery.open(b)
    assert one.contents.videos == other.contents.videos
    for x, y in zip(one.bank.frames(), other.bank.frames(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def interrupt(*_: object) -> None:
    """Stands in for a function that Ctrl-C interrupts."""
    raise KeyboardInterrupt

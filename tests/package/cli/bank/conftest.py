"""A bank of a few small videos, built once for all tests of its commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import write_run, write_video

from usucl.cli import main


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """In every test: so small is the bank."""


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of four patients in three folds, and one that cannot be read.

    Video e is a copy of b, darker and with a frame less, under another patient's name.
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
    return write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def bank(videos: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bank") / "bank"
    assert main(["bank", "build", str(run), str(videos), "--out", str(out)]) == 0
    return out

"""What tests of the shell commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from usucl.cli import main
from usucl.models import EncoderConfig, FrameEncoder, save_encoder

_SIZE = 40


def write_video(folder: Path, seed: int, frames: int = 4) -> None:
    """Writes a folder of frames of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(frames):
        grey = rng.integers(0, 256, (_SIZE, _SIZE), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")


def write_run(folder: Path, seed: int = 0) -> Path:
    """Writes as much of a run as the bank needs: a small untrained encoder."""
    torch.manual_seed(seed)
    save_encoder(FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=16)), folder)
    return folder


def stderr_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the only line that a command has written, its error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("usucl: error: ")
    return line


def bank_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Returns the answer of ``usucl bank WORDS --json``."""
    capsys.readouterr()
    assert main(["bank", *words, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer

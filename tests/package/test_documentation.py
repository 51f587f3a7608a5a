"""The examples in README.md and docs run as they are written, and the commands of docs/data.md."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import make_data
from small_blues import write_blues
from tiny_dicom import SYNTAXES
from tiny_dicom import write as write_dicom
from tiny_videos import moving, write

from usucl.cli import main
from usucl.data import VideoCatalog, write_phantom
from usucl.models import EncoderConfig, FrameEncoder, save_encoder

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/python.md", "docs/augmentation.md", "docs/data.md")
OPTIONAL = ("lightly",)

pytestmark = pytest.mark.usefixtures("one_thread")


def examples(name: str) -> list[Any]:
    """The Python of a page, each with the heading above it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        heading = re.findall(r"^#+ (.+)$", text[: match.start()], re.MULTILINE)[-1]
        found.append(pytest.param(match[1], id=f"{heading} {len(found)}"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples are about: videos, a run, an image."""
    root = tmp_path_factory.mktemp("documented")
    data = make_data(root / "my" / "videos", videos=4, frames=4)
    write(data / "case7.mp4", moving(14))
    save_encoder(FrameEncoder(EncoderConfig()), root / "runs" / "first")
    (root / "runs" / "first" / "split.csv").write_text("video_id,group,label,part\n")
    (root / "frame.png").write_bytes((data / "video_0" / "0.png").read_bytes())
    return root


@pytest.mark.parametrize("code", [code for page in PAGES for code in examples(page)])
def test_the_examples_run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in OPTIONAL:
        if f"from {library}" in code and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    for name in ("loss", "features", "embedding"):
        if name in names:
            assert torch.as_tensor(names[name]).isfinite().all()


def write_archive(root: Path) -> None:
    """Writes what a device exports: loops of six patients, without suffixes, by study."""
    phantoms = write_phantom(root / "phantoms", videos=12, frames=8, image_size=64)
    syntaxes = list(SYNTAXES.values())
    for i, entry in enumerate(VideoCatalog.scan(phantoms)):
        grey = entry.open()[:][:, 0].numpy()
        study = root / "archive" / f"ST{i // 2:04d}"
        study.mkdir(parents=True, exist_ok=True)
        write_dicom(
            study / f"IM_{i:04d}",
            np.pad(grey, ((0, 0), (12, 12), (20, 20))),
            syntax=syntaxes[i % len(syntaxes)],
            PatientID=f"P{i // 2}",
            FrameTime=40.0,
        )


def test_the_commands_of_the_page_on_data_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive(tmp_path)
    write_blues(tmp_path / "COVID-BLUES")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 12
    for program, *words in commands:
        assert program == "usucl"
        assert main(words) == 0, (words, capsys.readouterr().err)
    for made in ("sectors/sectors.html", "sectors/ST0003/IM_0007/times.csv", "curriculum.svg"):
        assert (tmp_path / made).is_file(), made
    for made in ("encoder.safetensors", "report.html"):
        assert (tmp_path / "runs" / "try" / made).is_file(), made
    sweeps = VideoCatalog.scan("archive", sweep="^(ST[0-9]+)/")
    assert len(sweeps) == 6 and sweeps.patients == "known"
    assert "bank.json" in [file.name for file in (tmp_path / "runs" / "try-bank").iterdir()]

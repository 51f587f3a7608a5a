"""The examples in README.md, docs/python.md and docs/augmentation.md run as they are written."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_data
from tiny_videos import moving, write

from usucl.models import EncoderConfig, FrameEncoder, save_encoder

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/python.md", "docs/augmentation.md")
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

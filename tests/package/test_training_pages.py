"""The commands and the Python of the pages on training run as written, with small presets."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from runs import BACKBONE, make_data
from tiny_videos import moving, write

from usucl.cli import main

# Packages have functions of these names, too.
training_presets = importlib.import_module("usucl.training.presets")
finetuning_presets = importlib.import_module("usucl.finetuning.config")
comparison_presets = importlib.import_module("usucl.comparison.design.config")
comparison = importlib.import_module("usucl.comparison.comparing")

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (
    "training",
    "watching",
    "processes",
    "backbones",
    "finetuning",
    "comparison",
    "start",
    "evaluation",
    "gallery",
    "loss",
    "loops",
)
WITH_A_RUN = ("finetuning", "backbones", "evaluation", "gallery")  # about one that is there
NEEDED = {"backbones": ("timm",), "loops": ("lightly", "pytorch_metric_learning")}
SHORT = ("processes", "evaluation", "loss")  # pages with one block

BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)

PRETRAINING = {"epochs": 2, "log_every": 1}
ENCODER = {"backbone": BACKBONE, "image_size": 32, "pretrained": False}
LABELS = ("covid", "regular", "pneumonia", "regular", "covid", "viral")  # of each patient
SAMPLING = {
    "dense": {"videos": 4, "frames": 3, "steps_per_epoch": 2},
    "paper": {"videos": 4},
    "paper-code": {"videos": 4},
}
FINETUNING = {
    "epochs": 1,
    "image_size": 32,
    "frames_per_video": 1,
    "test_frames_per_video": 2,
    "folds": 2,
    "resamples": 100,
}

COMPARISON = {
    "seeds": 3,
    "folds": 2,
    "steps": 2,
    "epochs": 1,
    "frames": 4,
    "videos": 2,
    "backbone": BACKBONE,
    "image_size": 32,
    "probe_frames": 2,
    "resamples": 100,
}

pytestmark = pytest.mark.usefixtures("one_thread", "blank_pictures")


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the presets those of small runs; what a command changes is changed as written."""
    load = training_presets.load_yaml

    def pretraining(source: str | Path, text: str) -> dict[str, Any]:
        content = load(source, text)
        if source in SAMPLING:
            content |= PRETRAINING
            content["encoder"] |= ENCODER
            content["sampling"] |= SAMPLING[str(source)]
        return content

    def finetuning(source: str | Path, text: str) -> Mapping[str, Any]:
        return load(source, text) | (FINETUNING if source in finetuning_presets.PRESETS else {})

    def comparing(source: str | Path, text: str) -> dict[str, Any]:
        content = load(source, text)
        is_stored = "comparison.yaml" in str(source)
        return content if is_stored else content | COMPARISON

    monkeypatch.setattr(comparison_presets, "load_yaml", comparing)

    def planned(config: Any, folds: Sequence[int]) -> list[Any]:
        return plan(replace(config, seeds=1), folds)

    plan = comparison.planned
    monkeypatch.setattr(comparison, "planned", planned)
    monkeypatch.setattr(comparison, "_processes", lambda given: 1)
    monkeypatch.setattr(training_presets, "load_yaml", pretraining)
    monkeypatch.setattr(finetuning_presets, "load_yaml", finetuning)


def write_videos(folder: Path) -> None:
    """Writes two videos of each of six patients, with labels."""
    make_data(folder, videos=12, frames=6)
    rows = [f"video_{v},{LABELS[v // 2]},patient_{v // 2}" for v in range(12)]
    (folder / "labels.csv").write_text("\n".join(["video_id,label,patient", *rows]))


def write_own_videos(folder: Path) -> None:
    """Writes videos in a folder per patient, and a single one."""
    for patient in range(6):
        make_data(folder / f"case{patient}", videos=2, frames=6, labels=False)
    write(folder / "case7.mp4", moving(14))


def write_official(file: Path) -> None:
    """Writes a checkpoint with the names of the official ones."""
    network = torchvision.models.resnet50(num_classes=128)
    network.fc = torch.nn.Sequential(
        torch.nn.Linear(2048, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 128)
    )
    state = {f"module.encoder_q.{k}": v for k, v in network.state_dict().items()}
    torch.save({"epoch": 60, "arch": "resnet50", "state_dict": state}, file)


def blocks(page: str) -> list[tuple[str, str]]:
    """Returns the kind and the text of what a reader of a page would run, in its order."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [(match[1], match[2]) for match in BLOCK.finditer(text)]


def commands(block: str) -> Iterator[tuple[list[str], str | None]]:
    """Yields the words of each command in a block, and the file that its output goes to."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        into = words[words.index(">") + 1] if ">" in words else None
        yield words[: words.index(">")] if into else words, into


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(
    page: str,
    small_presets: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for library in NEEDED.get(page, ()):
        pytest.importorskip(library)
    write_videos(tmp_path / "videos")
    if any("official.pth.tar" in text for _, text in blocks(page)):
        write_official(tmp_path / "official.pth.tar")
    write_own_videos(tmp_path / "my" / "videos")
    monkeypatch.chdir(tmp_path)
    if page in WITH_A_RUN:
        assert main(["train", "videos", "--out", "runs/first"]) == 0
    names: dict[str, Any] = {"__name__": "example"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
        elif kind == "yaml":
            Path("own.yaml").write_text(text, encoding="utf-8")
        else:
            for words, into in commands(text):
                assert words[0] == "usucl", words
                with contextlib.ExitStack() as stack:
                    if into is not None:
                        file = stack.enter_context(Path(into).open("w"))
                        stack.enter_context(contextlib.redirect_stdout(file))
                    code = main(words[1:])
                assert code == 0, (words, capsys.readouterr().err)
    assert len(blocks(page)) > (0 if page in SHORT else 1)


def test_the_lines_of_the_loops_are_counted() -> None:
    text = (DOCS / "loops.md").read_text(encoding="utf-8")
    _, *loops = [block for kind, block in blocks("loops") if kind == "python"]
    lines = [sum(1 for line in block.splitlines() if line.strip()) for block in loops]
    named = re.findall(
        r"^\| (USUCL|lightly|pytorch-metric-learning) \| (\d+) \|", text, re.MULTILINE
    )
    assert [int(count) for _, count in named] == lines

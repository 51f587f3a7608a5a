"""The programs under examples run, with fewer steps and frames, and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *options: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_explained_and_tested() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == {"loss.py", "pretrain.py", "bank.py"}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`python examples/{name}`" in page for name in programs)


def test_intra_video_negatives_tell_the_place(tmp_path: Path) -> None:
    """Without any the error is about that of a guess, 1/3; with them it is a quarter lower."""
    errors = re.findall(r"(0\.\d+) of the video", run("loss.py", "--steps", "60", folder=tmp_path))
    without, with_them = map(float, errors)
    assert with_them < 0.75 * without


def test_a_bank_is_searched(tmp_path: Path) -> None:
    said = run("bank.py", "--frames", "20000", folder=tmp_path)
    assert "exact" in said and "IVF256,Flat" in said and "512 negatives found" in said


def test_an_encoder_is_trained_and_reported(tmp_path: Path) -> None:
    said = run("pretrain.py", "--steps", "2", "--videos", "10", folder=tmp_path)
    for encoder in ("trained", "random", "pixels"):
        assert re.search(rf"^  temporal +{encoder} +[01]\.\d\d$", said, re.MULTILINE), encoder
    assert (tmp_path / "runs" / "example" / "report.html").is_file()

"""A few damaged files of some kinds; ``python -m tests.soak files`` tries thousands of all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from tests.soak.files.damage import damaged
from tests.soak.files.sandbox import Sandbox, attempt
from usucl.data.video import read_image

ROOT = Path(__file__).parents[3]
SOME = ("video-mp4", "dicom-jpeg-lossless", "manifest", "checkpoint", "bank-tensors", "sweeps.csv")


def test_damaged_files_end_no_reader(tmp_path: Path) -> None:
    """In a process of its own, as a fork of one that has used several threads may hang."""
    command = [
        sys.executable,
        "-m",
        "tests.soak",
        "files",
        "--reader",
        *SOME,
        "--inputs",
        "4",
        "--jobs",
        "1",
        "--folder",
        str(tmp_path),
    ]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("size", [1, 2, 100, 5000])
def test_damage_changes_every_file(size: int) -> None:
    content = Random(0).randbytes(size)
    assert all(damaged(content, Random(i)) != content for i in range(300))


def test_outcomes_of_attempts(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def refuse(_: Path) -> None:
        raise ValueError("a.bin: broken")

    def forget(_: Path) -> None:
        raise ValueError("broken")

    def ask(_: Path) -> bytes:
        return bytes(8 << 30)

    def die(_: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    expected = {refuse: "refused", forget: "traceback", ask: "memory", die: "crash", str: "read"}
    assert {read: attempt(read, path).outcome for read in expected} == expected


def test_what_a_file_newly_leads_to_is_noted(tmp_path: Path) -> None:
    path, known = tmp_path / "a.png", set[int]()
    Image.new("L", (8, 8)).save(path)
    with Sandbox(read_image, path, known) as sandbox:
        sandbox.attempt()  # sets the library up
        first, second = (sandbox.attempt() for _ in range(2))
        assert first.outcome == "read" and first.digest == second.digest and not second.steps
        path.write_bytes(path.read_bytes()[:40])
        cut = sandbox.attempt()
    assert cut.outcome == "refused" and cut.steps

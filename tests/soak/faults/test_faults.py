"""A training, disturbed twice; ``python -m tests.soak faults`` disturbs every command for hours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are preloaded as Linux does")
@pytest.mark.skipif(not shutil.which(os.environ.get("CC", "cc")), reason="there is no compiler")
def test_a_training_ends_as_if_it_had_not_been_disturbed(tmp_path: Path) -> None:
    """In processes of their own, into which the library is preloaded."""
    out = tmp_path / "faults.json"
    words = ["--command", "train", "--fault", "SIGKILL", "full disk", "--points", "1"]
    words += ["--jobs", "1", "--folder", str(tmp_path / "work"), "--out", str(out)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "faults", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(out.read_text())["counts"]["train"]
    assert counts["SIGKILL"] == {"ended": 1}
    assert sum(counts["full disk"].values()) == 1

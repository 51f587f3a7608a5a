"""Pictures are drawn wherever the process runs: no backend, no home, no UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from usucl._environment import drop_missing_backend

DRAW = """
import sys
from pathlib import Path
import usucl
from usucl import _style
from usucl._files import write_json
from usucl.report import figures, page
from matplotlib.figure import Figure
with _style.styled():
    figure = Figure((2, 1))
    figure.text(0, 0, _style.shortened("\\xe9$\\u202e", 9))
    _style.save(figure, Path("out/\\udcc3\\udca9.png"))
write_json(Path("out/\\udcc3\\udca9.json"), {"name": "\\xe9\\udcff"})
assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
"""


def test_pictures_need_no_backend_no_home_and_no_locale(tmp_path: Path) -> None:
    """As from a cell of a notebook, in a container without a home, in the C locale."""
    surroundings = {
        "MPLBACKEND": "module://matplotlib_inline.not_here", "HOME": "/proc/nowhere",
        "TMPDIR": "/proc/nowhere", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0",
    }  # fmt: skip
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        surroundings[name] = ""
    done = subprocess.run(
        [sys.executable, "-W", "error::EncodingWarning", "-c", DRAW],
        cwd=tmp_path, env={**os.environ, **surroundings, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("backend", "stays"),
    [
        ("module://matplotlib_inline_x.backend_inline", False),
        ("matplotlib_inline_x.backend_inline", False),
        ("module://..", False),
        ("module://os.path", True),
        ("agg", True),
        ("TkAgg", True),
        ("", True),
    ],
)
def test_only_a_backend_that_is_not_installed_is_dropped(
    monkeypatch: pytest.MonkeyPatch, backend: str, stays: bool
) -> None:
    monkeypatch.setenv("MPLBACKEND", backend)
    drop_missing_backend()
    assert (os.environ.get("MPLBACKEND") == backend) is stays

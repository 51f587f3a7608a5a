"""``python -m tests.wheels FOLDER``: the wheels in a folder, installed as a stranger installs them.

uv makes an environment for each Python and each release of torch, with the wheel and its extra
``train``, and installed.py runs in it. Neither a compiler nor a CUDA toolkit is on its PATH. The
table says how long everything took, and for what there is no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOLDEN = Path(os.environ.get("USUCL_GOLDEN") or HERE.parents[2] / "shared" / "golden")
COLUMNS = {
    "python": "Python",
    "torch": "torch",
    "cuda": "its CUDA",
    "install": "install [s]",
    "import": "import [s]",
    "golden": "golden values [s]",
    "operators": "operators [s]",
    "training": "training [s]",
    "result": "result",
}
BESIDE = str(Path(sys.executable).parent)  # where the environment that this runs in has programs
UV = shutil.which("uv", path=os.pathsep.join([BESIDE, os.environ["PATH"]]))


def main() -> int:
    """Prints the table; returns 1 if a wheel failed anywhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheels", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels are")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="versions or paths")
    parser.add_argument("--torch", nargs="+", required=True, help="releases, such as 2.11")
    options = parser.parse_args()
    if UV is None:
        parser.error("uv is needed: pip install uv")
    if not GOLDEN.is_dir():
        parser.error(f"no folder {GOLDEN}: set USUCL_GOLDEN to where the golden files are")
    print(_line(list(COLUMNS.values())), _line(["--"] * len(COLUMNS)), sep="\n", flush=True)
    failed = 0
    for python in options.python:
        version = _output(UV, "run", "--no-project", "--python", python, "python", "-V").split()[1]
        wheel = _wheel(options.folder, version)
        for torch in options.torch:
            facts = {"python": version, "torch": torch, **_tried(python, wheel, torch)}
            print(_line([facts.get(name, "") for name in COLUMNS]), flush=True)
            failed += facts["result"].startswith("failed")
    return int(failed > 0)


def _wheel(folder: Path, version: str) -> Path:
    tag = "cp" + "".join(version.split(".")[:2])
    found = sorted(folder.glob(f"usucl-*-{tag}-{tag}-*.whl"))
    if len(found) != 1:
        sys.exit(f"{folder} must hold one wheel for Python {version}, got {len(found)}")
    return found[0].resolve()


def _tried(python: str, wheel: Path, torch: str) -> dict[str, Any]:
    """Returns times and the result of a wheel in an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="usucl-wheel-") as folder:
        inside = Path(folder, "venv", "bin")
        new = str(inside / "python")
        _output(UV, "venv", "--quiet", "--python", python, str(inside.parent))
        start = time.monotonic()
        wanted = [f"usucl[train] @ {wheel.as_uri()}", f"torch=={torch}.*", "pytest"]
        done = subprocess.run(
            [str(UV), "pip", "install", "--quiet", "--python", new, *wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            absent = "no wheels with a matching Python" in " ".join(done.stderr.split())
            return {"result": "no such torch" if absent else _failure(done.stderr)}
        install = round(time.monotonic() - start, 1)
        done = subprocess.run(
            [new, "-I", str(HERE / "installed.py"), str(GOLDEN.resolve())],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={"PATH": str(inside), "HOME": folder},
        )
        if done.returncode:
            return {"install": install, "result": _failure(done.stderr)}
        return {"install": install, **json.loads(done.stdout.splitlines()[-1]), "result": "passed"}


def _failure(errors: str) -> str:
    print(errors, file=sys.stderr)
    return f"failed: {errors.strip().splitlines()[-1]}"


def _output(*command: str | None) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())

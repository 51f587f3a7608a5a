"""What setup.py refuses, in a sentence, before anything is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLD_GCC = "#!/bin/sh\necho '#define __GNUC__ 10'\n"
CPP_EXTENSION = """
from setuptools import Extension
from setuptools.command.build_ext import build_ext as BuildExtension

def CppExtension(name, sources, include_dirs, define_macros, extra_compile_args):
    return Extension(name, sources)

CUDAExtension = CppExtension
"""


def refusal(tmp_path: Path, torch: str | None, **variables: str) -> str:
    """Returns the last line of a build with a torch that is nothing but a version."""
    package = tmp_path / "torch"
    (package / "utils").mkdir(parents=True)
    absent = "raise ModuleNotFoundError(name='torch')"
    code = absent if torch is None else f"__version__ = {torch!r}"
    (package / "__init__.py").write_text(f"{code}\nfrom types import SimpleNamespace\n")
    with (package / "__init__.py").open("a") as file:
        file.write("version = SimpleNamespace(cuda=None)\n")
    (package / "utils" / "__init__.py").touch()
    (package / "utils" / "cpp_extension.py").write_text(CPP_EXTENSION)
    (tmp_path / "old-gcc").write_text(OLD_GCC)
    (tmp_path / "old-gcc").chmod(0o755)
    words = [str(ROOT / "setup.py"), "-q", "build_ext", "--build-lib", str(tmp_path / "built")]
    done = subprocess.run(
        [sys.executable, *words, "--build-temp", str(tmp_path / "temporary")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "USUCL_CUDA": "auto", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "built").exists()
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("torch", "variables", "told"),
    [
        (None, {}, "usucl needs torch to build: leave out --no-build-isolation, or"),
        ("2.10.2+cpu", {}, "usucl needs torch 2.11 or newer to build, got 2.10.2+cpu"),
        ("2.15.0", {"CXX": "no-such-c++"}, "usucl needs a C++ compiler: no-such-c++ not found"),
        (
            "2.15.0",
            {"CXX": "./old-gcc"},
            "usucl needs GCC 11 or newer, or Clang: ./old-gcc is GCC 10",
        ),
        ("2.15.0", {"USUCL_CUDA": "yes"}, "USUCL_CUDA must be auto, 0 or 1, got 'yes'"),
        (
            "2.15.0",
            {"USUCL_CUDA": "1"},
            "USUCL_CUDA=1, but the CUDA library cannot be built",
        ),
    ],
    ids=["no torch", "old torch", "no compiler", "old compiler", "wrong wish", "no CUDA"],
)
def test_it_says_what_is_missing(
    tmp_path: Path, torch: str | None, variables: dict[str, str], told: str
) -> None:
    assert refusal(tmp_path, torch, **variables).startswith(told)

"""What the project says of itself in more than one place."""

from __future__ import annotations

from pathlib import Path

import yaml

import usucl_ext

ROOT = Path(__file__).resolve().parents[1]


def test_the_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == usucl_ext.__version__
    assert citation["license"] == "Apache-2.0"


def test_hooks_run_what_the_makefile_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks["repos"][0]["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{program}" in makefile, program


def test_no_file_of_code_is_long() -> None:
    folders = ("csrc", "usucl_ext", "python", "docs", "benchmarks", "tests")
    suffixes = {".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    lines = {p: len(p.read_text().splitlines()) for p in files if p.suffix in suffixes}
    assert {p.name: count for p, count in lines.items() if count > 400} == {}

"""What the project says of itself in more than one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import usucl_ext
from usucl_ext._requirements import OLDEST_TORCH

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Returns the anchors of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_the_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == usucl_ext.__version__
    assert citation["license"] == "Apache-2.0"


def test_the_oldest_torch_is_one_everywhere() -> None:
    oldest = ".".join(map(str, OLDEST_TORCH))
    for file in ("pyproject.toml", "README.md", "docs/start.md"):
        named = re.findall(r"torch>=([\d.]*\d)", (ROOT / file).read_text(encoding="utf-8"))
        assert set(named) <= {oldest}, file
    assert f'"torch>={oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_lock_holds_the_constraints() -> None:
    """What `make lock` would change at once; platforms that have no constraints are left out."""

    def pins(file: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==[^\s;]+", (ROOT / file).read_text(), re.M))

    locked, pinned = pins("requirements.lock"), pins("constraints.txt")
    names = {pin.partition("==")[0] for pin in pinned}
    assert {pin for pin in locked if pin.partition("==")[0] in names} == pinned


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

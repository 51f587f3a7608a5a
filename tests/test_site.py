"""The documentation is built without warnings, and its reference has every public name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from inspect import isclass, isfunction
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="sphinx is not installed")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "usucl",
    "usucl_ext",
    "usucl.losses",
    "usucl.data",
    "usucl.training",
    "usucl.methods",
    "usucl.finetuning",
    "usucl.models",
    "usucl.evaluation",
    "usucl.comparison",
    "usucl.bank",
    "usucl.gallery",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    """That each is in the table of contents is what Sphinx itself warns of."""
    pages = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    built = {p.relative_to(site).with_suffix("") for p in site.rglob("*.html")}
    assert len(pages) > 25 and pages <= built


def test_the_reference_has_every_public_name(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    known = {name.rpartition(".")[2] for name in re.findall(r'<dt [^>]*id="([\w.]+)"', pages)}
    for package in PACKAGES:
        module = importlib.import_module(package)
        members = {name: getattr(module, name) for name in module.__all__}
        public = {name for name, m in members.items() if isclass(m) or isfunction(m)}
        assert public and public <= known, package

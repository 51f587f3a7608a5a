"""The page on what goes wrong quotes what the program says, and names options that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from usucl.training import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OF_OTHERS = {"CUDA out of memory"}


@cache
def sayings() -> str:
    """All texts in the package, adjacent ones joined, with … for what is put into them."""
    found = []
    for file in (ROOT / "python" / "usucl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
    return "\n".join(found)


def quoted() -> list[str]:
    """What stands in code in the first column of tables whose head says that it is printed."""
    texts: list[str] = []
    for table in re.findall(r"^\| it says .*\n(?:\|.*\n)+", PAGE, re.MULTILINE):
        for row in table.splitlines()[2:]:
            texts += re.findall(r"`([^`]+)`", row.split("|")[1])
    return texts


@pytest.mark.parametrize("text", quoted())
def test_a_quoted_message_is_one_of_the_program(text: str) -> None:
    if text not in OF_OTHERS:
        assert text.removesuffix(" …") in sayings()


def test_the_options_that_it_names_exist() -> None:
    config = TrainingConfig()
    named = re.findall(r"`([a-z_]+)\.([a-z_]+)(?:=[^`]*)?`", PAGE)
    options = [(section, option) for section, option in named if hasattr(config, section)]
    assert len(options) > 15
    for section, option in options:
        assert hasattr(getattr(config, section), option), f"{section}.{option}"

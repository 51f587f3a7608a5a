"""What needs more than the base installation says in one sentence what to install."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from typing import Any

import pytest

EXTRAS = (
    "PIL,av,faiss,jsonargparse,lightning,matplotlib,onnx,pydicom,sklearn,tensorboard,torchvision,"
    "yaml"
)
BASE = "docstring_parser,rich,safetensors"  # beside PyTorch and NumPy
CODE = """
import contextlib, io, json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import usucl
from usucl.cli import main

said = {}
for words in sys.argv[2:]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words.split())
        except SystemExit as end:  # after help
            code = end.code
    said[words] = code, out.getvalue(), err.getvalue()
for name in dir(usucl):
    try:
        said[name] = repr(getattr(usucl, name))
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
COMMANDS = ("--help", "train --help", "info", "data check .")


@functools.cache
def said(hidden: str) -> dict[str, Any]:
    """What commands and public names say in a process without some packages."""
    words = [sys.executable, "-c", CODE, hidden, *COMMANDS]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=100)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_base_has_the_bank_the_help_and_the_facts() -> None:
    here = said(EXTRAS)
    assert "NegativeBank" in here["NegativeBank"] and "needs" not in here["NegativeBank"]
    for words in ("--help", "train --help", "info"):
        code, out, err = here[words]
        assert (code, err) == (0, "") and "usucl" in out


@pytest.mark.parametrize("hidden", [EXTRAS, f"{EXTRAS},{BASE}"], ids=["extras", "all"])
def test_the_rest_says_what_to_install(hidden: str) -> None:
    here = said(hidden)
    expected = r"needs \w+, which is not installed: pip install 'usucl\[train\]'"
    for name in ("Gallery", "VideoCatalog", "embed", "evaluate", "export", "load_encoder", "train"):
        assert re.fullmatch(rf"usucl\.{name} {expected}", here[name])
    for words in COMMANDS:
        code, _, err = here[words]
        if code:
            assert code == 2 and re.fullmatch(rf"usucl: error: this {expected}\n", err)
    assert here["data check ."][0] == 2

"""What needs more than the base installation says in one sentence what to install."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
NAMES = """
import json, usucl
said = {}
for name in dir(usucl):
    try:
        getattr(usucl, name)
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""
EXTRAS = (
    "PIL,av,faiss,jsonargparse,lightning,matplotlib,onnx,pydicom,sklearn,tensorboard,torchvision"
)
BASE = "docstring_parser,rich,safetensors"  # beside PyTorch and NumPy


def run(code: str, *arguments: str, base: bool = False) -> subprocess.CompletedProcess[str]:
    hidden = f"{EXTRAS},yaml,{BASE}" if base else f"{EXTRAS},yaml"
    words = [sys.executable, "-c", HIDE + code, hidden, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)


def test_the_bank_needs_the_base_only() -> None:
    done = run("from usucl import NegativeBank; print(NegativeBank(4, 2))")
    assert done.stdout == "NegativeBank(0 of 4 x 2, float32, exact, cpu)\n", done.stderr


@pytest.mark.parametrize("base", [False, True])
def test_every_public_name_is_there_or_says_what_to_install(base: bool) -> None:
    done = run(NAMES, base=base)
    said = json.loads(done.stdout)
    assert {"train", "evaluate", "load_encoder", "VideoCatalog"} <= said.keys(), done.stderr
    assert ("NegativeBank" in said) == base and "__version__" not in said
    for name, sentence in said.items():
        expected = r"needs \w+, which is not installed: pip install 'usucl\[train\]'"
        assert re.fullmatch(rf"usucl\.{name} {expected}", sentence)


COMMAND = "from usucl.cli import main; sys.exit(main(sys.argv[2:]))"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["info"]])
def test_help_and_facts_need_the_base_only(words: list[str]) -> None:
    done = run(COMMAND, *words)
    assert (done.returncode, done.stderr) == (0, "") and "usucl" in done.stdout


@pytest.mark.parametrize(
    ("words", "base"),
    [(["data", "check", "."], False), (["--help"], True), (["info"], True), (["x"], True)],
)
def test_other_commands_say_what_to_install(words: list[str], base: bool) -> None:
    done = run(COMMAND, *words, base=base)
    if done.returncode:  # help may do with less
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith("usucl: error: ")
        assert "pip install 'usucl[train]'" in line or words == ["x"]

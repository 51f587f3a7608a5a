"""The installed package: what it says of itself, what it needs, how it works without a binary."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

import usucl_ext
from usucl_ext import _library, ops

_BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({names!r}):
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
"""

_CALL = """
import logging
import torch
import usucl_ext
from usucl_ext import Frames

messages = []
class Keep(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())
logging.getLogger("usucl_ext").addHandler(Keep())

anchors = Frames(torch.eye(2, requires_grad=True), torch.tensor([0, 1]), torch.zeros(2))
keys = Frames(torch.eye(2), torch.tensor([0, 1]), torch.ones(2))
options = dict(window=(0.5, 1.5), intra_k=1, cross_k=1)
def call(**more):
    return usucl_ext.hard_negative_nce(anchors, torch.eye(2), keys, **options, **more)
"""


def python(*sources: str) -> str:
    """Runs the sources in a fresh interpreter; returns its output, or fails with its error."""
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(textwrap.dedent(source) for source in sources)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_build_info_names_what_is_there_and_why_not() -> None:
    info = usucl_ext.build_info()
    assert set(info) >= {
        "native",
        "native_reason",
        "cpu_capability",
        "cuda",
        "cuda_reason",
        "cuda_device",
        "archs",
        "versions",
    }
    for name in ("native", "cuda"):
        assert isinstance(info[name], bool)
        reason = info[f"{name}_reason"]
        assert (reason is None) == info[name]
        assert reason is None or (isinstance(reason, str) and reason)
    assert info["cuda_device"] == torch.cuda.is_available()
    assert isinstance(info["archs"], list)
    versions = info["versions"]
    assert isinstance(versions, dict) and versions["torch"] == torch.__version__
    if info["native"]:
        assert info["cpu_capability"] and versions["built_with_torch"] and versions["compiler"]


def test_build_info_may_be_changed_by_its_reader() -> None:
    usucl_ext.build_info().clear()
    assert "native" in usucl_ext.build_info()


def test_needs_torch_and_numpy_only() -> None:
    """The training package and its dependencies are neither imported nor needed."""
    names = ("torchvision", "lightning", "torchmetrics", "sklearn", "matplotlib", "usucl.")
    out = python(
        _BLOCK.format(names=names),
        _CALL,
        """
        call().backward()
        print(*sorted({name.split(".")[0] for name in sys.modules}))
        """,
    )
    assert not {"torchvision", "lightning", "sklearn", "matplotlib", "usucl"} & set(out.split())


def test_works_without_the_binary() -> None:
    """auto falls back with one logged warning, native says why it cannot, reference just works."""
    python(
        _BLOCK.format(names=("usucl_ext._C",)),
        _CALL,
        """
        info = usucl_ext.build_info()
        assert not info["native"] and not info["cuda"] and info["native_reason"], info
        call().backward()
        call()
        usucl_ext.select_negatives(anchors, keys, **options)
        assert len(messages) == 1 and "reference" in messages[0], messages
        assert call(impl="reference").item() == call().item()
        assert usucl_ext.reference.hard_negative_nce(
            anchors, torch.eye(2), keys, **options
        ).item() == call().item()
        try:
            call(impl="native")
        except RuntimeError as error:
            assert "native" in str(error) and "cpu" in str(error), error
            assert info["native_reason"] in str(error), error
        else:
            raise AssertionError("impl='native' did not raise")
        """,
    )


@pytest.mark.parametrize(
    ("torch_here", "told"),
    [
        ("", "usucl needs torch, which is not installed: pip install torch"),
        (
            "2.10.1+cpu",
            "usucl needs torch 2.11 or newer, got 2.10.1+cpu: pip install 'torch>=2.11'",
        ),
    ],
    ids=["absent", "old"],
)
def test_importing_says_which_torch_to_install(torch_here: str, told: str) -> None:
    out = python(
        f"""
        import sys
        import types

        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name="torch")

        if {torch_here!r}:
            sys.modules["torch"] = types.SimpleNamespace(__version__={torch_here!r})
        else:
            sys.meta_path.insert(0, Hidden())
        try:
            import usucl_ext
        except ImportError as error:
            print(error)
        from usucl.cli import main
        print(main(["bank", "info", "."]))
        """
    )
    assert out == f"{told}\n2\n"


def test_cuda_of_another_major_version_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = types.SimpleNamespace(build_info=lambda: {"cuda_built": True, "cuda": "13.0"})
    monkeypatch.setattr(_library, "_built", lambda name: Path(name))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    library, reason = _library._load_cuda(built)  # type: ignore[arg-type]
    assert library is None and reason is not None
    assert re.fullmatch(
        "usucl is built for CUDA 13, this PyTorch for CUDA 12.6: install a PyTorch for CUDA 13, "
        "or build usucl with a toolkit of CUDA 12",
        reason,
    )


def test_a_folder_without_binaries_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_library, "_PACKAGE", tmp_path / "usucl_ext")
    monkeypatch.setitem(sys.modules, "usucl_ext._C", None)  # importing it fails
    monkeypatch.delattr(usucl_ext, "_C", raising=False)
    for remedy in ("install usucl again with the pip of this Python", "build it with"):
        module, reason = _library._load_cpu()
        assert module is None and reason is not None
        assert str(tmp_path) in reason and remedy in reason
        (tmp_path / "setup.py").touch()


def test_importing_says_nothing() -> None:
    assert python("import usucl_ext") == ""


def test_public_names() -> None:
    assert set(usucl_ext.__all__) >= {
        "Frames",
        "HardNegativeNCE",
        "Selection",
        "build_info",
        "hard_negative_nce",
        "reference",
        "select_negatives",
    }
    assert usucl_ext.Frames._fields == ("embedding", "video", "time", "patient")
    assert usucl_ext.Selection._fields == (
        "intra_index",
        "intra_similarity",
        "cross_index",
        "cross_similarity",
    )


def test_native_refuses_a_device_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "absent_reason", lambda device: f"no kernel for {device.type!r}")
    frames = usucl_ext.Frames(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2))
    with pytest.raises(RuntimeError, match=r"impl='native' .* cpu"):
        usucl_ext.select_negatives(frames, frames, window=None, intra_k=0, cross_k=1, impl="native")


def test_paths_of_the_build_machine_stay_out() -> None:
    """Messages name files from csrc on, in libraries built wherever the checkout lies."""
    package = Path(usucl_ext.__file__).parent
    for library in package.glob("_C*.so"):
        assert str(package.parent / "csrc").encode() not in library.read_bytes(), library.name

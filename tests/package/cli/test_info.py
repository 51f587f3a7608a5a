"""``usucl info``: what is absent, and what would help."""

from __future__ import annotations

import re

import pytest

from usucl.cli import info
from usucl_ext import build_info


@pytest.mark.parametrize(
    ("cpu", "gpu", "has_device", "told"),
    [
        (None, None, False, r"absent: pip install 'usucl\[faiss\]'"),
        ("1.15", None, False, "on the CPU"),
        ("1.15", None, True, r"on the CPU; .* uninstall faiss-cpu, .* 'usucl\[faiss-gpu\]'"),
        (None, None, True, r"absent: not installed; .* GPU pip install 'usucl\[faiss-gpu\]'"),
        (None, "1.15", True, "on the GPU, .*"),
        (None, "1.15", False, "on the CPU: no GPU is here"),
        ("1.15", "1.15", True, "unsure: .* uninstall one of them"),
    ],
)
def test_it_says_where_faiss_searches(
    cpu: str | None, gpu: str | None, has_device: bool, told: str
) -> None:
    facts = {**build_info(), "cuda_device": has_device}
    versions = dict.fromkeys(info.PACKAGES, "1") | {"faiss-cpu": cpu, "faiss-gpu": gpu}
    facts["versions"] = {**facts["versions"], **versions}
    rows = dict(info._rows(facts))
    assert re.fullmatch(told, rows["FAISS"])

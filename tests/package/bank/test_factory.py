"""Strings of FAISS's index factory: what cannot be built is refused before FAISS sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from banks import frames

from usucl.bank import NegativeBank
from usucl.bank.factory import LIMIT, checked_size

pytest.importorskip("faiss")

HOSTILE = {
    "HNSW0": "links of HNSW must be in 2 .. 512",
    "HNSW1": "links of HNSW",
    "HNSW1000000": "links of HNSW",
    "HNSW4294967298": "factory string",
    "IVF16_HNSW0,Flat": "links of HNSW",
    "NSG0": "banks take",
    "NSG32": "banks take",
    "SQ8,Refine(RaBitQfs)": "what refines must be",
    "SQ8,Refine(PQ8x4fs)": "what refines must be",
    "HNSW8,PQ8x4fs": "must have Flat, SQ or PQ in a graph",
    "HNSW8_RaBitQ": "must have Flat, SQ or PQ in a graph",
    "PQ8x3": "bits of PQ must be in 4 .. 16",
    "PQ0": "must divide 32",
    "PQ7": "must divide 32",
    "PQ16x0": "bits of PQ",
    "PQ16x17": "bits of PQ",
    "PQ8x5fs": "bits of PQ",
    "HNSW8,PQ8x9": "bits of PQ",
    "PQ8x16": "capacity must be at least 65536",
    "OPQ0,PQ8": "must divide 32",
    "OPQ3,PQ8": "must divide 32",
    "OPQ16_64,IVF16,PQ16": "numbers behind OPQ must be in 1 .. 32",
    "PCA0,Flat": "numbers behind PCA",
    "PCA33,Flat": "numbers behind PCA",
    "Pad2000000000,Flat": "factory string",
    "Pad200000000,Flat": "numbers behind Pad",
    "RR100000,Flat": "numbers behind RR",
    "L2norm8,Flat": "L2norm must have no number",
    "PCA8_4,Flat": "PCA must have one number",
    "IVF0,Flat": "at least one cell",
    "IVF100000000,Flat": "capacity must be at least 100000000",
    "IVF4M,Flat": "capacity must be at least 4194304",
    "IVF-1,Flat": "factory string",
    "RQ4x30": "banks take Flat, SQ, PQ",
    "LSQ4x20": "banks take",
    "PRQ2x4x8": "banks take",
    "IVF4(Flat),Flat": "banks take",
    "IMI2x8,Flat": "banks take",
    "IDMap2,Flat": "leave the ids",
    "Flat\n": "banks take",
    "IVF\uff11\uff16,Flat": "ASCII",
    "": "factory string",
    "a" * 20_000: r"at most 128 characters",
    "(" * 20_000: r"at most 128 characters",
    "PCA8," * 5_000 + "Flat": r"at most 128 characters",
}
SUPPORTED = [
    "SQ8", "PQ8x4fs", "IVF4,PQ4x4", "IVF4_HNSW8,SQfp16", "IVF4,PQ4x4,RFlat", "HNSW2", "HNSW8_SQ8",
    "PCA8,L2norm,IVF2,Flat", "OPQ4_8,IVF4,PQ4x4", "RR,SQ6", "ITQ16,SQ4", "Pad64,PQ4x4",
    "IVF4,RaBitQ", "IVF4,PQ4x4,Refine(SQ8)", "HNSW8,PQ4x4", "Flat,RFlat",
]  # fmt: skip


@pytest.mark.parametrize("search", HOSTILE, ids=lambda search: search[:24].strip())
def test_what_faiss_must_not_see_is_refused(search: str) -> None:
    with pytest.raises(ValueError, match=HOSTILE[search]) as refused:
        NegativeBank(1500, 32, search=search)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("search", SUPPORTED)
def test_supported_families_find_what_there_is(search: str, one_thread: None) -> None:
    bank = NegativeBank(300, 32, search=search)
    bank.enqueue(frames(300, 1, dim=32))
    bank.rebuild()
    found = bank.hardest(frames(4, 2, dim=32), 3)
    assert bool((found.cross_index >= 0).all()) and found.cross_similarity.isfinite().all()


def test_hostile_strings_in_a_saved_bank_do_not_end_the_process(tmp_path: Path) -> None:
    """A file without a seal may hold any string; the process that opens it is another one."""
    bank = NegativeBank(100, 16)
    bank.enqueue(frames(100, 1, dim=16))
    bank.save(tmp_path)
    about = json.loads((tmp_path / "bank.json").read_text())
    del about["seal"]
    code = (
        "import sys, json, pathlib\n"
        "from usucl.bank import NegativeBank\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "about = json.loads((folder / 'bank.json').read_text())\n"
        "for search in ['a' * 20000, 'HNSW0', 'PQ16x0', 'HNSW1000000', 5, None, ['x']]:\n"
        "    (folder / 'bank.json').write_text(json.dumps({**about, 'search': search}))\n"
        "    try: NegativeBank.open(folder)\n"
        "    except ValueError as error: assert str(folder) in str(error)\n"
        "    else: raise SystemExit(f'{search!r} was taken')\n"
    )
    (tmp_path / "bank.json").write_text(json.dumps(about))
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_memory_of_an_index_is_told_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"would take about .* GiB .* set {LIMIT}"):
        checked_size("Pad8000,Flat", 32, 700_000)
    taken = checked_size("IVF1024,Flat", 128, 1_000_000)
    assert 1.5 * 2**30 < taken < 3 * 2**30
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises(ValueError, match=r"more than 1\.0 GiB"):
        checked_size("IVF1024,Flat", 128, 1_000_000)
    monkeypatch.setenv(LIMIT, "200")
    checked_size("Pad8000,Flat", 32, 700_000)
    for wrong in ("", "many", "nan", "-1", "inf"):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.raises(ValueError, match=f"{LIMIT} must be a number of GiB"):
            checked_size("SQ8", 32, 100)


def test_a_bank_tells_what_its_index_takes() -> None:
    assert NegativeBank(1000, 8).index_bytes == 0
    assert NegativeBank(1000, 8, search="Flat").index_bytes == 0  # the memory of the bank itself
    assert 96_000 < NegativeBank(1000, 8, search="IVF8,Flat").index_bytes < 400_000


def test_options_have_ranges_and_take_no_memory() -> None:
    for name, search in (("nprobe", "IVF4,Flat"), ("ef_search", "HNSW8")):
        with pytest.raises(ValueError, match=f"{name} must be <= 2147483647"):
            NegativeBank(64, 8, search=search, **{name: 2**31})  # type: ignore[arg-type]
        bank = NegativeBank(64, 8, search=search, **{name: 2**31 - 1})  # type: ignore[arg-type]
        bank.enqueue(frames(64, 1, dim=8))
        bank.rebuild()
        asked = frames(3, 2, dim=8)
        assert torch.equal(
            bank.hardest(asked, 3).cross_index >= 0, torch.ones(3, 3, dtype=torch.bool)
        )

"""Every instruction set that this machine runs gives the same bits, and so do the two ways in."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from strategies import Problem, plain_problem
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from usucl_ext import Frames, hard_negative_nce, select_negatives
from usucl_ext._library import _native

ORDERS = ("random", "ascending", "all equal", "one video", "in time")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def ordered_problem(order: str, rows: int, count: int, dim: int) -> tuple[Frames, Frames]:
    """Returns anchors, and keys in an order that is hard for a selection with running limits."""
    generator = torch.Generator().manual_seed(rows + count + dim)

    def unit(*shape: int) -> torch.Tensor:
        return normalize(torch.randn(*shape, generator=generator), dim=-1)

    anchors = Frames(unit(rows, dim), torch.arange(rows) % 5, torch.rand(rows, generator=generator))
    keys = unit(count, dim)
    video = torch.arange(count) % 50
    if order == "ascending":
        keys = keys[(keys @ anchors.embedding.mean(0)).argsort()]
    elif order == "all equal":
        keys = keys[:1].expand(count, dim).contiguous()
    elif order == "one video":
        video = torch.full((count,), 3)
    elif order == "in time":  # each frame a small step from the one before
        keys = normalize(
            torch.cumsum(0.05 * torch.randn(count, dim, generator=generator), 0), dim=1
        )
        video = torch.arange(count) // 100
    return anchors, Frames(keys, video, torch.rand(count, generator=generator))


def digests() -> dict[str, str]:
    """Returns a digest of each kind of problem's results, by name."""
    found = {}
    for order, dtype, cross_k in product(ORDERS, DTYPES, (3, 21)):  # 3 is few enough to nominate
        anchors, keys = ordered_problem(order, 37, 6001, 33)
        embedding = anchors.embedding.to(dtype).requires_grad_()
        blocks = [
            Frames(*(column[part] for column in (keys.embedding.to(dtype), *keys[1:3])))
            for part in (slice(0, 5000), slice(5000, None))
        ]
        loss, selection = hard_negative_nce(
            anchors._replace(embedding=embedding),
            normalize(anchors.embedding.roll(1, 0), dim=1),
            blocks,
            window=(0.1, 0.7),
            intra_k=4,
            cross_k=cross_k,
            cross_skip=2,
            return_selection=True,
            impl="native",
        )
        (gradient,) = torch.autograd.grad(loss, embedding)
        digest = hashlib.sha256()
        for tensor in (*selection, loss.detach(), gradient):
            digest.update(tensor.view(torch.uint8 if tensor.dim() else tensor.dtype).numpy())
        found[f"{order}, {dtype}, {cross_k}"] = digest.hexdigest()
    return found


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    if _native is None:
        pytest.skip("no native library")
    return digests()


@pytest.mark.parametrize("capability", ["portable", "avx2", "avx512", "avx512_bf16", "amx"])
def test_every_capability_gives_the_same_bits(capability: str, here: dict[str, str]) -> None:
    if capability not in _native.cpu_capabilities():
        pytest.skip(f"this machine does not run {capability}")
    done = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "USUCL_CPU_CAPABILITY": capability,
            "PYTHONPATH": os.pathsep.join(["", *sys.path]),
        },
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"capability": capability, "digests": here}


def test_avx512_bf16_is_the_default_on_amd_alone() -> None:
    if _native is None:
        pytest.skip("no native library")
    environment = {k: v for k, v in os.environ.items() if k != "USUCL_CPU_CAPABILITY"}
    command = "from usucl_ext import _C; print(_C.build_info()['cpu_capability'])"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, env=environment
    )
    cpu = Path("/proc/cpuinfo")
    amd = cpu.exists() and "AuthenticAMD" in cpu.read_text()
    best = [x for x in _native.cpu_capabilities() if amd or x != "avx512_bf16"]
    assert done.stdout.strip() == best[0]


def test_the_benchmark_of_capabilities_runs(tmp_path: Path) -> None:
    if _native is None:
        pytest.skip("no native library")
    out = tmp_path / "result.json"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.cpu_capabilities", "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(out.read_text())["run"]["same_bits"]["same"]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_selects_what_a_sort_selects(order: str) -> None:
    """Integers, so that similarities are exact and the order of ties is the index."""
    anchors, keys = ordered_problem(order, 9, 3000, 16)
    anchors = anchors._replace(embedding=(3 * anchors.embedding).round())
    keys = keys._replace(embedding=(3 * keys.embedding).round())
    options = {"window": (0.1, 0.7), "intra_k": 5, "cross_k": 33}
    native = select_negatives(anchors, keys, impl="native", **options)
    expected = select_negatives(anchors, keys, impl="reference", **options)
    assert all(torch.equal(a, b) for a, b in zip(native, expected, strict=True))


class Watching(TorchDispatchMode):
    """A mode that does nothing, but must see the calls under it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


def outcome(problem: Problem, watched: bool) -> list[torch.Tensor]:
    leaves = [problem.anchors.embedding, problem.positives]
    leaves += [block.embedding for block in problem.blocks]
    for leaf in leaves:
        leaf.grad = None
        leaf.requires_grad_()

    def run() -> list[torch.Tensor]:
        loss, selection = hard_negative_nce(
            problem.anchors,
            problem.positives,
            problem.blocks,
            impl="native",
            return_selection=True,
            **problem.options,
        )
        loss.sum().backward()
        return [loss.detach(), *selection, *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]

    if not watched:
        return run()
    with Watching() as mode:
        found = run()
    assert any("usucl" in name for name in mode.seen), "the operator was hidden from the mode"
    return found


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dispatcher_changes_no_bit(dtype: torch.dtype, reduction: str) -> None:
    if _native is None:
        pytest.skip("no native library")
    device = torch.device("cpu")
    problem = plain_problem(device, dtype, reduction=reduction, soft_nn_temperature=0.2)
    for ours, theirs in zip(outcome(problem, False), outcome(problem, True), strict=True):
        assert torch.equal(ours, theirs)


def test_rows_that_are_not_contiguous() -> None:
    """Columns of a wider table are copied, and nothing else is read."""
    anchors, keys = ordered_problem("random", 8, 200, 24)

    def strided(frames: Frames) -> Frames:
        wide = torch.full((len(frames.time), 30), torch.nan)
        wide[:, 3:27] = frames.embedding
        twice = [torch.stack([x, x + 1], dim=1)[:, 0] for x in frames[1:3] if x is not None]
        return Frames(wide[:, 3:27], *twice)

    options = {"window": (0.1, 0.7), "intra_k": 2, "cross_k": 5, "impl": "native"}
    expected = select_negatives(anchors, keys, **options)
    found = select_negatives(strided(anchors), strided(keys), **options)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    positives = anchors.embedding.flip(1)
    loss = hard_negative_nce(anchors, positives, keys, **options)
    transposed = positives.T.contiguous().T  # the same values, column by column
    assert torch.equal(
        hard_negative_nce(strided(anchors), transposed, strided(keys), **options), loss
    )


if __name__ == "__main__":
    json.dump(
        {"capability": _native.build_info()["cpu_capability"], "digests": digests()}, sys.stdout
    )

"""The CUDA kernels against the oracle and the CPU's, and what only a GPU can test.

The other tests of this folder run on every available device; here are comparisons between two
devices, streams, graphs, and sizes at the bounds of the kernels' tiles, lists and tables. With
USUCL_CUDA_ONE_LAUNCH=0 small problems take the launches of large ones, and with
USUCL_CUDA_SMALLEST_DENSE=0 tensor cores nominate for them too. With USUCL_CUDA_WARPGROUPS=0
mma.sync does what Hopper's warpgroups would do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from comparison import assert_gradients, assert_same_selection, same_selection
from hypothesis import given
from strategies import LOW_PRECISION, Outcome, Problem, plain_problem, problems
from tolerances import assert_close

import usucl_ext
from usucl_ext import Frames

OPERATORS = (
    "select_negatives",
    "similarities",
    "hard_negative_nce",
    "hard_negative_nce_backward",
)
GPU = torch.device("cuda")

needs_library = pytest.mark.skipif(
    not usucl_ext.build_info()["cuda"], reason=f"no CUDA: {usucl_ext.build_info()['cuda_reason']}"
)
needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and usucl_ext.build_info()["cuda"]),
    reason="no CUDA device" if not torch.cuda.is_available() else "no CUDA kernels",
)


def assert_near(gpu: torch.Tensor | None, cpu: torch.Tensor | None, eps: float) -> None:
    """Asserts equality up to exp and log, which round differently: a few eps of each logit."""
    assert (gpu is None) == (cpu is None)
    if gpu is None or cpu is None or not cpu.numel():
        return
    largest = torch.nan_to_num(cpu.double(), 0.0, 0.0, 0.0).abs().max().item()
    own = torch.finfo(cpu.dtype).eps  # a single rounding to the gradient's dtype
    torch.testing.assert_close(
        gpu.cpu(),
        cpu,
        rtol=own + 256 * eps,
        atol=256 * eps * max(1.0, largest),
        equal_nan=True,
    )


def assert_same_outcome(gpu: Outcome, cpu: Outcome, arithmetic: torch.dtype) -> None:
    eps = torch.finfo(arithmetic).eps
    assert_same_selection(gpu.selection, cpu.selection)
    assert_near(gpu.loss, cpu.loss, eps)
    for name in ("anchors", "positives", "temperature", "soft_nn_temperature"):
        assert_near(getattr(gpu, name), getattr(cpu, name), eps)
    for ours, theirs in zip(gpu.blocks, cpu.blocks, strict=True):
        assert_near(ours, theirs, eps)


def check_against_cpu(problem: Problem) -> None:
    ours = problem.to(GPU)
    assert_same_selection(ours.select("native"), problem.select("native"))
    assert_same_outcome(ours.run("native"), problem.run("native"), problem.arithmetic)


@needs_library
@pytest.mark.parametrize("operator", OPERATORS)
def test_operator_has_a_cuda_kernel(operator: str) -> None:
    """The library loads and registers without a GPU."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"usucl::{operator}", "CUDA")


@needs_gpu
@given(problem=problems())
def test_matches_oracle(problem: Problem) -> None:
    """Selection, loss and all gradients."""
    truth, outcome = problem.judge(), problem.to(GPU).run("native")
    same_selection(outcome.selection, truth.selection)
    assert_close(outcome.loss, truth.loss, problem.arithmetic, "loss")
    assert_gradients(outcome, problem, truth)


@needs_gpu
@given(problem=problems())
def test_equals_cpu(problem: Problem) -> None:
    check_against_cpu(problem)


@needs_gpu
@given(problem=problems(dtypes=(*LOW_PRECISION, torch.float64), on_grid=False))
def test_equals_cpu_on_real_values(problem: Problem) -> None:
    check_against_cpu(problem)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "keys", [(127,), (129,), (1, 700, 300), (3,) * 70, (2000, 1, 3000)], ids=str
)
@pytest.mark.parametrize("k", [1, 130, 1000])
def test_sizes_around_the_bounds(keys: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
    """One launch or several, tiles of 128 keys, lists cut often or never, tables of blocks."""
    check_against_cpu(plain_problem("cpu", dtype, dim=65, keys=keys, intra_k=k, cross_k=k))


@needs_gpu
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "options",
    [
        {"rows": 0},
        {"keys": (0, 0)},
        {"intra_k": 0, "cross_k": 0},
        {"intra_k": 0, "window": None},
        {"cross_k": 0},
    ],
    ids=str,
)
def test_empty_problems(options: dict[str, Any], reduction: str) -> None:
    check_against_cpu(plain_problem(**options, reduction=reduction))


def mixed_problem(anchors: torch.dtype, keys: torch.dtype) -> Problem:
    """Positives and the first block of the anchors' dtype, the second block of another."""
    problem = plain_problem("cpu", anchors, dim=65, keys=(40, 300))
    bank = problem.blocks[1]
    problem.blocks[1] = bank._replace(embedding=bank.embedding.to(keys))
    return problem


@needs_gpu
@pytest.mark.parametrize("keys", [*LOW_PRECISION, torch.float64], ids=str)
@pytest.mark.parametrize("anchors", LOW_PRECISION, ids=str)
def test_two_dtypes_mixed_in_one_call(anchors: torch.dtype, keys: torch.dtype) -> None:
    check_against_cpu(mixed_problem(anchors, keys))


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_similarities_equal_the_cpus(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(40, 300, generator=generator)
    keys = torch.randn(1000, 300, generator=generator).to(dtype)
    index = torch.randint(-5, 1005, (40, 200), generator=generator)
    ours = usucl_ext.similarities(anchors.to(GPU), keys.to(GPU), index.to(GPU))
    assert torch.equal(ours.cpu(), usucl_ext.similarities(anchors, keys, index))


@needs_gpu
def test_one_key_of_all_anchors() -> None:
    """Thousands of pairs in one key's sum, in the order of the anchors and so twice the same."""
    problem = plain_problem(rows=3000, keys=(1, 2))
    check_against_cpu(problem)
    first, second = (problem.to(GPU).run("native") for _ in range(2))
    for a, b in zip(first.blocks, second.blocks, strict=True):
        assert a is not None and b is not None and torch.equal(a, b)


@needs_gpu
def test_broken_rows_stay_alone() -> None:
    problem = plain_problem(reduction="none")
    problem.anchors.embedding[2, 5] = math.nan
    problem.positives[4, 1, 0] = math.inf
    check_against_cpu(problem)
    outcome = problem.to(GPU).run("native")
    assert torch.isnan(outcome.loss).nonzero().flatten().tolist() == [2, 4]


@needs_gpu
@pytest.mark.parametrize("order", ["random", "ascending", "equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_tensor_cores_nominate_what_the_cpu_selects(dtype: torch.dtype, order: str) -> None:
    """Returns enough pairs for the dense pass."""
    problem = plain_problem(dtype=dtype, rows=200, dim=128, keys=(1000, 9000), cross_k=32)
    bank = problem.blocks[1].embedding
    if order == "ascending":
        similarity = bank.float() @ problem.anchors.embedding[0].float()
        bank.copy_(bank[similarity.argsort()])
    elif order == "equal":
        bank.copy_(bank[:1].expand_as(bank))
    assert_same_selection(problem.to(GPU).select("native"), problem.select("native"))


def crowded_problem(dtype: torch.dtype = torch.bfloat16, **options: Any) -> Problem:
    """Returns enough pairs for the dense pass, and keys with every reason not to take them."""
    given = {"cross_k": 32, "cross_skip": 3, "intra_k": 4, "intra_skip": 1, "max_similarity": 0.3,
             "window": (0.5, 400.0), **options}  # fmt: skip
    problem = plain_problem(dtype=dtype, rows=200, dim=128, keys=(1000, 9000, 130), **given)
    generator = torch.Generator().manual_seed(3)

    def frames(of: Frames, bad: float) -> Frames:
        count = len(of.video)
        chance = torch.rand(3, count, generator=generator)
        of.video.copy_(torch.randint(0, 50, (count,), generator=generator))
        of.video[chance[0] < 0.1] = -1  # an empty slot
        of.embedding[chance[1] < bad] = math.nan
        of.embedding[chance[2] < bad, 7] = math.inf
        patient = torch.where(of.video % 3 == 0, -1, of.video // 2)
        return of._replace(patient=patient)

    problem.anchors = frames(problem.anchors, 0.02)
    problem.blocks = [frames(block, 0.05) for block in problem.blocks]
    third = problem.blocks[2]
    narrow = torch.float16 if dtype != torch.float16 else torch.bfloat16
    problem.blocks[2] = third._replace(embedding=third.embedding.to(narrow))
    return problem


@needs_gpu
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_crowded_keys(dtype: torch.dtype) -> None:
    """NaN and infinite keys, empty slots, patients, guard, skipped ranks, a block of another dtype;
    nearly equal keys around the guard."""
    problem = crowded_problem(dtype, reduction="none")
    bank = problem.blocks[1].embedding
    bank[5000:5200] = problem.anchors.embedding[7] * 0.3
    check_against_cpu(problem)


small_and_crowded = pytest.mark.parametrize("make", [plain_problem, crowded_problem])


@needs_gpu
@small_and_crowded
def test_runs_on_the_current_stream(make: Callable[..., Problem]) -> None:
    """The inputs are written late on a stream of their own; any other stream would read zeros."""
    problem = make()
    expected = problem.run("native")
    ready = problem.to(GPU)
    late = problem.to(GPU)
    embeddings = [late.anchors.embedding, late.positives, *(b.embedding for b in late.blocks)]
    sources = [ready.anchors.embedding, ready.positives, *(b.embedding for b in ready.blocks)]
    for embedding in embeddings:
        embedding.zero_()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        for embedding, source in zip(embeddings, sources, strict=True):
            embedding.copy_(source)
        outcome = late.run("native")
    stream.synchronize()
    assert_same_outcome(outcome, expected, problem.arithmetic)


@needs_gpu
def test_two_dtypes_mixed_on_two_streams() -> None:
    """Calls that run at once, and give memory back that the next call takes, do not meet."""
    given = [mixed_problem(*pair) for pair in ((torch.float32, torch.bfloat16),
                                               (torch.float16, torch.float64))]  # fmt: skip
    moved, streams = [p.to(GPU) for p in given], [torch.cuda.Stream() for _ in given]
    torch.cuda.synchronize()
    outcomes: list[list[Outcome]] = [[] for _ in given]
    for _ in range(10):
        for problem, stream, own in zip(moved, streams, outcomes, strict=True):
            with torch.cuda.stream(stream):
                own.append(problem.run("native"))
    torch.cuda.synchronize()
    for problem, own in zip(given, outcomes, strict=True):
        expected = problem.run("native")
        for outcome in own:
            assert_same_outcome(outcome, expected, problem.arithmetic)


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raises RuntimeError where PyTorch waits for the GPU; a graph's capture reveals our waits."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@needs_gpu
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"window": torch.tensor([0.5, 4.0])},
        {"temperature": torch.tensor(0.2), "soft_nn_temperature": torch.tensor(0.3)},
        {"soft_nn_temperature": 0.3, "max_similarity": 0.9},
    ],
    ids=str,
)
@small_and_crowded
def test_the_host_never_waits(make: Callable[..., Problem], options: dict[str, Any]) -> None:
    problem = make(**options)
    expected, moved = problem.run("native"), problem.to(GPU)
    if not isinstance(moved.grad, torch.Tensor):
        moved.grad = torch.ones((), device=GPU)  # a number would be copied from the host
    torch.cuda.synchronize()
    with no_synchronisation():
        moved.select("native")
        outcome = moved.run("native")
    assert_same_outcome(outcome, expected, problem.arithmetic)


@needs_gpu
@small_and_crowded
def test_captured_in_a_graph(make: Callable[..., Problem]) -> None:
    """Forward and backward replay on new contents; a synchronisation would break the capture."""
    first, second = (
        make(temperature=torch.tensor(0.2), soft_nn_temperature=torch.tensor(0.3)) for _ in range(2)
    )
    second.anchors.embedding.copy_(first.anchors.embedding.flip(0))
    static = first.to(GPU)
    static.grad = torch.ones((), device=GPU)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        static.run("native")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outcome = static.run("native")
    for problem in (first, second):
        static.anchors.embedding.data.copy_(problem.anchors.embedding)
        graph.replay()
        assert_same_outcome(outcome, problem.run("native"), problem.arithmetic)


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device or none")
def test_runs_on_the_device_of_its_inputs() -> None:
    problem = plain_problem()
    current = torch.cuda.current_device()
    other = torch.device("cuda", (current + 1) % torch.cuda.device_count())
    outcome = problem.to(other).run("native")
    assert outcome.loss.device == other and torch.cuda.current_device() == current
    assert_same_outcome(outcome, problem.run("native"), problem.arithmetic)

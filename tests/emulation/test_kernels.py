"""The CUDA kernels' source run on the CPU, compared with the oracle; selections match bit for bit.

Every test runs under every schedule with the race check: a race fails the call that has it.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from checks import check
from emulated import Emulator
from hypothesis import HealthCheck, given, settings
from strategies import LOW_PRECISION, Problem, plain_problem, problems

from usucl_ext import similarities

# One emulator serves all examples of a test: it keeps nothing between calls. Four schedules run
# each example, so fewer examples suffice.
all_examples = settings(
    max_examples=settings().max_examples // 3, suppress_health_check=[*HealthCheck], deadline=None
)


@all_examples
@given(problem=problems())
def test_small_problems(emulator: Emulator, problem: Problem) -> None:
    check(emulator, problem)


@all_examples
@given(problem=problems(dtypes=(*LOW_PRECISION, torch.float64), on_grid=False))
def test_small_problems_of_real_values(emulator: Emulator, problem: Problem) -> None:
    check(emulator, problem)


@all_examples
@given(problem=problems())
def test_passes_of_large_problems(emulator: Emulator, problem: Problem) -> None:
    emulator.configure(one_launch=False)
    check(emulator, problem)


@all_examples
@given(problem=problems(dtypes=(*LOW_PRECISION, torch.float64), on_grid=False))
def test_passes_of_large_problems_of_real_values(emulator: Emulator, problem: Problem) -> None:
    emulator.configure(one_launch=False)
    check(emulator, problem)


@pytest.mark.schedules_in_turn
@pytest.mark.parametrize("one_launch", [True, False], ids=["one launch", "passes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("keys", [(127,), (128,), (129,), (1, 300, 70), (3,) * 40], ids=str)
def test_sizes_around_the_bounds(
    emulator: Emulator, keys: tuple[int, ...], dtype: torch.dtype, one_launch: bool
) -> None:
    """Tiles of 128 keys and 32 anchors, pieces of 32 dimensions, a table of blocks in memory."""
    emulator.configure(one_launch=one_launch)
    for rows, dim, k in ((1, 31, 1), (33, 33, 130)):
        problem = plain_problem("cpu", dtype, rows=rows, dim=dim, keys=keys, intra_k=k, cross_k=k)
        check(emulator, problem, judge=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_split_keys(emulator: Emulator, multiprocessors: int, dtype: torch.dtype) -> None:
    """Few anchors, many keys in several blocks: the lists of the splits are merged."""
    emulator.configure(multiprocessors)
    for dim, k in ((2, 5), (3, 1500)):
        problem = plain_problem(
            dtype=dtype, rows=3, dim=dim, keys=(1000, 1, 3100), cross_k=k, cross_skip=2
        )
        check(emulator, problem, judge=False)


ORDERS = ("ascending", "descending", "equal")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("videos", [1, 2])
def test_keys_in_adversarial_order(emulator: Emulator, order: str, videos: int) -> None:
    """Every key enters the lists, or all are equal, or all belong to one video."""
    emulator.configure(one_launch=False)
    problem = plain_problem(rows=34, dim=2, keys=(1500,), window=(0.0, math.inf), intra_k=3)
    problem.anchors.embedding.copy_(torch.tensor([1.0, 0.0]))
    rising = torch.linspace(-1, 1, 1500)
    similarity = {"ascending": rising, "descending": -rising, "equal": torch.ones(1500)}[order]
    problem.blocks[0].embedding[:, 0] = similarity
    problem.blocks[0].video.remainder_(videos)
    problem.anchors.video.zero_()
    check(emulator, problem, judge=False)


@pytest.mark.parametrize("one_launch", [True, False], ids=["one launch", "passes"])
def test_wide_embeddings_and_many_positives(emulator: Emulator, one_launch: bool) -> None:
    """Anchors with more dimensions, and more positives, than shared memory holds."""
    emulator.configure(one_launch=one_launch)
    problem = plain_problem(rows=2, dim=700, keys=(140,), soft_nn_temperature=0.3)
    problem.positives = problem.positives.repeat(1, 70, 1)
    check(emulator, problem, judge=False)


@pytest.mark.parametrize("one_launch", [True, False], ids=["one launch", "passes"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "options",
    [
        {"rows": 0},
        {"keys": (0, 0)},
        {"intra_k": 0, "cross_k": 0},
        {"intra_k": 0, "window": None},
        {"cross_k": 0},
        {"cross_skip": 2**62},
    ],
    ids=str,
)
def test_empty_problems(
    emulator: Emulator, options: dict[str, Any], reduction: str, one_launch: bool
) -> None:
    emulator.configure(one_launch=one_launch)
    check(emulator, plain_problem(**options, reduction=reduction))


def test_broken_rows_stay_alone(emulator: Emulator) -> None:
    problem = plain_problem(reduction="none")
    problem.anchors.embedding[2, 5] = math.nan
    problem.positives[4, 1, 0] = math.inf
    for one_launch in (True, False):
        emulator.configure(one_launch=one_launch)
        check(emulator, problem)
        outcome = emulator.run(problem)
        assert torch.isnan(outcome.loss).nonzero().flatten().tolist() == [2, 4]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.0}, {"soft_nn_temperature": math.nan}], ids=str
)
@pytest.mark.parametrize("soft", [None, 0.1], ids=["each key", "soft"])
def test_rows_that_overflow_stay_alone(
    emulator: Emulator, soft: float | None, options: dict[str, float]
) -> None:
    """A key far below one anchor and far above another, a positive far above, a bad temperature."""
    problem = plain_problem(reduction="none", soft_nn_temperature=soft)
    problem.options |= {name: torch.tensor(value) for name, value in options.items()}
    problem.anchors.embedding[1:3, 0] = torch.tensor([1.0, -1.0])
    problem.blocks[1].embedding[:, 0] = 0.0
    problem.blocks[0].embedding[:, 0] = torch.tensor([3e38, -3e38, -3e38] * 3)
    problem.positives[4] = 0
    problem.positives[4, 0, 1] = 3e38
    problem.anchors.embedding[4] = torch.eye(6)[1]
    cpu = problem.run("native")
    assert cpu.loss.isnan().any() and cpu.loss.isnan().all() == bool(options)
    for one_launch in (True, False):
        emulator.configure(one_launch=one_launch)
        ours = emulator.run(problem)
        torch.testing.assert_close(ours.loss, cpu.loss, equal_nan=True)
        torch.testing.assert_close(ours.positives, cpu.positives, equal_nan=True)
        for block, expected in zip(ours.blocks, cpu.blocks, strict=True):
            torch.testing.assert_close(block, expected, equal_nan=True)


def test_key_gradient_of_a_hub_is_the_same_bits(emulator: Emulator) -> None:
    """Hundreds of pairs in one key's sum are added in anchor order under every schedule."""
    problem = plain_problem(rows=300, dim=3, keys=(1, 2))
    first, second = (emulator.run(problem) for _ in range(2))
    for ours, again, cpu in zip(
        first.blocks, second.blocks, problem.run("native").blocks, strict=True
    ):
        assert ours is not None and again is not None and cpu is not None
        assert torch.equal(ours, again)
        torch.testing.assert_close(ours, cpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("rows", "per_anchor", "dim"), [(3, 5, 7), (9, 131, 40), (2, 130, 700)])
def test_similarities_of_given_pairs(
    emulator: Emulator, dtype: torch.dtype, rows: int, per_anchor: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(dim)
    anchors = torch.randn(rows, dim, generator=generator)
    keys = torch.randn(50, dim, generator=generator).to(dtype)
    keys[3, 1] = math.nan
    index = torch.randint(-3, 53, (rows, per_anchor), generator=generator)
    ours = emulator.similarities(anchors, keys, index)
    assert torch.equal(ours.nan_to_num(-7), similarities(anchors, keys, index).nan_to_num(-7))

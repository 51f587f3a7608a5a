"""The dense pass: tensor cores nominate, the chain decides, and the result is the same."""

from __future__ import annotations

import math

import pytest
import torch
from checks import check
from comparison import assert_same_selection
from elements import as_read, worst_case
from emulated import Emulator, margin_of
from hypothesis import HealthCheck, given, settings
from strategies import LOW_PRECISION, Problem, plain_problem, problems
from structures import Statistics
from torch import Tensor
from torch.nn.functional import normalize

ELEMENTS = (torch.bfloat16, torch.float16, torch.float32)
some_examples = settings(
    max_examples=settings().max_examples // 6, suppress_health_check=[*HealthCheck], deadline=None
)


class Dense:
    """The emulator with the dense pass enabled, by warps or by Hopper's warpgroups."""

    def __init__(self, emulator: Emulator, warpgroups: bool) -> None:
        self.emulator, self.warpgroups = emulator, warpgroups
        self.configure()
        emulator.take_statistics()

    def configure(self, multiprocessors: int = 2, shared_bytes: int = 227 << 10) -> None:
        self.emulator.configure(
            multiprocessors,
            one_launch=False,
            smallest_dense=0,
            warpgroups=self.warpgroups,
            shared_bytes=shared_bytes,
        )

    def check(self, problem: Problem) -> Statistics:
        """Compares the selection with the CPU's; returns the counters of the call."""
        assert_same_selection(self.emulator.select(problem), problem.select("native"))
        return self.emulator.take_statistics()


@pytest.fixture(params=[False, True], ids=["warps", "warpgroups"])
def dense(request: pytest.FixtureRequest, emulator: Emulator) -> Dense:
    return Dense(emulator, request.param)


def unit(*shape: int, seed: int = 1) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@some_examples
@given(problem=problems())
def test_small_problems(dense: Dense, problem: Problem) -> None:
    check(dense.emulator, problem)


@some_examples
@given(problem=problems(dtypes=LOW_PRECISION, on_grid=False))
def test_small_problems_of_real_values(dense: Dense, problem: Problem) -> None:
    check(dense.emulator, problem)


@pytest.mark.schedules_in_turn
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
@pytest.mark.parametrize("rows", [1, 127, 129])
def test_sizes_around_the_bounds(dense: Dense, rows: int, dtype: torch.dtype) -> None:
    """Tiles of 128 x 128; a chunk is 64 elements of 16 bits or 32 of 32; unaligned rows."""
    for dim, keys in ((1, (127,)), (31, (128, 1)), (32, (129,)), (65, (3, 0, 130)), (200, (5,))):
        problem = plain_problem(dtype=dtype, rows=rows, dim=dim, keys=keys, cross_k=7)
        dense.check(problem)


@pytest.mark.schedules_in_turn
def test_element_types_mixed(dense: Dense) -> None:
    """A bank in bfloat16 with a batch in float32, and every other pair of types."""
    for anchors in ELEMENTS:
        problem = plain_problem(dtype=anchors, rows=9, dim=40, keys=(130, 140, 150, 20), cross_k=20)
        for b, dtype in enumerate((*ELEMENTS, torch.bfloat16)):
            block = problem.blocks[b]
            problem.blocks[b] = block._replace(embedding=block.embedding.to(dtype))
        assert dense.check(problem).unsettled == 0


@pytest.mark.schedules_in_turn
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_rows_too_long_for_shared_memory(dense: Dense, dtype: torch.dtype) -> None:
    """The anchors are copied again for every tile of keys."""
    dense.check(plain_problem(dtype=dtype, rows=3, dim=1500, keys=(260,)))


@pytest.mark.schedules_in_turn
@pytest.mark.parametrize("kibibytes", [163, 99, 80])
def test_shared_memory_of_every_size(dense: Dense, kibibytes: int) -> None:
    """As on an A100 or a GeForce: two or three stages, anchors resident or not; with less memory
    there is no dense pass."""
    dense.configure(shared_bytes=kibibytes << 10)
    for dtype, dim in ((torch.bfloat16, 128), (torch.float16, 64), (torch.float32, 300)):
        problem = plain_problem(dtype=dtype, rows=20, dim=dim, keys=(260,), cross_k=7)
        assert (dense.check(problem).arrivals > 0) == (kibibytes > 80)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
def test_split_keys(dense: Dense, dtype: torch.dtype) -> None:
    """With few anchors, thread blocks share counts, and their lists are merged."""
    for multiprocessors, k in ((8, 5), (8, 300)):
        dense.configure(multiprocessors)
        problem = plain_problem(
            dtype=dtype, rows=3, dim=16, keys=(1000, 1, 1300), cross_k=k, cross_skip=2
        )
        assert dense.check(problem).unsettled == 0


def in_order(order: str, dtype: torch.dtype, rows: int = 20, keys: int = 1300) -> Problem:
    problem = plain_problem(dtype=dtype, rows=rows, dim=16, keys=(keys,), cross_k=16)
    centre = unit(16)
    problem.anchors.embedding.copy_(normalize(centre + 0.05 * unit(rows, 16, seed=2), dim=1))
    values = unit(keys, 16, seed=3)
    rank = (values @ centre).argsort()
    if order == "ascending":
        values = values[rank]
    elif order == "descending":
        values = values[rank.flip(0)]
    elif order == "equal":
        values = values[:1].expand(keys, -1)
    elif order == "in time":
        values = normalize(torch.cumsum(0.1 * values, 0) + 3 * centre, dim=1)
    elif order == "collapsed":
        values = normalize(centre + 0.003 * values, dim=1)
    elif order == "one video":
        problem.anchors.video.zero_()
        problem.blocks[0].video.zero_()
        problem.blocks[0].video[1000:1040] = 1
    problem.blocks[0].embedding.copy_(values)
    return problem


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
@pytest.mark.parametrize(
    "order", ["random", "ascending", "descending", "in time", "one video", "equal", "collapsed"]
)
def test_adversarial_orders(dense: Dense, order: str, dtype: torch.dtype) -> None:
    """With more keys within the margin than are kept, the chain searches; else few arrive."""
    dense.configure(4)
    problem = in_order(order, dtype)
    found = dense.check(problem)
    assert found.unsettled == 0 or order == "collapsed"
    if order != "collapsed":
        assert found.arrivals < 20 * 1300 / 2
    if order not in ("collapsed", "equal"):
        assert found.nominees < 20 * 2 * 16


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_guard_against_false_negatives(dense: Dense, dtype: torch.dtype) -> None:
    """Similarities as close to the guard as rounding allows, on both sides."""
    problem = in_order("random", dtype, rows=5, keys=600)
    exact = problem.anchors.embedding.double() @ problem.blocks[0].embedding.double().T
    for guard in (exact.flatten().kthvalue(2000).values, exact.max(), exact.min(), exact.median()):
        problem.options["max_similarity"] = float(guard.float())
        dense.check(problem)


@pytest.mark.schedules_in_turn
def test_values_that_tensor_cores_cannot_take(dense: Dense) -> None:
    """Infinite, NaN, too large, zero or subnormal values do not affect the other rows."""
    for dtype in ELEMENTS:
        large = 6e4 if dtype == torch.float16 else 1e30
        for value in (math.nan, math.inf, -math.inf, large, 0.0, 1e-7, 1e-40):
            problem = plain_problem(dtype=dtype, rows=6, dim=33, keys=(200,), cross_k=8)
            problem.anchors.embedding[1] = value
            problem.anchors.embedding[2, 3] = value
            problem.blocks[0].embedding[5] = value
            problem.blocks[0].embedding[6, 7] = value
            problem.blocks[0].embedding[150:160] *= value if math.isfinite(value) else 1
            dense.check(problem)


@pytest.mark.schedules_in_turn
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_keys_that_only_repeat_are_passed_over(dense: Dense, dtype: torch.dtype) -> None:
    """Equal keys rank by index, so tiles of later copies are skipped."""
    problem = in_order("equal", dtype, rows=40, keys=4000)
    found = dense.check(problem)
    assert found.unsettled == 0
    assert found.arrivals <= 40 * 2 * 128  # of the tiles before enough have come, and the last
    keys = problem.blocks[0].embedding
    keys[3500:3600] *= -1  # what lies between two runs is looked at, and what begins the next
    assert dense.check(problem).unsettled == 0


@pytest.mark.parametrize("patients", [False, True], ids=["no patients", "patients"])
def test_repeats_are_not_passed_over_where_a_video_hides_them(dense: Dense, patients: bool) -> None:
    """Copies in an anchor's own video or patient do not count as earlier copies."""
    problem = in_order("equal", torch.bfloat16, rows=5, keys=3000)
    bank = problem.blocks[0]
    problem.anchors.video[:] = torch.arange(5)
    bank.video[:2400] = 0
    bank.video[2400:] = 4
    if patients:
        unknown = torch.full_like(bank.video, -1)
        patient = unknown.clone()
        patient[2600:] = 7  # of video 4 too, which anchor 1 may not have for its patient's sake
        problem.blocks[0] = bank._replace(patient=patient)
        problem.anchors = problem.anchors._replace(patient=torch.tensor([-1, 7, -1, 7, -1]))
    dense.check(problem)


def test_keys_of_two_videos_and_patients_in_turns_are_passed_over(dense: Dense) -> None:
    problem = in_order("equal", torch.bfloat16, rows=6, keys=4000)
    bank = problem.blocks[0]
    place = torch.arange(4000)
    bank.video[:] = place % 5
    problem.blocks[0] = bank._replace(patient=place % 5)
    problem.anchors = problem.anchors._replace(patient=torch.arange(6))
    assert dense.check(problem).arrivals < 6 * 1000


@pytest.mark.schedules_in_turn
def test_few_anchors_that_only_the_chain_can_settle(dense: Dense) -> None:
    """More thread blocks could run than these few anchors occupy."""
    dense.configure(132)
    problem = in_order("collapsed", torch.float32, rows=3, keys=4000)
    assert dense.check(problem).unsettled == 3


@pytest.mark.schedules_in_turn
def test_a_bar_that_too_few_keys_reach(dense: Dense) -> None:
    """A sample with unexpectedly many of the hardest keys sets the bar too high."""
    keys, stride = 70_000, 8
    problem = in_order("random", torch.bfloat16, rows=2, keys=keys)
    place = torch.arange(keys // stride)
    sampled = place * stride + ((place * 2654435761 % 2**32 >> 16) & (stride - 1))
    centre = problem.anchors.embedding[0]
    problem.blocks[0].embedding[sampled[7 + 280 * torch.arange(15)]] = centre
    problem.anchors.video[:] = problem.blocks[0].video.max() + 1
    found = dense.check(problem)
    assert found.unsettled == 2


def test_float32_anchors_beyond_float16(dense: Dense) -> None:
    problem = plain_problem(rows=3, dim=8, keys=(150,))
    problem.anchors.embedding[0] *= 1e6
    block = problem.blocks[0]
    problem.blocks[0] = block._replace(embedding=block.embedding.half())
    assert dense.check(problem).unsettled == 1


# --- the margin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 16, 128, 1024])
@pytest.mark.parametrize("elements", ELEMENTS, ids=str)
def test_margin_of_constructed_worst_cases(
    library: Emulator, elements: torch.dtype, dim: int
) -> None:
    """With all rounding in one direction the error is within the margin, and close to it."""
    anchor = worst_case(elements, dim, key=False)
    key = worst_case(elements, dim, key=True) if elements == torch.float32 else None
    if key is None:
        key = torch.ones(dim)
    score = as_read(anchor, elements, key=False) @ as_read(key, elements, key=True)
    off = float((score - anchor.double() @ key.double()).abs())
    norms = float(anchor.double().norm()), float(key.double().norm())
    margin = margin_of(library, torch.float32, elements, dim, *norms)
    assert off <= margin
    assert margin <= 2.2 * off + 1.1 * (dim + 128) * 2.0**-21 * norms[0] * norms[1]


@pytest.mark.parametrize("elements", ELEMENTS, ids=str)
def test_margin_against_the_emulated_products(dense: Dense, elements: torch.dtype) -> None:
    """Pairs whose scores have the wrong order, because the chain separates them only slightly."""
    dim, keys = 64, 400
    problem = plain_problem(rows=4, dim=dim, keys=(keys,), cross_k=30)
    anchor = worst_case(elements, dim, key=False) / 10
    problem.anchors.embedding.copy_(anchor * torch.tensor([[1.0], [0.5], [3.0], [1.0]]))
    generator = torch.Generator().manual_seed(5)
    values = 1 + torch.rand(keys, dim, generator=generator) * 2e-3
    block = problem.blocks[0]
    block.embedding.copy_(values)
    problem.blocks[0] = block._replace(embedding=block.embedding.to(elements))
    dense.check(problem)

"""Which keys are selected: oracle = reference = native, index by index."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from comparison import same_selection
from hypothesis import given
from hypothesis import strategies as st
from strategies import LOW_PRECISION, Problem, keys_of, one_anchor, problems

from usucl_ext import Frames, select_negatives

NAN, INF = float("nan"), float("inf")


def judge(problem: Problem) -> oracle.Selection:
    return oracle.select_negatives(problem.anchors, problem.blocks, **problem.selection_options)


@given(problem=problems())
def test_matches_oracle(problem: Problem, impl: str, device: torch.device) -> None:
    same_selection(problem.to(device).select(impl), judge(problem))


@given(problem=problems(dtypes=(torch.float64,)))
def test_matches_oracle_float64(problem: Problem, impl: str) -> None:
    same_selection(problem.select(impl), judge(problem))


@given(problem=problems(on_grid=False, spoiled=False), data=st.data())
def test_native_is_the_canonical_chain(
    problem: Problem, data: st.DataObject, native_device: torch.device
) -> None:
    """On real-valued embeddings the bits of every similarity are those of the chain."""
    same_selection(problem.to(native_device).select("native"), judge(problem))


@given(problem=problems(dtypes=(torch.float64,), on_grid=False, spoiled=False))
def test_native_is_the_canonical_chain_float64(problem: Problem, native_device: Any) -> None:
    if native_device.type != "cpu":
        pytest.skip("float64 is a CPU dtype")
    same_selection(problem.select("native"), judge(problem))


@given(problem=problems(on_grid=False, spoiled=False))
def test_equal_up_to_ties_within_rounding(
    problem: Problem, impl: str, device: torch.device
) -> None:
    """The similarities agree rank by rank, whichever of two close keys took the place."""
    ours, truth = problem.to(device).select(impl), judge(problem)
    dim = problem.anchors.embedding.shape[1]
    reach = 3 * max(
        [1.0, *(float(b.embedding.double().norm(dim=1).max()) for b in problem.blocks if len(b[1]))]
    )
    margin = dim * torch.finfo(torch.float32).eps * reach
    limit = problem.options["max_similarity"]
    for name in ("intra", "cross"):
        a = getattr(ours, f"{name}_similarity").cpu().numpy()
        b = getattr(truth, f"{name}_similarity")
        if limit is not None and (np.abs(b[np.isfinite(b)] - limit) < margin).any():
            continue  # a key on the limit may fall on either side of it
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        np.testing.assert_allclose(a[np.isfinite(a)], b[np.isfinite(b)], rtol=0, atol=margin)


@given(problem=problems(), cuts=st.lists(st.integers(0, 40), max_size=3))
def test_splitting_the_keys_changes_nothing(
    problem: Problem, cuts: list[int], impl: str, device: torch.device
) -> None:
    """One block or several give the same selection with the same indices."""
    dim = problem.anchors.embedding.shape[1]
    whole = Frames(
        torch.cat([b.embedding.float().reshape(-1, dim) for b in problem.blocks]),
        torch.cat([b.video for b in problem.blocks]),
        torch.cat([b.time for b in problem.blocks]),
        None
        if problem.anchors.patient is None
        else torch.cat([b.patient for b in problem.blocks if b.patient is not None]),
    )
    edges = [0, *sorted(min(c, len(whole.video)) for c in cuts), len(whole.video)]
    pieces = [
        Frames(*(None if x is None else x[a:b] for x in whole))
        for a, b in itertools.pairwise(edges)
    ]
    problem.blocks = [whole]
    truth = judge(problem)
    problem.blocks = pieces
    same_selection(problem.to(device).select(impl), truth)


# --- one rule at a time ---------------------------------------------------------------------------


def picked(anchor: Frames, keys: Frames, impl: str, **options: Any) -> tuple[list[int], list[int]]:
    options = {"window": (0.0, INF), "intra_k": 9, "cross_k": 9, **options}
    selection = select_negatives(anchor, keys, impl=impl, **options)
    same_selection(selection, oracle.select_negatives(anchor, keys, **options))
    intra, cross = selection.intra_index[0].tolist(), selection.cross_index[0].tolist()
    return [j for j in intra if j >= 0], [j for j in cross if j >= 0]


@pytest.fixture
def cpu_impl(impl: str, device: torch.device) -> str:
    """The rules are the same code on every device; the properties above run on all."""
    if device.type != "cpu":
        pytest.skip("checked on the CPU")
    return impl


def test_ties_go_to_the_lower_index(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.25, 0.5, 0.75, 0.5, 0.25], [1, 1, 1, 2, 2, 2])
    assert picked(one_anchor(), keys, cpu_impl) == ([], [3, 0, 2, 4, 1, 5])


def test_negative_zero_ties_with_zero(cpu_impl: str) -> None:
    keys = keys_of([-0.0, 0.0, -0.0, 0.0], [1, 1, 1, 1])
    assert picked(one_anchor(), keys, cpu_impl)[1] == [0, 1, 2, 3]


def test_skip_counts_valid_keys_only(cpu_impl: str) -> None:
    keys = keys_of([0.9, 0.8, 0.7, 0.6, 0.5], [1, -1, 1, 1, 1])
    anchor = one_anchor()
    assert picked(anchor, keys, cpu_impl, cross_skip=1, cross_k=2)[1] == [2, 3]
    assert picked(anchor, keys, cpu_impl, cross_skip=3, cross_k=2)[1] == [4]
    assert picked(anchor, keys, cpu_impl, cross_skip=4, cross_k=2)[1] == []
    assert picked(anchor, keys, cpu_impl, cross_skip=2**40)[1] == []


def test_missing_places_hold_minus_one_and_minus_infinity(cpu_impl: str) -> None:
    selection = select_negatives(
        one_anchor(),
        keys_of([0.5], [1]),
        window=(0.0, 1.0),
        intra_k=1,
        cross_k=3,
        impl=cpu_impl,
    )
    assert selection.intra_index.tolist() == [[-1]]
    assert selection.intra_similarity.tolist() == [[-INF]]
    assert selection.cross_index.tolist() == [[0, -1, -1]]
    assert selection.cross_similarity.tolist() == [[0.5, -INF, -INF]]


def test_window_bounds_are_inside(cpu_impl: str) -> None:
    keys = keys_of([0.1] * 6, [0] * 6, [0.0, 0.25, -0.25, 0.5, 0.75, -0.75])
    assert picked(one_anchor(), keys, cpu_impl, window=(0.25, 0.5))[0] == [1, 2, 3]
    assert picked(one_anchor(), keys, cpu_impl, window=(0.0, 0.0))[0] == []
    assert picked(one_anchor(), keys, cpu_impl, window=(-1.0, 0.25))[0] == [1, 2]
    assert picked(one_anchor(), keys, cpu_impl, window=(0.5, 0.25))[0] == []


def test_distance_and_bounds_are_float32(cpu_impl: str) -> None:
    """0.3f - 0.1f and 0.2 differ; both sides of the comparison are float32 values."""
    distance = float(abs(np.float32(0.3) - np.float32(0.1)))
    keys = keys_of([0.5], [0], [0.3])
    anchor = one_anchor(time=0.1)
    assert picked(anchor, keys, cpu_impl, window=(distance, distance))[0] == [0]
    inside = distance * (1 + 2.0**-40)  # rounds to the distance
    assert picked(anchor, keys, cpu_impl, window=(inside, 1.0))[0] == [0]
    window = torch.tensor([inside, 1.0], dtype=torch.float64)
    assert picked(anchor, keys, cpu_impl, window=window)[0] == [0]
    outside = float(np.nextafter(np.float32(distance), np.float32(1)))
    assert picked(anchor, keys, cpu_impl, window=(outside, 1.0))[0] == []


def test_times_that_are_not_finite(cpu_impl: str) -> None:
    keys = keys_of([0.5] * 4, [0] * 4, [NAN, INF, -INF, 1.0])
    assert picked(one_anchor(), keys, cpu_impl)[0] == [1, 2, 3]
    assert picked(one_anchor(), keys, cpu_impl, window=(0.0, 9.0))[0] == [3]
    assert picked(one_anchor(time=INF), keys, cpu_impl)[0] == [2, 3]  # inf - inf is NaN
    assert picked(one_anchor(time=NAN), keys, cpu_impl)[0] == []


def test_a_frame_without_time_is_still_a_cross_video_negative(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.25], [1, 0], [NAN, NAN])
    assert picked(one_anchor(), keys, cpu_impl) == ([], [0])


def test_nan_window_of_one_anchor_is_empty_for_that_anchor(cpu_impl: str) -> None:
    anchors = keys_of([1.0, 1.0, 1.0], [0, 0, 0], [0.0, 0.0, 0.0])
    keys = keys_of([0.5], [0], [1.0])
    window = torch.tensor([[0.5, 2.0], [NAN, 2.0], [0.5, NAN]])
    selection = select_negatives(anchors, keys, window=window, intra_k=1, cross_k=0, impl=cpu_impl)
    assert selection.intra_index.tolist() == [[0], [-1], [-1]]


def test_without_window_the_same_video_is_no_negative(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.5], [0, 1], [1.0, 1.0])
    assert picked(one_anchor(), keys, cpu_impl, window=None, intra_k=0) == ([], [1])


def test_patients(cpu_impl: str) -> None:
    """Only a known and equal patient excludes; the same video wins over contradicting ids."""
    keys = keys_of([0.5] * 6, [1, 1, 1, 0, 0, -1], [1.0] * 6, [7, 8, -1, 7, 8, 9])
    assert picked(one_anchor(patient=7), keys, cpu_impl) == ([3, 4], [1, 2])
    assert picked(one_anchor(patient=-1), keys, cpu_impl) == ([3, 4], [0, 1, 2])


def test_equal_negative_patients_are_unknown_not_equal(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.5], [1, 2], None, [-5, -1])
    assert picked(one_anchor(patient=-5), keys, cpu_impl)[1] == [0, 1]


def test_similarity_limit_is_inclusive_and_comes_before_the_ranks(cpu_impl: str) -> None:
    keys = keys_of([0.75, 0.5, 0.25, 0.875], [1, 1, 1, 0], [1.0] * 4)
    options = {"max_similarity": 0.5}
    assert picked(one_anchor(), keys, cpu_impl, **options) == ([], [1, 2])
    assert picked(one_anchor(), keys, cpu_impl, cross_skip=1, **options)[1] == [2]
    assert picked(one_anchor(), keys, cpu_impl, max_similarity=-INF) == ([], [])
    assert picked(one_anchor(), keys, cpu_impl, max_similarity=INF) == ([3], [0, 1, 2])


def test_similarity_limit_is_rounded_like_the_similarities(cpu_impl: str) -> None:
    """0.1f is above 0.1: a key of similarity 0.1 is not above the limit 0.1."""
    keys = keys_of([0.1, float(np.nextafter(np.float32(0.1), np.float32(1)))], [1, 1])
    assert picked(one_anchor(), keys, cpu_impl, max_similarity=0.1)[1] == [0]


def test_similarities_that_are_not_finite_are_invalid(cpu_impl: str) -> None:
    keys = keys_of([NAN, INF, -INF, 0.5], [1, 1, 1, 1])
    assert picked(one_anchor(), keys, cpu_impl)[1] == [3]


def test_finite_embeddings_may_overflow(cpu_impl: str) -> None:
    anchor = Frames(torch.tensor([[1e30]]), torch.tensor([0]), torch.tensor([0.0]))
    keys = keys_of([1e30, -1e30, 1.0], [1, 1, 1])
    assert picked(anchor, keys, cpu_impl)[1] == [2]


def test_negative_video_ids_are_empty_slots(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.5, 0.5], [-1, 0, 1], [1.0] * 3)
    assert picked(one_anchor(), keys, cpu_impl) == ([1], [2])
    assert picked(one_anchor(video=-1), keys, cpu_impl) == ([], [])


def test_ids_are_compared_in_64_bits(cpu_impl: str) -> None:
    keys = keys_of([0.5, 0.5], [2**40, 2**62 + 1], [1.0, 1.0], [2**33, 2**62])
    anchor = keys_of([1.0], [2**62 + 1], [0.0], [0])
    assert picked(anchor, keys, cpu_impl) == ([1], [0])


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_inputs_are_upcast_before_the_product(dtype: torch.dtype, cpu_impl: str) -> None:
    """1 + 2^-7 squared needs 15 bits: a product rounded to bfloat16 would tie with 1 + 2^-6."""
    a = 1 + 2.0**-7
    anchor = Frames(torch.tensor([[a]], dtype=dtype), torch.tensor([0]), torch.tensor([0.0]))
    keys = keys_of([1.0, a, -a], [1, 1, 1])
    keys = keys._replace(embedding=keys.embedding.to(dtype))
    selection = select_negatives(anchor, keys, window=None, intra_k=0, cross_k=3, impl=cpu_impl)
    assert selection.cross_similarity.tolist() == [[a * a, a, -a * a]]


def test_one_chain_in_order_of_d(native_device: torch.device) -> None:
    """fma keeps the low bits of each product; pairwise sums or separate roundings lose them."""
    rng = np.random.default_rng(3)
    for dim in (2, 3, 8, 17, 63, 128, 513):
        q = torch.from_numpy(rng.standard_normal((4, dim))).float()
        k = torch.from_numpy(rng.standard_normal((70, dim))).float()
        anchors = Frames(q, torch.zeros(4, dtype=torch.int64), torch.zeros(4))
        keys = Frames(k, torch.ones(70, dtype=torch.int64), torch.zeros(70))
        options: dict[str, Any] = {"window": None, "intra_k": 0, "cross_k": 70}
        ours = select_negatives(
            Frames(*(x if x is None else x.to(native_device) for x in anchors)),
            Frames(*(x if x is None else x.to(native_device) for x in keys)),
            impl="native",
            **options,
        )
        same_selection(ours, oracle.select_negatives(anchors, keys, **options))

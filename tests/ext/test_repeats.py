"""A call like an earlier one is not checked again, so it must be like it in all that is checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strategies import Problem, plain_problem

from usucl_ext import Frames, Selection, _repeats, hard_negative_nce
from usucl_ext._library import _native

pytestmark = pytest.mark.skipif(
    _native is None or _repeats._Guards is None, reason="every call is checked here"
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    _repeats._known.clear()


def run(problem: Problem, **options: Any) -> Any:
    given = {**problem.options, "impl": "native", **options}
    return hard_negative_nce(problem.anchors, problem.positives, problem.blocks, **given)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list with one entry per checked call."""
    seen: list[object] = []
    from usucl_ext import ops

    check = ops.check_problem

    def counting(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments)
        return check(*arguments, **options)

    monkeypatch.setattr(ops, "check_problem", counting)
    return seen


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, Selection)):
        return all(map(same, a, b))
    return torch.equal(a, b)


def test_a_repeated_call_is_not_checked_and_reads_its_own_tensors(checks: list[object]) -> None:
    one, other = plain_problem(CPU), plain_problem(CPU)
    other.positives = other.positives.flip(0).contiguous()
    run(one)
    assert same(run(other, return_selection=True), run(other, impl="auto", return_selection=True))
    assert len(checks) == 2  # the first of each impl
    assert not same(run(one), run(other))


def test_other_values_are_other_calls() -> None:
    problem = plain_problem(CPU)
    found = [
        run(problem, **options)
        for options in (
            {"temperature": 0.1},
            {"temperature": 0.2},
            {"temperature": torch.tensor(0.3)},
            {"temperature": torch.tensor(0.4)},
            {"temperature": 0.1, "soft_nn_temperature": 0.2},
            {"temperature": 0.1, "soft_nn_temperature": torch.tensor(0.3)},
            {"temperature": torch.tensor(0.1), "soft_nn_temperature": 0.3},
            {"reduction": "sum"},
            {"window": (0.0, 9.0)},
            {"window": torch.tensor([0.0, 0.01])},
        )
    ]
    expected = [
        run(problem, impl="reference", **options)
        for options in (
            {"temperature": 0.1},
            {"temperature": 0.2},
            {"temperature": 0.3},
            {"temperature": 0.4},
            {"temperature": 0.1, "soft_nn_temperature": 0.2},
            {"temperature": 0.1, "soft_nn_temperature": 0.3},
            {"temperature": 0.1, "soft_nn_temperature": 0.3},
            {"reduction": "sum"},
            {"window": (0.0, 9.0)},
            {"window": (0.0, 0.01)},
        )
    ]
    torch.testing.assert_close(found, expected)


def test_a_list_is_read_at_every_call() -> None:
    problem, window = plain_problem(CPU), [0.0, 9.0]
    wide = run(problem, window=window)
    assert same(run(problem, window=window), wide)
    window[1] = 0.01
    assert same(run(problem, window=window), run(problem, window=(0.0, 0.01)))


def test_what_is_wrong_is_wrong_after_a_good_call() -> None:
    problem = plain_problem(CPU)
    good = {**problem.options, "window": (0.0, 1.0), "cross_k": 1, "temperature": 1.0}
    run(problem, **good)
    for wrong in (
        {"cross_k": True},
        {"cross_k": 1.0},
        {"window": (False, 1.0)},
        {"window": (0.0, True)},
        {"window": (0.0, 1.0, 1.0)},
        {"temperature": True},
        {"temperature": torch.ones(1)},
        {"reduction": "none of these"},
    ):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            run(problem, **{**good, **wrong})
    anchors = problem.anchors
    for field, value in (
        ("video", anchors.video[:-1]),
        ("video", anchors.video.double()),
        ("time", anchors.time.bool()),
        ("time", None),
        ("patient", anchors.video),
        ("embedding", anchors.embedding[:, :-1]),
        ("embedding", anchors.embedding.to("meta")),
    ):
        problem.anchors = anchors._replace(**{field: value})
        with pytest.raises((TypeError, ValueError)):
            run(problem, **good)


def test_strides_are_part_of_the_look() -> None:
    problem = plain_problem(CPU)
    expected = run(problem)
    transposed = problem.anchors.embedding.t().contiguous().t()
    problem.anchors = problem.anchors._replace(embedding=transposed)
    for _ in range(2):
        assert same(run(problem), expected)


def test_the_same_tensor_twice(checks: list[object]) -> None:
    """In-batch negatives share their tensors with the anchors."""
    problem = plain_problem(CPU)
    apart = [Frames(*(x if x is None else x.clone() for x in problem.anchors))]
    together = [problem.anchors]
    found = []
    for blocks in (apart, together, apart, together):
        problem.blocks = blocks
        found.append(run(problem))
    assert all(same(loss, found[0]) for loss in found)
    assert len(checks) == 2


def test_gradients_of_repeated_calls() -> None:
    problem = plain_problem(CPU)
    leaves = [problem.anchors.embedding, problem.positives, problem.blocks[0].embedding]
    without = run(problem)
    for leaf in leaves:
        leaf.requires_grad_()
    first, second = (torch.autograd.grad(run(problem), leaves) for _ in range(2))
    assert all(map(torch.equal, first, second))
    with torch.no_grad():
        assert not run(problem).requires_grad
    assert same(run(problem).detach(), without)


def test_few_calls_are_remembered() -> None:
    problem = plain_problem(CPU)
    for i in range(_repeats.MOST + 5):
        run(problem, temperature=0.1 + i / 100)
    assert len(_repeats._known) == _repeats.MOST

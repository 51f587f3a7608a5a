"""The same bits in every run, on any number of threads, however the keys are cut into blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from strategies import Outcome, Problem
from torch.nn.functional import normalize

from usucl_ext import Frames


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def busy_problem(device: torch.device, **options: Any) -> Problem:
    """Returns work for several threads, with few keys for many anchors: gradients collide."""
    generator = torch.Generator().manual_seed(11)

    def frames(count: int, dtype: torch.dtype = torch.float32) -> Frames:
        embedding = normalize(torch.randn(count, 40, generator=generator), dim=1)
        embedding[1::7] = embedding[0]  # exact ties, across blocks too
        return Frames(
            embedding.to(dtype),
            torch.randint(-1, 6, (count,), generator=generator),
            torch.rand(count, generator=generator),
            torch.randint(-1, 3, (count,), generator=generator),
        )

    problem = Problem(
        frames(300),
        normalize(torch.randn(300, 40, generator=generator), dim=1),
        [frames(37), frames(700, torch.bfloat16), frames(64)],
        {
            "window": (0.1, 0.6),
            "intra_k": 4,
            "cross_k": 16,
            "intra_skip": 1,
            "cross_skip": 0,
            "temperature": torch.tensor(0.07),
            "soft_nn_temperature": None,
            "max_similarity": 0.95,
            "reduction": "mean",
            **options,
        },
    )
    return problem.to(device)


def bits(outcome: Outcome) -> list[torch.Tensor]:
    grads = [outcome.anchors, outcome.positives, *outcome.blocks]
    grads += [outcome.temperature, outcome.soft_nn_temperature]
    return [outcome.loss, *outcome.selection, *(g for g in grads if g is not None)]


def same_bits(a: Outcome, b: Outcome) -> None:
    for number, (x, y) in enumerate(zip(bits(a), bits(b), strict=True)):
        assert torch.equal(x, y), f"output {number} differs by {(x - y).abs().max():.3g}"


@pytest.mark.parametrize("soft", [None, 0.1])
def test_every_run_gives_the_same_bits(soft: float | None, impl: str, device: torch.device) -> None:
    problem = busy_problem(device, soft_nn_temperature=None if soft is None else torch.tensor(soft))
    first = problem.run(impl)
    for _ in range(5):
        same_bits(problem.run(impl), first)


@pytest.mark.parametrize("soft", [None, 0.1])
def test_every_number_of_threads_gives_the_same_bits(
    soft: float | None, native_device: torch.device, threads: None
) -> None:
    if native_device.type != "cpu":
        pytest.skip("CPU threads")
    problem = busy_problem(
        native_device, soft_nn_temperature=None if soft is None else torch.tensor(soft)
    )
    torch.set_num_threads(1)
    first = problem.run("native")
    for count in (2, 3, 4):
        torch.set_num_threads(count)
        same_bits(problem.run("native"), first)


def test_few_anchors_against_many_keys_in_every_number_of_threads(
    native_device: torch.device, threads: None
) -> None:
    """Threads can only divide the keys here, not the anchors."""
    if native_device.type != "cpu":
        pytest.skip("CPU threads")
    problem = busy_problem(native_device)
    problem.anchors = Frames(*(x[:3] for x in problem.anchors if x is not None))
    problem.positives = problem.positives[:3]
    many = problem.blocks[1]
    problem.blocks[1] = Frames(*(torch.cat([x] * 30) for x in many if x is not None))
    torch.set_num_threads(1)
    first = problem.run("native")
    for count in (2, 3, 4):
        torch.set_num_threads(count)
        same_bits(problem.run("native"), first)


def test_cutting_the_keys_moves_no_bit_of_the_selection(native_device: torch.device) -> None:
    """Blocks, even empty and tiny ones, equal one whole block; similarities are not exact."""
    problem = busy_problem(native_device)
    whole = Frames(
        torch.cat([block.embedding.float() for block in problem.blocks]),
        *(torch.cat([block[column] for block in problem.blocks]) for column in (1, 2, 3)),
    )
    problem.blocks = [whole]
    expected = problem.run("native")
    for sizes in ([1, 800], [0, 801, 0], [400, 401], [17] * 47 + [2], [13, 31, 33, 255, 257, 212]):
        pieces = [torch.split(column, sizes) for column in whole if column is not None]
        problem.blocks = [Frames(*columns) for columns in zip(*pieces, strict=True)]
        ours = problem.run("native")
        assert all(
            torch.equal(a, b) for a, b in zip(ours.selection, expected.selection, strict=True)
        )
        assert torch.equal(ours.loss, expected.loss)
        assert torch.equal(ours.anchors, expected.anchors)
        joined = torch.cat([grad for grad in ours.blocks if grad is not None])
        assert torch.equal(joined, expected.blocks[0])


def test_other_anchors_do_not_matter(native_device: torch.device) -> None:
    """An anchor selects the same keys alone and in any place among others."""
    problem = busy_problem(native_device)
    together = problem.select("native")
    order = torch.randperm(300)
    anchors = problem.anchors
    problem.anchors = Frames(*(x[order] for x in anchors if x is not None))
    for ours, theirs in zip(problem.select("native"), together, strict=True):
        assert torch.equal(ours, theirs[order])
    for i in (0, 7, 299):
        problem.anchors = Frames(*(x[i : i + 1] for x in anchors if x is not None))
        for ours, theirs in zip(problem.select("native"), together, strict=True):
            assert torch.equal(ours, theirs[i : i + 1])

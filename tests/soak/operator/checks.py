"""What must hold for every problem: the truth, everywhere the same bits, inputs left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from comparison import assert_gradients, assert_same_selection, same_selection
from strategies import Outcome, Problem
from tolerances import assert_close
from torch import Tensor

from usucl_ext import hard_negative_nce


def assert_true(problem: Problem) -> None:
    """Selection, loss and gradients are the oracle's, and the inputs are as they were."""
    before = [tensor.clone() for tensor in _inputs(problem)]
    outcome, truth = problem.run("native"), problem.judge()
    same_selection(outcome.selection, truth.selection)
    assert_close(outcome.loss, truth.loss, problem.arithmetic, "loss")
    assert_gradients(outcome, problem, truth)
    for tensor, copy in zip(_inputs(problem), before, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


def assert_same_at_once(problem: Problem) -> None:
    """Calls of several threads at once have the bits of one by itself."""
    alone = problem.run("native")
    with ThreadPoolExecutor(3) as pool:
        for other in pool.map(lambda _: problem.run("native"), range(3)):
            _assert_same(other, alone)


def assert_same_in_a_fork(problem: Problem) -> None:
    """A forked process, which has no threads yet, has the same bits."""
    alone = problem.run("native")
    child = os.fork()
    if not child:
        status = 1
        try:
            _assert_same(problem.run("native"), alone)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the fork ended with {status}"


def assert_changes_are_noticed(problem: Problem) -> None:
    """Inputs that are changed before backward raise an error, or had no part in the gradients."""
    embedding = problem.anchors.embedding.detach().clone().requires_grad_()
    anchors = problem.anchors._replace(embedding=embedding)
    first = problem.blocks[0]
    keys = [first._replace(embedding=first.embedding.clone()), *problem.blocks[1:]]

    def gradient(change: bool) -> Tensor | None:
        embedding.grad = None
        loss = hard_negative_nce(anchors, problem.positives, keys, impl="native", **problem.options)
        if change:
            keys[0].embedding.add_(1)
        try:
            loss.sum().backward()
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error), error
            return None
        return embedding.grad

    expected, found = gradient(False), gradient(True)
    if found is not None and expected is not None:
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def _assert_same(ours: Outcome, theirs: Outcome) -> None:
    assert_same_selection(ours.selection, theirs.selection)
    pairs = [
        (getattr(ours, name), getattr(theirs, name)) for name in ("loss", "anchors", "positives")
    ]
    for a, b in [*pairs, *zip(ours.blocks, theirs.blocks, strict=True)]:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def _inputs(problem: Problem) -> Iterator[Tensor]:
    for frames in (problem.anchors, *problem.blocks):
        yield from (tensor for tensor in frames if tensor is not None)
    yield problem.positives
    yield from (value for value in problem.options.values() if isinstance(value, Tensor))

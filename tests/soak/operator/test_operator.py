"""A problem under every check, and a fault that is found; the command tries thousands."""

from __future__ import annotations

import pytest
from strategies import Problem, plain_problem

from tests.soak.operator import checks, worker


def test_every_check_holds(native_device: object) -> None:
    for number in (0, 5, 7):
        worker.all_checks(plain_problem(), number, threads=1)


def test_a_fault_is_found_and_made_small(
    monkeypatch: pytest.MonkeyPatch, native_device: object
) -> None:
    def wrong_for_many(problem: Problem) -> None:
        assert len(problem.positives) < 2

    monkeypatch.setattr(checks, "assert_true", wrong_for_many)
    monkeypatch.setattr(worker, "EXAMPLES", 20)
    tried, found = worker.batch("on a grid", 0, first_seed=0, threads=1)
    assert tried > 1 and "wrong_for_many" in found and "AssertionError" in found

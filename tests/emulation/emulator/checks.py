"""Compares an emulated call with the CPU kernels and the oracle."""

from __future__ import annotations

import torch
from comparison import assert_same_selection
from emulated import Emulator
from oracle import Judgement
from strategies import Outcome, Problem
from tolerances import assert_close


def assert_judged(outcome: Outcome, truth: Judgement, arithmetic: torch.dtype) -> None:
    for name, ours in outcome.selection._asdict().items():
        assert torch.equal(ours, torch.from_numpy(getattr(truth.selection, name))), name
    assert_close(outcome.loss, truth.loss, arithmetic, "loss")
    for name in ("anchors", "positives", "temperature", "soft_nn_temperature"):
        grad = getattr(outcome, name)
        if grad is not None:
            assert_close(grad, getattr(truth, name), arithmetic, name)
    for b, (ours_b, value) in enumerate(zip(outcome.blocks, truth.blocks, strict=True)):
        assert ours_b is not None
        assert_close(ours_b, value, arithmetic, f"block {b}")


def check(emulator: Emulator, problem: Problem, *, judge: bool = True) -> None:
    on_cpu = problem.select("native")
    assert_same_selection(emulator.select(problem), on_cpu)
    outcome = emulator.run(problem)
    if judge:
        assert_judged(outcome, problem.judge(), problem.arithmetic)
    else:
        assert_same_selection(outcome.selection, problem.run("native").selection)

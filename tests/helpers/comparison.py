"""Asserts that a result is the oracle's, or another device's bit for bit."""

from __future__ import annotations

import numpy as np
import oracle
import torch
from strategies import Outcome, Problem
from tolerances import assert_close
from torch import Tensor

from usucl_ext import Selection


def same_selection(ours: Selection, truth: oracle.Selection) -> None:
    for name in ("intra", "cross"):
        index = getattr(ours, f"{name}_index")
        similarity = getattr(ours, f"{name}_similarity")
        assert index.dtype == torch.int64 and not similarity.requires_grad
        np.testing.assert_array_equal(index.cpu().numpy(), getattr(truth, f"{name}_index"), name)
        expected = getattr(truth, f"{name}_similarity")
        assert similarity.cpu().numpy().dtype == expected.dtype
        np.testing.assert_array_equal(similarity.cpu().numpy(), expected, name)


def assert_same_selection(ours: Selection, theirs: Selection) -> None:
    """Compares two of our own selections bit for bit, whichever device each is on."""
    for name, a, b in zip(Selection._fields, ours, theirs, strict=True):
        assert a.dtype == b.dtype, name
        assert torch.equal(a.cpu(), b.cpu()), f"{name}: {a} is not {b}"


def assert_gradients(ours: Outcome, problem: Problem, truth: oracle.Judgement) -> None:
    arithmetic = problem.arithmetic
    pairs = [
        ("anchors", problem.anchors.embedding, ours.anchors, truth.anchors),
        ("positives", problem.positives, ours.positives, truth.positives),
    ]
    for number, block in enumerate(problem.blocks):
        pairs.append(
            (f"negatives[{number}]", block.embedding, ours.blocks[number], truth.blocks[number])
        )
    for name in ("temperature", "soft_nn_temperature"):
        given_value = problem.options[name]
        if isinstance(given_value, Tensor):
            pairs.append((name, given_value, getattr(ours, name), getattr(truth, name)))
    for name, source, grad, value in pairs:
        if grad is None:  # an empty block may stay outside the graph
            assert source.numel() == 0, name
            continue
        assert grad.dtype == source.dtype and grad.shape == source.shape, name
        assert_close(grad, value, arithmetic, f"gradient of {name}")

"""HardNegativeNCE keeps its window and options, whatever is done to the model around it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from usucl_ext import Frames, HardNegativeNCE, hard_negative_nce

WINDOW = (0.2, 0.4)


def _inputs() -> tuple[Frames, torch.Tensor, Frames]:
    keys = Frames(torch.randn(40, 8), torch.arange(40) % 4, torch.rand(40))
    return Frames(torch.randn(6, 8), torch.arange(6) % 4, torch.rand(6)), torch.randn(6, 8), keys


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_casting_a_model_leaves_the_window_in_float32(cast) -> None:
    module = HardNegativeNCE(window=(1000.25, 100000.5), intra_k=2, cross_k=3)
    cast(nn.Sequential(nn.Linear(2, 2), module))
    assert module.window.dtype == torch.float32
    assert module.window.tolist() == [1000.25, 100000.5]
    module.set_window(*WINDOW)
    assert module.window.tolist() == torch.tensor(WINDOW).tolist()


def _on_meta() -> HardNegativeNCE:
    with torch.device("meta"):
        return HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3)


def _moved_there() -> HardNegativeNCE:
    module = HardNegativeNCE(window=(0.0, 9.0), intra_k=2, cross_k=3)
    module.set_window(*WINDOW)
    return module.to("meta")


def _never_there() -> HardNegativeNCE:
    return HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3)


@pytest.mark.parametrize("made", [_on_meta, _moved_there, _never_there])
@pytest.mark.parametrize(
    "kept", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_module_that_is_given_memory_has_its_window(made, kept) -> None:
    """Its buffer is in no state_dict, so nothing else would write it."""
    module = kept(nn.Sequential(nn.Linear(2, 2), made())).half()
    junk = [torch.full((2,), -7.0) for _ in range(200)]
    del junk
    module.to_empty(device="cpu")
    assert module[1].window.dtype == torch.float32
    assert module[1].window.tolist() == torch.tensor(WINDOW).tolist()
    module[1].window.fill_(torch.nan)
    module[1].reset_parameters()
    assert module[1].window.tolist() == torch.tensor(WINDOW).tolist()


def test_module_is_the_function_and_survives_copying(impl: str) -> None:
    module = HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3, cross_skip=1, impl=impl)
    anchors, positives, keys = _inputs()
    expected = hard_negative_nce(
        anchors, positives, keys, window=WINDOW, intra_k=2, cross_k=3, cross_skip=1, impl=impl
    )
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(anchors, positives, keys), expected)
    assert module.state_dict() == {}


def test_a_window_per_anchor_replaces_that_of_the_module_in_one_call(impl: str) -> None:
    module = HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3, impl=impl)
    anchors, positives, keys = _inputs()
    windows = torch.rand(len(anchors.video), 2).sort(1).values
    expected = hard_negative_nce(
        anchors, positives, keys, window=windows, intra_k=2, cross_k=3, impl=impl
    )
    before = module(anchors, positives, keys)
    assert torch.equal(module(anchors, positives, keys, window=windows), expected)
    assert torch.equal(module(anchors, positives, keys), before)
    assert not torch.equal(before, expected)
    with pytest.raises((TypeError, ValueError), match="window"):
        module(anchors, positives, keys, window=windows[:, :1])


def test_bounds_beyond_float32_are_infinite(impl: str) -> None:
    anchors, positives, keys = _inputs()
    module = HardNegativeNCE(window=(0.0, 1e300), intra_k=2, cross_k=3, impl=impl)
    assert module.window.tolist() == [0.0, float("inf")]
    wide = hard_negative_nce(
        anchors, positives, keys, window=(0.0, float("inf")), intra_k=2, cross_k=3, impl=impl
    )
    assert torch.equal(module(anchors, positives, keys), wide)


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        ((1, 2, 3), TypeError, r"window must be a pair \(lo, hi\)"),
        ("ab", TypeError, r"window must be a pair \(lo, hi\)"),
        ((0.1, "x"), TypeError, r"window\[1\] must be a float, got str"),
        ((float("nan"), 1.0), ValueError, r"window\[0\] must be a number, got nan"),
        (None, ValueError, r"window must be given with intra_k = 2, got None"),
    ],
)
def test_window_errors_name_it(window, error, message) -> None:
    with pytest.raises(error, match=message):
        HardNegativeNCE(window=window, intra_k=2, cross_k=3)


def test_a_refused_window_changes_nothing() -> None:
    module = HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3)
    with pytest.raises(TypeError, match=r"window\[1\] must be a float, got NoneType"):
        module.set_window(0.3, None)
    assert module.window.tolist() == torch.tensor(WINDOW).tolist()


def test_repr_fits_on_a_line() -> None:
    learnt = nn.Parameter(torch.tensor(0.1))
    module = HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3, temperature=learnt)
    assert "temperature=learnt" in repr(module) and "\n" not in repr(module)
    with torch.device("meta"):
        assert "window=(0.2, 0.4)" in repr(HardNegativeNCE(window=WINDOW, intra_k=2, cross_k=3))


def test_easy_rows_keep_their_digits(impl: str) -> None:
    """One negative ten logits below the positive: the loss is log(1 + exp(-10)), not 0.8 % off."""
    row = torch.tensor([[1.0, 0.0]])
    keys = Frames(torch.tensor([[0.0, 1.0]]), torch.ones(1, dtype=torch.int64), torch.zeros(1))
    anchors = Frames(row, torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    loss = hard_negative_nce(
        anchors, row, keys, window=None, intra_k=0, cross_k=1, temperature=0.1, impl=impl
    )
    # float32 rounds the temperature, which moves the logit by 10 eps: some eps of the loss.
    expected = torch.tensor(-10.0, dtype=torch.float64).exp().log1p().float()
    torch.testing.assert_close(loss, expected, rtol=40 * torch.finfo(torch.float32).eps, atol=0)


def test_huge_finite_similarities_are_no_broken_rows(impl: str) -> None:
    huge = torch.eye(5, 8) * 1e19  # similarities of 1e38, within float32
    video = torch.arange(5)
    anchors = Frames(huge, video, torch.zeros(5))
    keys = Frames(torch.zeros(3, 8), torch.full((3,), 9), torch.zeros(3))
    loss = hard_negative_nce(anchors, huge, keys, window=None, intra_k=0, cross_k=2, impl=impl)
    assert loss.item() == 0.0


def test_an_empty_block_has_an_empty_gradient(impl: str) -> None:
    anchors, positives, _ = _inputs()
    empty = torch.zeros(0, 8, requires_grad=True)
    keys = Frames(empty, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss = hard_negative_nce(anchors, positives, keys, window=None, intra_k=0, cross_k=1, impl=impl)
    loss.backward()
    assert empty.grad is not None and empty.grad.shape == (0, 8)


@pytest.mark.parametrize("skip", [2**40, 2**63 - 1, 2**70])
def test_skipping_more_than_there_is_leaves_nothing(impl: str, skip: int) -> None:
    anchors, positives, keys = _inputs()
    loss, selection = hard_negative_nce(
        anchors,
        positives,
        keys,
        window=(0.0, 1.0),
        intra_k=2,
        cross_k=3,
        intra_skip=skip,
        cross_skip=skip,
        return_selection=True,
        impl=impl,
    )
    assert loss.item() == 0.0
    assert (selection.intra_index == -1).all() and (selection.cross_index == -1).all()

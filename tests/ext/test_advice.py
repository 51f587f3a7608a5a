"""Arguments that are lawful but hardly meant are warned of, once per process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from usucl.bank import NegativeBank
from usucl_ext import Frames, HardNegativeNCE, _advice, hard_negative_nce, ops, select_negatives


@pytest.fixture(autouse=True)
def _nothing_was_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_advice, "_told", set())
    monkeypatch.setattr(ops, "_turns", _advice.Turns())
    yield


def frames(embedding: Tensor) -> Frames:
    rows = torch.arange(len(embedding))
    return Frames(embedding, rows % 4, rows / len(embedding))


def loss(z: Tensor, keys: Tensor | None = None, window: tuple[float, float] = (0.1, 0.5)) -> Tensor:
    keys = z if keys is None else keys
    return hard_negative_nce(frames(z), z, frames(keys), window=window, intra_k=2, cross_k=3)


def told(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


UNIT = normalize(torch.randn(24, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_normalised_embeddings_are_not_warned_of(dtype: torch.dtype) -> None:
    z = UNIT.to(dtype)
    z[3] = 0
    for _ in range(3):
        assert told(lambda: loss(z.clone().requires_grad_())) == []
    assert told(lambda: HardNegativeNCE(window=None, intra_k=0, cross_k=2)) == []


@pytest.mark.parametrize("scale", [4.0, 0.3])
def test_plain_outputs_of_a_network_are_told_once(scale: float) -> None:
    loss(UNIT)  # a call that looks like the next ones
    (text,) = told(lambda: loss(scale * UNIT))
    assert text.startswith("anchors should hold L2-normalised embeddings")
    assert f"length {scale:.3g}" in text
    assert told(lambda: (loss(scale * UNIT), loss(scale * UNIT[:9]))) == []


def test_keys_selections_and_banks_are_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = NegativeBank(8, 16)
    for name, call in (
        (r"negatives[0]", lambda: loss(UNIT, 3 * UNIT)),
        ("anchors", lambda: select_negatives(
            frames(3 * UNIT), frames(UNIT), window=None, intra_k=0, cross_k=2)),
        ("frames.embedding", lambda: bank.enqueue(frames(3 * UNIT))),
    ):  # fmt: skip
        (text,) = told(call)
        assert text.startswith(f"{name} should hold")
        monkeypatch.setattr(_advice, "_told", set())
    assert told(lambda: bank.enqueue(frames(UNIT))) == []


def test_a_reversed_window_is_told_once() -> None:
    (text,) = told(lambda: (loss(UNIT, window=(0.4, 0.2)), loss(UNIT, window=(0.5, 0.2))))
    assert text.startswith("window should be (lo, hi) with lo <= hi, got (0.4, 0.2): it is empty")
    module = HardNegativeNCE(window=(0.1, 0.2), intra_k=2, cross_k=3)
    assert told(lambda: module.set_window(0.2, 0.1)) == []


def test_compiled_graphs_do_not_look() -> None:
    compiled = torch.compile(
        lambda z: loss(z, window=(0.4, 0.2)), fullgraph=True, backend="aot_eager"
    )
    assert told(lambda: compiled(3 * UNIT)) == []

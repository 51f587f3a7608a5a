"""Label smoothing and weights of positives, against sums in float64 over plain lists."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from usucl.bank import NegativeBank
from usucl.losses import (
    Frames,
    LossInputs,
    Selection,
    contrastive_loss,
    dense_inputs,
    hard_negative_nce,
    momentum_inputs,
)

WINDOW = torch.tensor([0.15, 0.5])


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(
        dtype
    )


def frames(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Frames:
    row = torch.arange(n)
    patient = torch.where(row % 4 == 3, -1, row % 4 // 2)
    return Frames(unit(n, 6, seed=seed, dtype=dtype), row % 4, row // 4 / (n / 4), patient)


def inputs_of(n: int = 16, positives: int = 1, dtype: torch.dtype = torch.float32) -> LossInputs:
    """Anchors with few negatives or none, several blocks, an empty slot and a row that is NaN."""
    anchors, own, bank = frames(n, dtype=dtype), frames(n, 1, dtype), frames(24, 2, dtype)
    anchors.video[5] = -1
    bank.video[3] = -1
    bank.embedding[7] = torch.nan
    shape = (n, 6) if positives == 1 else (n, positives, 6)
    window = WINDOW.repeat(n, 1)
    window[2] = torch.tensor([1.0, 0.0])  # empty
    distance = torch.arange(n * positives).reshape(n, positives) % 5 / 10
    positive = unit(*shape, seed=3, dtype=dtype)
    return LossInputs(anchors, positive, (own, bank), window, distance)


def oracle(
    inputs: LossInputs, selection: Selection, smoothing: float, decay: float | None, **options: Any
) -> list[float]:
    """The loss of each anchor as a cross-entropy to the soft target, from the selection."""
    keys = torch.cat([block.embedding for block in inputs.negatives]).double()
    keys, query = keys.detach(), inputs.anchors.embedding.double()
    positives = inputs.positives.double().reshape(len(query), -1, query.shape[1])
    temperature, soft = options["temperature"], options.get("soft_nn_temperature")
    losses = []
    for i, q in enumerate(query):
        intra, cross = (
            [float(q @ keys[j]) for j in index[i].tolist() if j >= 0]
            for index in (selection.intra_index, selection.cross_index)
        )
        if soft is not None and cross:
            weights = [math.exp(s / soft) for s in cross]
            cross = [sum(w * s for w, s in zip(weights, cross, strict=True)) / sum(weights)]
        of_positive = []
        for p in positives[i]:
            logits = [s / temperature for s in [float(q @ p), *intra, *cross]]
            total = math.log(sum(math.exp(x) for x in logits))
            target = [smoothing / len(logits)] * len(logits)
            target[0] += 1 - smoothing
            of_positive.append(sum(t * (total - x) for t, x in zip(target, logits, strict=True)))
        share = [1.0] * len(of_positive)
        if decay is not None:
            share = [math.exp(-float(d) / decay) for d in inputs.positive_distance[i]]
        mean = sum(w * x for w, x in zip(share, of_positive, strict=True)) / sum(share)
        losses.append(mean if intra or cross else 0.0)
    return losses


OPTIONS: list[dict[str, Any]] = [
    {"intra_k": 2, "cross_k": 5, "temperature": 0.2},
    {"intra_k": 0, "cross_k": 3, "temperature": 0.1, "soft_nn_temperature": 0.07},
    {"intra_k": 4, "cross_k": 9, "temperature": 0.5, "soft_nn_temperature": 0.3, "margin": 0.1},
    {"intra_k": 3, "cross_k": 0, "temperature": 0.3, "intra_skip": 1, "max_similarity": 0.6},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("positives", "decay"), [(1, None), (3, None), (3, 0.1)])
def test_it_is_the_cross_entropy_to_the_soft_target(
    options: dict[str, Any], positives: int, decay: float | None
) -> None:
    inputs = inputs_of(positives=positives)
    extra = {"positive_decay": decay, "reduction": "none"}
    loss, selection = contrastive_loss(inputs, label_smoothing=0.3, **extra, **options)
    expected = torch.tensor(oracle(inputs, selection, 0.3, decay, **options))
    assert float(expected[5]) == 0.0 and bool((selection.intra_index[2] < 0).all())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    mean, _ = contrastive_loss(inputs, label_smoothing=0.3, positive_decay=decay, **options)
    assert float(mean) == pytest.approx(float(loss.mean()), rel=1e-5)


def test_without_the_options_it_is_the_loss_to_the_bit() -> None:
    inputs = inputs_of(positives=2)
    plain = hard_negative_nce(*inputs[:3], window=inputs.window, **OPTIONS[0])
    assert torch.equal(contrastive_loss(inputs, **OPTIONS[0])[0], plain)
    one = inputs_of()
    plain = hard_negative_nce(*one[:3], window=one.window, **OPTIONS[0])
    assert torch.equal(contrastive_loss(one, positive_decay=0.1, **OPTIONS[0])[0], plain)


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_gradients_reach_anchors_positives_and_keys(options: dict[str, Any]) -> None:
    made = inputs_of(8, positives=2, dtype=torch.float64)
    options = {**options, "reduction": "sum", "label_smoothing": 0.2, "positive_decay": 0.1}
    made.negatives[1].embedding[7] = unit(6, dtype=torch.float64)  # gradcheck compares NaN with 0

    def loss(anchors: Tensor, positives: Tensor, own: Tensor, bank: Tensor) -> Tensor:
        blocks = (
            made.negatives[0]._replace(embedding=own),
            made.negatives[1]._replace(embedding=bank),
        )
        inputs = made._replace(
            anchors=made.anchors._replace(embedding=anchors), positives=positives, negatives=blocks
        )
        return contrastive_loss(inputs, **options)[0]

    given = (made.anchors.embedding, made.positives, *(b.embedding for b in made.negatives))
    leaves = [x.clone().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    made = inputs_of(positives=2)
    made.anchors.embedding[4] = torch.nan
    made.positives[6, 1] = torch.inf
    leaves = [made.anchors.embedding, made.positives, made.negatives[0].embedding]
    for leaf in leaves:
        leaf.requires_grad_()
    options = {"label_smoothing": 0.2, "positive_decay": 0.1, "reduction": "none", **OPTIONS[0]}
    loss, _ = contrastive_loss(made, **options)
    loss.sum().backward()
    rows = torch.arange(16)
    good = (rows != 4) & (rows != 6)
    assert torch.equal(loss.isfinite(), good)
    assert bool(leaves[0].grad[good].isfinite().all()) and bool(
        leaves[1].grad[good].isfinite().all()
    )
    assert bool(leaves[2].grad.isfinite().all())


def test_a_bank_and_its_candidates_give_the_same(one_thread: None) -> None:
    bank = NegativeBank(32, 6)
    bank.enqueue(frames(32, 5))
    made = inputs_of(12)
    options = {"label_smoothing": 0.1, **OPTIONS[0]}
    found = bank.candidates(made.anchors, 5, window=made.window)
    losses = [
        contrastive_loss(made._replace(negatives=(made.negatives[0], block)), **options)[0]
        for block in (bank.frames(), found)
    ]
    assert len(found.video) < 32
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    half, options = inputs_of(dtype=dtype), {"label_smoothing": 0.3, **OPTIONS[1]}
    half.negatives[0].embedding.requires_grad_()
    loss, selection = contrastive_loss(half, reduction="none", **options)
    assert loss.dtype == torch.float32
    expected = oracle(half, selection, 0.3, None, **OPTIONS[1])
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    loss.sum().backward()
    assert half.negatives[0].embedding.grad.dtype == dtype


def test_distances_of_positives_follow_the_views() -> None:
    offset = torch.tensor([[0.1, -0.2], [0.0, 0.3]])
    first, second = frames(2), unit(2, 2, 6, seed=1)
    dense = dense_inputs(first, second, WINDOW.repeat(2, 1), offset=offset)
    # Anchors: first views, first positives, second positives; their positives in the same order.
    expected = [[0.1, 0.2], [0.0, 0.3], [0.1, 0.3], [0.0, 0.3], [0.2, 0.3], [0.3, 0.3]]
    torch.testing.assert_close(dense.positive_distance, torch.tensor(expected))
    window = WINDOW.repeat(2, 1)
    later = momentum_inputs(first, second, window, query_negatives=True, offset=offset)
    assert torch.equal(later.positive_distance, offset.abs())
    one = momentum_inputs(first, second[:, 0], window, query_negatives=True, offset=offset[:, 0])
    assert torch.equal(one.positive_distance, offset[:, :1].abs())


def test_far_positives_keep_their_weights() -> None:
    """Weights are ratios: those that would all be 0 in float32 are not 0 / 0."""
    made = inputs_of(positives=3)
    far = made._replace(positive_distance=made.positive_distance + 1e4)
    options = {"positive_decay": 0.1, **OPTIONS[0]}
    (near, _), (moved, _) = contrastive_loss(made, **options), contrastive_loss(far, **options)
    torch.testing.assert_close(near, moved, rtol=1e-2, atol=0)  # 1e4 + 0.1 is rounded


def test_wrong_options_are_refused() -> None:
    made = inputs_of(positives=2)
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got"):
            contrastive_loss(made, label_smoothing=smoothing, **OPTIONS[0])
    for decay in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive_decay must be finite and > 0, got"):
            contrastive_loss(made, positive_decay=decay, **OPTIONS[0])
    with pytest.raises(ValueError, match=r"positive_distance must be given for positive_decay"):
        contrastive_loss(made._replace(positive_distance=None), positive_decay=1.0, **OPTIONS[0])

"""The judge of the operators: a slow float64 loop, written from the mathematics alone.

It shares no code with ``usucl_ext`` and uses torch only to unpack tensors. Which key is selected is
decided by the canonical rule, one fused-multiply-add chain over d = 0 .. D-1 in the problem's
arithmetic (float32, or float64 for double), emulated exactly; everything after the selection, the
loss and its hand-derived gradients, is float64.

Every value has a *condition*: how far one rounding error of size eps, made anywhere in
a straightforward computation of that value, can move it, in units of eps. ``tolerances.py`` turns
it into the allowed error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from exact import Array, chain, plain
from row_loss import row_loss

# --- the problem as arrays ------------------------------------------------------------------------


@dataclass
class _Frames:
    embedding: Array
    video: list[int]
    time: Array
    patient: list[int]  # all -1 if the call names no patients


@dataclass
class Selection:
    intra_index: Array
    intra_similarity: Array
    cross_index: Array
    cross_similarity: Array


def _array(tensor: torch.Tensor, dtype: torch.dtype) -> Array:
    return tensor.detach().cpu().to(dtype).contiguous().numpy().copy()


def _frames(frames: Any, dtype: torch.dtype) -> _Frames:
    embedding, video, time, patient = frames
    return _Frames(
        _array(embedding, dtype),
        video.tolist(),
        _array(time, torch.float32),
        [-1] * len(video) if patient is None else patient.tolist(),
    )


def _blocks(negatives: Any) -> list[Any]:
    return [negatives] if hasattr(negatives, "_fields") else list(negatives)


def _arithmetic(*tensors: torch.Tensor) -> torch.dtype:
    double = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


def _windows(window: Any, rows: int) -> list[tuple[np.float32, np.float32] | None]:
    """Returns one (lo, hi) per anchor, rounded to float32; None if there is no window."""
    if window is None:
        return [None] * rows
    values = torch.as_tensor(window, dtype=torch.float64).cpu().reshape(-1, 2).tolist()
    with np.errstate(over="ignore"):
        pairs = [(np.float32(lo), np.float32(hi)) for lo, hi in values]
    return [pairs[0] if len(pairs) == 1 else pairs[i] for i in range(rows)]


def _margins(margin: Any, rows: int, arithmetic: Any) -> Array | None:
    """Returns one margin per anchor, rounded to the problem's arithmetic."""
    if margin is None:
        return None
    values = torch.as_tensor(margin, dtype=torch.float64).cpu().reshape(-1).numpy()
    return np.broadcast_to(values, rows).astype(arithmetic)


# --- which key counts -----------------------------------------------------------------------------


def _is_intra(
    anchor: _Frames, i: int, keys: _Frames, j: int, window: tuple[np.float32, np.float32] | None
) -> bool:
    if window is None or anchor.video[i] != keys.video[j]:
        return False
    with np.errstate(all="ignore"):
        distance = np.abs(anchor.time[i] - keys.time[j])
    # A NaN compares false with everything, which is the rule.
    return bool(distance > 0 and window[0] <= distance and distance <= window[1])


def _is_cross(anchor: _Frames, i: int, keys: _Frames, j: int) -> bool:
    if anchor.video[i] == keys.video[j]:
        return False
    same_known_patient = anchor.patient[i] >= 0 and anchor.patient[i] == keys.patient[j]
    return not same_known_patient


def _pick(candidates: list[tuple[float, int]], skip: int, k: int) -> list[tuple[float, int]]:
    ranked = sorted(candidates, key=lambda pair: (-pair[0], pair[1]))
    return ranked[skip : skip + k]


def _select_row(
    anchor: _Frames,
    i: int,
    keys: _Frames,
    similarity: Array,
    window: tuple[np.float32, np.float32] | None,
    options: dict[str, Any],
    own_limit: Any = None,
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    intra: list[tuple[float, int]] = []
    cross: list[tuple[float, int]] = []
    limit = options["max_similarity"]
    if anchor.video[i] < 0 or not np.isfinite(anchor.embedding[i]).all():
        return intra, cross
    for j in range(len(keys.video)):
        s = similarity[j]
        if keys.video[j] < 0 or not np.isfinite(s):
            continue
        if limit is not None and s > similarity.dtype.type(limit):
            continue
        if own_limit is not None and s > own_limit:
            continue
        if _is_intra(anchor, i, keys, j, window):
            intra.append((float(s), j))
        elif _is_cross(anchor, i, keys, j):
            cross.append((float(s), j))
    return (
        _pick(intra, options["intra_skip"], options["intra_k"]),
        _pick(cross, options["cross_skip"], options["cross_k"]),
    )


def _join(blocks: list[_Frames], dim: int, dtype: Any) -> _Frames:
    """Returns the blocks in order, as one: the oracle may copy, the operator may not."""
    return _Frames(
        np.concatenate([np.zeros((0, dim), dtype), *(b.embedding for b in blocks)]),
        [v for b in blocks for v in b.video],
        np.concatenate([np.zeros(0, np.float32), *(b.time for b in blocks)]),
        [p for b in blocks for p in b.patient],
    )


def _pack(picked: list[list[tuple[float, int]]], k: int, dtype: Any) -> tuple[Array, Array]:
    index = np.full((len(picked), k), -1, np.int64)
    similarity = np.full((len(picked), k), -np.inf, dtype)
    for i, row in enumerate(picked):
        for rank, (s, j) in enumerate(row):
            index[i, rank], similarity[i, rank] = j, s
    return index, similarity


def _options(given: dict[str, Any]) -> dict[str, Any]:
    defaults = {"intra_skip": 0, "cross_skip": 0, "max_similarity": None}
    return {**defaults, **given}


def select_negatives(
    anchors: Any, negatives: Any, *, exact_chain: bool = True, **given: Any
) -> Selection:
    """Returns ranks skip .. skip+k-1 by (similarity descending, index ascending)."""
    options = _options(given)
    blocks = _blocks(negatives)
    dtype = _arithmetic(anchors.embedding, *(b.embedding for b in blocks))
    anchor = _frames(anchors, dtype)
    keys = _join(
        [_frames(b, dtype) for b in blocks], anchor.embedding.shape[1], anchor.embedding.dtype
    )
    dot = chain if exact_chain else plain
    windows = _windows(options["window"], len(anchor.video))
    picked = [
        _select_row(anchor, i, keys, dot(anchor.embedding[i], keys.embedding), windows[i], options)
        for i in range(len(anchor.video))
    ]
    arithmetic = anchor.embedding.dtype
    return Selection(
        *_pack([intra for intra, _ in picked], options["intra_k"], arithmetic),
        *_pack([cross for _, cross in picked], options["cross_k"], arithmetic),
    )


# --- the whole ------------------------------------------------------------------------------------


@dataclass
class Value:
    """A true value and its condition, of one shape."""

    truth: Array
    condition: Array

    @classmethod
    def zeros(cls, *shape: int) -> Value:
        return cls(np.zeros(shape), np.zeros(shape))

    def add(self, where: Any, coefficient: float, size: float, direction: Array) -> None:
        self.truth[where] += coefficient * direction
        self.condition[where] += size * np.abs(direction)


@dataclass
class Judgement:
    loss: Value
    selection: Selection
    anchors: Value
    positives: Value
    blocks: list[Value]
    temperature: Value
    soft_nn_temperature: Value


def _upstream(reduction: str, rows: int, grad: Any) -> list[float]:
    if reduction == "none":
        return [1.0] * rows if grad is None else torch.as_tensor(grad).double().tolist()
    factor = 1.0 if grad is None else float(grad)
    return [factor / max(rows, 1) if reduction == "mean" else factor] * rows


def _reduce(row_losses: Value, reduction: str) -> Value:
    if reduction == "none":
        return row_losses
    rows = len(row_losses.truth)
    divisor = max(rows, 1) if reduction == "mean" else 1
    size = row_losses.condition.sum() + rows * np.abs(row_losses.truth).sum()
    return Value(np.asarray(row_losses.truth.sum() / divisor), np.asarray(size / divisor))


def hard_negative_nce(
    anchors: Any,
    positives: torch.Tensor,
    negatives: Any,
    *,
    temperature: Any = 0.07,
    soft_nn_temperature: Any = None,
    margin: Any = None,
    positive_weights: Any = None,
    reduction: str = "mean",
    grad: Any = None,
    exact_chain: bool = True,
    **given: Any,
) -> Judgement:
    """Returns loss and gradients for the upstream gradient ``grad`` (ones if None).

    ``exact_chain`` False judges a matmul: similarities are plain float64 and the conditions allow
    for its rounding, D eps sum_d |q_d k_d| for each similarity.
    """
    options = _options(given)
    tensors = _blocks(negatives)
    dtype = _arithmetic(anchors.embedding, positives, *(b.embedding for b in tensors))
    anchor = _frames(anchors, dtype)
    rows, dim = anchor.embedding.shape
    blocks = [_frames(b, dtype) for b in tensors]
    keys = _join(blocks, dim, anchor.embedding.dtype)
    places = list(_places(blocks))
    positive = _array(positives, dtype).reshape(rows, -1, dim) if rows else np.zeros((0, 1, dim))
    t = float(temperature)
    u = None if soft_nn_temperature is None else float(soft_nn_temperature)
    windows = _windows(options["window"], rows)
    dot = chain if exact_chain else plain
    upstream = _upstream(reduction, rows, grad)
    margins = _margins(margin, rows, anchor.embedding.dtype)
    weights = np.ones(positive.shape[:2])
    if positive_weights is not None:
        weights = _array(positive_weights, dtype).astype(np.float64)

    losses, d_anchor = Value.zeros(rows), Value.zeros(rows, dim)
    d_positive = Value.zeros(*positive.shape)
    d_blocks = [Value.zeros(len(b.video), dim) for b in blocks]
    d_t, d_u = Value.zeros(), Value.zeros()
    picked: list[tuple[list[tuple[float, int]], list[tuple[float, int]]]] = []

    for i in range(rows):
        q = anchor.embedding[i]
        s_p = dot(q, positive[i])
        if not (np.isfinite(q).all() and np.isfinite(s_p).all()):
            picked.append(([], []))
            for value in (losses, d_anchor, d_positive):
                value.truth[i] = np.nan
            continue  # dT has no share of such a row: only loss_i, dq_i and dp_i must be NaN
        similarity = dot(q, keys.embedding)
        own_limit = None if margins is None else s_p.max() + margins[i]
        intra, cross = _select_row(anchor, i, keys, similarity, windows[i], options, own_limit)
        picked.append((intra, cross))
        chosen = [j for _, j in intra + cross]
        longest = max(
            (float(plain(np.abs(q), np.abs(keys.embedding[[j]]))[0]) for j in chosen), default=0.0
        )
        shares = weights[i] / weights[i].sum()
        for r, p in enumerate(positive[i]):
            row = row_loss(float(s_p[r]), [s for s, _ in intra], [s for s, _ in cross], t, u)
            condition = row.condition
            if condition and positive_weights is not None:
                condition += len(shares)  # roundings of the weights' sum
            if not exact_chain:
                reach = max(longest, float(plain(np.abs(q), np.abs(p[None]))[0]))
                condition += row.similarity_condition * dim * reach
            share = upstream[i] * shares[r]
            weight = abs(share) * condition
            losses.truth[i] += row.loss * shares[r]
            losses.condition[i] += condition * shares[r]

            q64, p64 = q.astype(np.float64), p.astype(np.float64)
            d_anchor.add(i, share * row.positive, weight * row.positive_size, p64)
            if row.condition:  # without any negative it must be exactly zero
                d_positive.add((i, r), share * row.positive, weight * row.positive_size, q64)
            slopes = zip(chosen, row.intra + row.cross, row.intra + row.cross_size, strict=True)
            for j, slope, size in slopes:
                block, slot = places[j]
                d_anchor.add(i, share * slope, weight * size, keys.embedding[j].astype(np.float64))
                d_blocks[block].add(slot, share * slope, weight * size, q64)
            d_t.add((), share * row.temperature, weight * row.temperature_size, np.ones(()))
            d_u.add(
                (),
                share * row.soft_nn_temperature,
                weight * row.soft_nn_temperature_size,
                np.ones(()),
            )

    arithmetic = anchor.embedding.dtype
    selection = Selection(
        *_pack([intra for intra, _ in picked], options["intra_k"], arithmetic),
        *_pack([cross for _, cross in picked], options["cross_k"], arithmetic),
    )
    d_positive = Value(
        d_positive.truth.reshape(tuple(positives.shape)),
        d_positive.condition.reshape(tuple(positives.shape)),
    )
    return Judgement(
        _reduce(losses, reduction), selection, d_anchor, d_positive, d_blocks, d_t, d_u
    )


def _places(blocks: list[_Frames]) -> Iterator[tuple[int, int]]:
    """Yields (block, slot) of every running key index."""
    for number, block in enumerate(blocks):
        for slot in range(len(block.video)):
            yield number, slot

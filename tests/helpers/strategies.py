"""Hypothesis strategies for whole problems of the operators, with hard cases on purpose.

Embeddings are small integers times one power of two, so every dot product is exact in any order:
oracle, reference and native must then agree on every index, ties included. Only shapes, options and
a seed are drawn; the numbers come from the seed, which keeps examples small and shrinkable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle
import torch
from hypothesis import strategies as st
from torch import Tensor

from usucl_ext import Frames, Selection, hard_negative_nce, select_negatives

LOW_PRECISION = (torch.float32, torch.bfloat16, torch.float16)
SELECTION_OPTIONS = ("window", "intra_k", "cross_k", "intra_skip", "cross_skip", "max_similarity")


@dataclass
class Problem:
    """One call. ``options`` are its keyword arguments except ``impl``."""

    anchors: Frames
    positives: Tensor
    blocks: list[Frames]
    options: dict[str, Any]
    grad: Tensor | float = 1.0

    @property
    def arithmetic(self) -> torch.dtype:
        embeddings = [self.anchors.embedding, self.positives, *(b.embedding for b in self.blocks)]
        double = any(e.dtype == torch.float64 for e in embeddings)
        return torch.float64 if double else torch.float32

    @property
    def selection_options(self) -> dict[str, Any]:
        return {name: self.options[name] for name in SELECTION_OPTIONS}

    def to(self, device: torch.device) -> Problem:
        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        return replace(
            self,
            anchors=Frames(*map(move, self.anchors)),
            positives=move(self.positives),
            blocks=[Frames(*map(move, block)) for block in self.blocks],
            options={name: move(value) for name, value in self.options.items()},
            grad=move(self.grad),
        )

    def select(self, impl: str) -> Selection:
        return select_negatives(self.anchors, self.blocks, impl=impl, **self.selection_options)

    def run(self, impl: str, blocks_with_grad: list[bool] | None = None) -> Outcome:
        """Runs forward and backward on new leaves, whatever layout the inputs have."""
        wanted = blocks_with_grad or [True] * len(self.blocks)

        def leaf(tensor: Tensor, needs: bool = True) -> Tensor:
            return tensor.detach().requires_grad_(needs)

        anchors = self.anchors._replace(embedding=leaf(self.anchors.embedding))
        positives = leaf(self.positives)
        blocks = [
            block._replace(embedding=leaf(block.embedding, needs))
            for block, needs in zip(self.blocks, wanted, strict=True)
        ]
        options = dict(self.options)
        for name in ("temperature", "soft_nn_temperature"):
            if isinstance(options.get(name), Tensor):
                options[name] = leaf(options[name])
        loss, selection = hard_negative_nce(
            anchors, positives, blocks, return_selection=True, impl=impl, **options
        )
        loss.backward(self.grad if isinstance(self.grad, Tensor) else loss.new_tensor(self.grad))

        def grad_of(value: Any) -> Tensor | None:
            return value.grad if isinstance(value, Tensor) else None

        return Outcome(
            loss.detach(),
            selection,
            anchors.embedding.grad,
            positives.grad,
            [block.embedding.grad for block in blocks],
            grad_of(options.get("temperature")),
            grad_of(options.get("soft_nn_temperature")),
        )

    def judge(self, *, exact_chain: bool = True) -> oracle.Judgement:
        return oracle.hard_negative_nce(
            self.anchors,
            self.positives,
            self.blocks,
            grad=self.grad,
            exact_chain=exact_chain,
            **self.options,
        )


@dataclass
class Outcome:
    loss: Tensor
    selection: Selection
    anchors: Tensor | None
    positives: Tensor | None
    blocks: list[Tensor | None]
    temperature: Tensor | None
    soft_nn_temperature: Tensor | None


def plain_problem(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    rows: int = 5,
    dim: int = 6,
    keys: tuple[int, ...] = (9, 12),
    **options: Any,
) -> Problem:
    """Returns unit vectors, 3 videos, 2 blocks: every anchor has negatives of both groups."""
    generator = torch.Generator().manual_seed(7)

    def embedding(*shape: int) -> Tensor:
        x = torch.randn(*shape, dim, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(x, dim=-1).to(dtype)

    def frames(count: int) -> Frames:
        return Frames(embedding(count), torch.arange(count) % 3, torch.arange(count) / 4.0)

    defaults: dict[str, Any] = {
        "window": (0.5, 4.0),
        "intra_k": 2,
        "cross_k": 3,
        "intra_skip": 0,
        "cross_skip": 0,
        "temperature": 0.2,
        "soft_nn_temperature": None,
        "max_similarity": None,
        "margin": None,
        "positive_weights": None,
        "reduction": "mean",
    }
    problem = Problem(
        frames(rows), embedding(rows, 2), [frames(count) for count in keys], {**defaults, **options}
    )
    if problem.options["reduction"] == "none":
        problem.grad = torch.randn(rows, generator=generator, dtype=torch.float64).to(
            problem.arithmetic
        )
    return problem.to(torch.device(device))


# --- layouts --------------------------------------------------------------------------------------


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def _strided(x: Tensor) -> Tensor:
    """Returns every second element of a wider tensor, starting at an odd offset."""
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), math.nan, dtype=x.dtype)
    wide[..., 1::2] = x
    return wide[..., 1::2]


def _expanded(x: Tensor) -> Tensor:
    """Returns the first row for all, with stride 0."""
    return x[:1].expand_as(x) if len(x) else x


_LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": _transposed,
    "strided": _strided,
    "expanded": _expanded,
}


# --- numbers --------------------------------------------------------------------------------------


def _spoil(rng: np.random.Generator, values: Tensor, share: float) -> Tensor:
    """Writes a NaN or an infinity into some of the rows."""
    if not values.numel():
        return values
    values = values.clone()
    flat = values.reshape(len(values), -1)
    for row in np.nonzero(rng.random(len(values)) < share)[0]:
        column = int(rng.integers(flat.shape[1]))
        flat[row, column] = float(rng.choice([math.nan, math.inf, -math.inf]))
    return flat.reshape(values.shape)


def _grid(rng: np.random.Generator, shape: tuple[int, ...], spread: int) -> Tensor:
    """Returns integers in [-spread, spread] times a power of two that brings norms near 1."""
    norm = spread * math.sqrt(shape[-1] / 2) if shape[-1] else 1.0
    unit = 2.0 ** -round(math.log2(max(norm, 1.0)))
    return torch.from_numpy(rng.integers(-spread, spread + 1, shape) * unit)


def _gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    values = rng.standard_normal(shape)
    return torch.from_numpy(values / np.linalg.norm(values, axis=-1, keepdims=True))


def _times(rng: np.random.Generator, count: int) -> Tensor:
    """Returns multiples of 1/8, so that distances meet window bounds; some are slightly off."""
    times = rng.integers(0, 17, count) / 8
    times = times + np.where(rng.random(count) < 0.2, rng.random(count) / 8, 0)
    return torch.from_numpy(times).float()


def _bounds(rng: np.random.Generator, rows: int) -> Tensor:
    return torch.from_numpy(np.sort(rng.integers(0, 17, (rows, 2)) / 8, axis=1)).float()


@st.composite
def windows(draw: st.DrawFn, rng: np.random.Generator, rows: int) -> Any:
    kind = draw(
        st.sampled_from(["pair", "wide", "tensor", "row", "per anchor", "empty", "infinite", "nan"])
    )
    pair = _bounds(rng, 1)[0]
    if kind == "pair":
        return (float(pair[0]), float(pair[1]))
    if kind == "wide":
        return (0.0, 100.0)
    if kind == "tensor":
        return pair
    if kind == "row":
        return pair[None]
    if kind == "empty":
        return (0.5, 0.25)
    if kind == "infinite":
        return (0.125, math.inf)
    per_anchor = _bounds(rng, rows)
    if rows and kind == "nan":
        per_anchor[rng.integers(rows), rng.integers(2)] = math.nan
    return per_anchor


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    dtypes: tuple[torch.dtype, ...] = LOW_PRECISION,
    on_grid: bool = True,
    spoiled: bool = True,
    max_rows: int = 7,
    max_keys: int = 24,
) -> Problem:
    """Draws a problem; ``on_grid=False`` gives real-valued unit vectors, of inexact products."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(st.sampled_from([1, 2, 7, 16, 63, 128, 513]))
    rows = draw(st.sampled_from([0, 1, 2, 3, max_rows]))
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 5, max_keys]), min_size=1, max_size=4))
    spread = draw(st.sampled_from([1, 1, 2, 3]))
    bad = draw(st.sampled_from([0.0, 0.0, 0.15])) if spoiled else 0.0
    patients = draw(st.booleans())
    duplicates = draw(st.booleans())
    videos = draw(st.sampled_from([1, 2, 4, 50]))

    def embeddings(*shape: int) -> Tensor:
        values = _grid(rng, shape, spread) if on_grid else _gaussian(rng, shape)
        values = _spoil(rng, values, bad).to(draw(st.sampled_from(dtypes)))
        layout = draw(st.sampled_from(["contiguous", *_LAYOUTS]))
        return _LAYOUTS[layout](values)

    def frames(count: int, pool: Tensor | None = None) -> Frames:
        embedding = embeddings(count, dim)
        if duplicates and pool is not None and len(pool) and count:
            embedding = embedding.clone()
            for row in range(0, count, 3):  # copies of anchors: similarity near the largest
                embedding[row] = pool[row % len(pool)].to(embedding.dtype)
        video = rng.integers(0, videos, count)
        video[rng.random(count) < 0.1] = -1 - rng.integers(0, 3)
        # A patient has several videos; some videos contradict themselves, some are unknown.
        patient = np.where(rng.random(count) < 0.8, video // 2, rng.integers(-2, 3, count))
        return Frames(
            embedding,
            torch.from_numpy(video),
            _spoil(rng, _times(rng, count), bad),
            torch.from_numpy(patient) if patients else None,
        )

    anchors = frames(rows)
    blocks = [frames(size, anchors.embedding) for size in sizes]
    several = draw(st.sampled_from([None, 1, 2, 3]))
    positives = embeddings(rows, dim) if several is None else embeddings(rows, several, dim)

    counts = st.sampled_from([0, 1, 2, 3, 5, 40])
    intra_k, cross_k = draw(counts), draw(counts)
    window = draw(windows(rng, rows))
    if intra_k == 0 and draw(st.booleans()):
        window = None
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    as_tensor = draw(st.booleans())

    def temperature(choices: list[float | None]) -> Any:
        value = draw(st.sampled_from(choices))
        return torch.tensor(value) if as_tensor and value is not None else value

    skips = st.sampled_from([0, 0, 1, 3, 100])
    margin = draw(st.sampled_from([None, None, 0.0, -0.25, 0.5, -math.inf, "0-dim", "per anchor"]))
    if margin == "0-dim":
        margin = torch.tensor(-0.125)
    elif margin == "per anchor":
        margin = torch.from_numpy(rng.integers(-4, 5, rows) / 8)
    weights = None
    if draw(st.sampled_from([False, False, True])):
        weights = torch.from_numpy(rng.integers(0, 4, (rows, several or 1)) / 2)
        weights[:, 0] += 0.5
    return Problem(
        anchors,
        positives,
        blocks,
        {
            "window": window,
            "intra_k": intra_k,
            "cross_k": cross_k,
            "intra_skip": draw(skips),
            "cross_skip": draw(skips),
            "temperature": temperature([0.0625, 0.07, 0.5, 2.0]),
            "soft_nn_temperature": temperature([None, None, 0.0625, 0.07, 1.0]),
            "max_similarity": draw(st.sampled_from([None, None, 0.5, 1.0, -10.0])),
            "margin": margin,
            "positive_weights": weights,
            "reduction": reduction,
        },
        grad=torch.from_numpy(rng.standard_normal(rows)).to(
            torch.float64 if torch.float64 in dtypes else torch.float32
        )
        if reduction == "none"
        else float(rng.choice([1.0, -2.5])),
    )


def keys_of(
    similarity: list[float],
    video: list[int],
    time: list[float] | None = None,
    patient: list[int] | None = None,
) -> Frames:
    """Returns keys of D = 1; with the anchor embedding 1, key and similarity are one number."""
    return Frames(
        torch.tensor(similarity, dtype=torch.float32)[:, None],
        torch.tensor(video, dtype=torch.int64),
        torch.tensor([0.0] * len(video) if time is None else time, dtype=torch.float32),
        None if patient is None else torch.tensor(patient),
    )


def one_anchor(video: int = 0, time: float = 0.0, patient: int | None = None) -> Frames:
    return keys_of([1.0], [video], [time], None if patient is None else [patient])

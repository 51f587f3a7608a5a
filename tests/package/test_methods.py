"""Methods: their own options, what they put into the bank, and files from before they had any."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from usucl.data import DenseSampler, FrameBatch, FrameSampler
from usucl.losses import Frames, hard_negative_nce
from usucl.methods import METHODS, Method
from usucl.training import TrainingConfig, read_config


def batch(n: int, negatives: int) -> FrameBatch:
    """A batch of n anchors with distinct random views, two anchors per video."""
    generator = torch.Generator().manual_seed(0)
    return FrameBatch(
        anchor_view=torch.randn(n, 3, 4, 4, generator=generator),
        positive_view=torch.randn(n, 3, 4, 4, generator=generator),
        negative_view=torch.randn(n, negatives, 3, 4, 4, generator=generator),
        video=torch.arange(n) // 2,
        time=torch.arange(n) / n,
        patient=torch.arange(n) // 4,
        frame=torch.arange(n),
        negative_time=torch.rand(n, negatives, generator=generator),
    )


class Encoder(nn.Module):
    """A linear map, scaled; ``calls`` counts the images it has seen."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += len(images)
        return normalize(self.scale * images.flatten(1)[:, :8] + self.scale, dim=1)


def method(name: str, **key: Any) -> Method[Any, Any]:
    kind = METHODS[name]
    return kind(kind.sampling_options(), kind.key_options(**key))


@pytest.mark.parametrize("name", METHODS)
def test_a_preset_is_a_config_of_its_method(name: str) -> None:
    config = read_config(name, {})
    kind = METHODS[name]
    assert config.method == kind.name == name
    assert type(config.sampling) is kind.sampling_options and type(config.key) is kind.key_options
    assert type(config.make_method()) is kind


def test_samplers_get_the_options_of_their_method() -> None:
    dense = read_config("dense", {"videos": 2, "frames": 3, "steps_per_epoch": 5})
    assert dense.make_method().sampler() == DenseSampler(2, 3, 3, 5)
    paper = read_config("paper", {"videos": 2, "sampling.negatives": 1, "positive_radius": 4})
    assert paper.make_method().sampler() == FrameSampler(2, 1, 4)


def test_dense_keeps_the_second_views_for_later_steps() -> None:
    data, encode = batch(6, 0), Encoder(1.0)
    dense = method("dense")
    inputs = dense.inputs(data, encode, Encoder(2.0), torch.tensor([0.1, 0.5]).expand(6, 2))
    assert dense.momentum is None and dense.bank_before(inputs) is None
    kept = dense.bank_after(inputs)
    assert kept is not None and torch.equal(kept.embedding, encode(data.positive_view))
    for column, expected in zip(kept[1:], (data.video, data.time, data.patient), strict=True):
        assert torch.equal(column, expected)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("negatives", ["query", "momentum"])
def test_dense_with_a_momentum_encoder(negatives: str, several: bool) -> None:
    """Anchors and their gradient are the query encoder's, positives the momentum encoder's."""
    data, query, momentum = batch(6, 0), Encoder(1.0), Encoder(2.0)
    number, dense = 2 if several else 1, method("dense", momentum=0.9, negatives=negatives)
    if several:
        views = torch.stack([data.positive_view, data.positive_view.flip(0)], dim=1)
        offset = torch.rand(6, 2) - 0.5
        data = data._replace(positive_view=views, positive_offset=offset)
        dense = METHODS["dense"](replace(dense.sampling, positives=2), dense.key)
    window = torch.tensor([0.1, 0.5]).repeat(6, 1)
    inputs = dense.inputs(data, query, momentum, window)
    assert dense.momentum == 0.9 and (query.calls, momentum.calls) == (6, 6 * number)
    assert torch.equal(inputs.anchors.embedding, query(data.anchor_view))
    keys = momentum(data.positive_view.flatten(0, -4))
    shape = (6, 2, 8) if several else (6, 8)
    assert torch.equal(inputs.positives, keys.reshape(shape))
    if several:
        assert torch.equal(inputs.positive_distance, offset.abs())

    first, last = inputs.negatives[0], inputs.negatives[-1]
    rows = torch.arange(6).repeat_interleave(number)
    assert torch.equal(last.embedding, keys) and torch.equal(last.video, data.video[rows])
    if negatives == "query":
        assert torch.equal(first.embedding, inputs.anchors.embedding)
        assert torch.equal(first.time, data.time) and bool(last.time.isnan().all())
    else:
        assert len(inputs.negatives) == 1 and torch.equal(last.time, data.time[rows])
    options = {"window": window, "intra_k": 12, "cross_k": 12, "return_selection": True}
    _, selection = hard_negative_nce(*inputs[:3], **options)
    for i, (intra, cross) in enumerate(
        zip(selection.intra_index.tolist(), selection.cross_index.tolist(), strict=True)
    ):
        own = {j for j in range(6) if j // 2 == i // 2 and j != i}  # two anchors per video
        others = {j for j in range(6) if data.patient[j] != data.patient[i]}
        from_keys = {6 + j for j in range(6 * number) if int(rows[j]) in others}
        if negatives == "query":
            assert set(intra) - {-1} == own and set(cross) - {-1} == others | from_keys
        else:
            assert {int(rows[j]) for j in intra if j >= 0} == own
            assert {j + 6 for j in cross if j >= 0} == from_keys

    kept = dense.bank_after(inputs)
    assert dense.bank_before(inputs) is None and kept is not None
    assert torch.equal(kept.embedding, keys) and torch.equal(kept.patient, data.patient[rows])
    assert dense.bank_has_times == (negatives == "momentum")
    assert bool(kept.time.isnan().all()) == (negatives == "query")


def test_a_pixel_guard_keeps_earlier_frames_from_being_intra_video_negatives() -> None:
    for key in ({}, {"momentum": 0.9, "negatives": "momentum"}):
        plain = method("dense", **key)
        guarded = METHODS["dense"](replace(plain.sampling, guard=0.98), plain.key)
        window = torch.tensor([0.1, 0.5]).repeat(6, 1)
        inputs = guarded.inputs(batch(6, 0), Encoder(1.0), Encoder(2.0), window)
        assert plain.bank_has_times and not guarded.bank_has_times
        kept = guarded.bank_after(inputs)
        assert kept is not None and bool(kept.time.isnan().all())
        assert torch.equal(inputs.negatives[0].time[:6], batch(6, 0).time)


def test_weights_of_positives_follow_the_batch() -> None:
    data = batch(4, 3)
    data = data._replace(
        positive_view=torch.stack([data.positive_view] * 2, dim=1),
        positive_offset=torch.tensor([[0.1, -0.2]]).repeat(4, 1),
    )
    for name in ("paper", "paper-code"):
        kind = METHODS[name]
        made = kind(kind.sampling_options(positives=2), kind.key_options())
        inputs = made.inputs(data, Encoder(1.0), Encoder(2.0), torch.empty(4, 2))
        assert torch.equal(inputs.positive_distance, torch.tensor([[0.1, 0.2]]).repeat(4, 1))


@pytest.mark.parametrize(("negatives", "by_query"), [("query", True), ("momentum", False)])
def test_paper_takes_positives_from_the_momentum_encoder(negatives: str, by_query: bool) -> None:
    data, query, momentum = batch(4, 3), Encoder(1.0), Encoder(2.0)
    paper = method("paper", momentum=0.9, negatives=negatives)
    inputs = paper.inputs(data, query, momentum, torch.empty(4, 2))
    assert paper.momentum == 0.9
    assert torch.equal(inputs.positives, momentum(data.positive_view))
    keys = (query if by_query else momentum)(data.negative_view.flatten(0, 1))
    assert torch.equal(inputs.negatives[0].embedding, keys)
    kept = paper.bank_before(inputs)
    assert paper.bank_after(inputs) is None and kept is not None
    assert torch.equal(kept.embedding, inputs.positives) and bool(kept.time.isnan().all())
    assert torch.equal(kept.video, data.video) and torch.equal(kept.patient, data.patient)


def test_paper_code_compares_within_the_batch() -> None:
    code = method("paper-code")
    inputs = code.inputs(batch(4, 3), Encoder(1.0), Encoder(2.0), torch.empty(4, 2))
    assert len(inputs.negatives) == 2 and isinstance(inputs.negatives[1], Frames)
    assert code.bank_before(inputs) is None and code.bank_after(inputs) is None


def test_options_of_another_method_are_refused() -> None:
    message = r"steps_per_epoch is for method 'dense' only: 'paper' has no such option, got 3"
    with pytest.raises(ValueError, match=message):
        read_config("paper", {"steps_per_epoch": 3})
    message = r"sampling\.negatives is for method 'paper' or 'paper-code' only"
    with pytest.raises(ValueError, match=message):
        read_config("dense", {"sampling.negatives": 3})
    with pytest.raises(
        ValueError, match=r"key\.negatives must be 'query' where key\.momentum is nu"
    ):
        read_config("dense", {"key.negatives": "momentum"})
    with pytest.raises(
        ValueError, match=r"key\.batch_norm must be 'own' where key\.momentum is null"
    ):
        read_config("dense", {"batch_norm": "frozen"})
    with pytest.raises(ValueError, match=r"key\.momentum must be in \[0, 1\], got 1\.5"):
        read_config("dense", {"key.momentum": 1.5})
    with pytest.raises(
        ValueError, match=r"loss\.positive_decay must be None unless sampling\.posi"
    ):
        read_config("dense", {"positive_decay": 0.1})
    for name, value in (("positive_decay", 0.0), ("label_smoothing", 1.0)):
        with pytest.raises(ValueError, match=rf"loss\.{name} must be .*, got {value}"):
            read_config("dense", {name: value, "sampling.positives": 2})
    with pytest.raises(ValueError, match=r"method must be one of dense, paper, .*got 'x'"):
        read_config("dense", {"method": "x"})
    with pytest.raises(TypeError, match="sampling must be PaperSampling for method 'paper'"):
        TrainingConfig(method="paper")


BEFORE = """# usucl run: overwrite replaces the results beside this file
method: paper
sampling: {videos: 2, frames: 8, negatives: 5, positive_radius: 3, augmentation: paper}
curriculum: {kind: paper-code}
key: {bank: 8, momentum: 0.99, negatives: momentum}
"""


def test_files_from_before_methods_had_options_still_read(tmp_path: Path) -> None:
    stored = tmp_path / "config.yaml"
    stored.write_text(BEFORE)
    config = read_config(stored, {"sampling.videos": 4})
    assert (config.sampling.videos, config.sampling.negatives) == (4, 5)  # type: ignore[attr-defined]
    assert config.sampling.augmentation == "crop"
    assert config.key == METHODS["paper"].key_options(bank=8, momentum=0.99, negatives="momentum")
    dense = read_config(stored, {"method": "dense", "augmentation": "dense"})
    assert dense.sampling.augmentation == "crop-flip-jitter"
    assert "negatives" not in {option.name for option in fields(dense.sampling)}
    assert "augmentation: crop-flip-jitter" in dense.to_yaml()
    for text in ("- 1", "just words", "a: ["):
        stored.write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml"):
            read_config(stored, {})

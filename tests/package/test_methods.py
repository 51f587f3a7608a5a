"""Methods: their own options, what they put into the bank, and files from before they had any."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from usucl.data import DenseSampler, FrameBatch, FrameSampler
from usucl.losses import Frames
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

"""An encoder starts from a user's weights: which names and formats are taken, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, ResNet

from usucl.models import EncoderConfig, FrameEncoder, save_encoder

CONFIG = EncoderConfig(backbone="resnet10", image_size=32, dim=8)


@pytest.fixture(scope="module")
def network() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return {
        name: value.contiguous()
        for name, value in ResNet(BasicBlock, [1, 1, 1, 1]).state_dict().items()
    }


def encoder(path: Path, **options: Any) -> FrameEncoder:
    return FrameEncoder(EncoderConfig(**{**vars(CONFIG), "weights": str(path), **options}))


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "encoder_q.backbone."])
def test_torchvisions_names_are_taken_behind_any_prefix(
    prefix: str, network: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state = prefixed(prefix, network)
    if prefix:
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pth")
    else:
        save_file(state, tmp_path / "a.safetensors")
    for file in tmp_path.iterdir():
        made = encoder(file)
        own = made.backbone.state_dict()
        assert all(torch.equal(own[name], network[name]) for name in own)
        assert made.start is not None
        assert (made.start["file"], made.start["head"]) == (str(file), 0)
        assert made.start["backbone"] == len(own)
        assert made.start["left_out"] == [f"{prefix}fc.bias", f"{prefix}fc.weight"]


def test_an_encoder_is_taken_with_its_head_if_that_fits(tmp_path: Path) -> None:
    before = FrameEncoder(CONFIG)
    save_encoder(before, tmp_path)
    for source in (tmp_path, tmp_path / "encoder.safetensors"):
        after = encoder(source)
        assert after.start is not None and after.start["left_out"] == []
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    wider = encoder(tmp_path, dim=16)
    assert wider.start is not None and wider.start["head"] == 0
    assert torch.equal(wider.backbone.conv1.weight, before.backbone.conv1.weight)
    (tmp_path / "encoder.safetensors").unlink()
    backbone = encoder(tmp_path).backbone.state_dict()  # of backbone.safetensors alone
    assert all(torch.equal(backbone[n], v) for n, v in before.backbone.state_dict().items())


def test_files_that_do_not_fit_are_refused_by_name(
    network: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    def save(**changes: torch.Tensor | None) -> Path:
        state = {**network, **{name.replace("_", "."): v for name, v in changes.items()}}
        torch.save({n: v for n, v in state.items() if v is not None}, tmp_path / "a.pth")
        return tmp_path / "a.pth"

    nan = torch.full_like(network["conv1.weight"], torch.nan)
    for changes, options, said in (
        ({"bn1_weight": None}, {}, r"without 1 of its 60 tensors, such as bn1\.weight"),
        ({"conv1_weight": torch.zeros(64, 1, 7, 7)}, {}, r"conv1\.weight of shape \[64, 1, 7, 7\]"),
        ({"conv1_weight": nan}, {}, r"weights must be finite, got .*conv1\.weight"),
        ({}, {"backbone": "resnet18"}, r"without \d+ of its \d+ tensors, such as layer1\.1"),
        ({"layer1_1_conv1_weight": nan}, {}, r"of the same backbone, got .* with 1 more tensors"),
        ({}, {"small_stem": True}, r"in place of \[64, 3, 3, 3\]"),
        ({}, {"pretrained": True, "backbone": "resnet18"}, "pretrained must be False with weights"),
    ):
        with pytest.raises(ValueError, match=said):
            encoder(save(**changes), **options)
    (tmp_path / "b.pth").write_bytes(b"garbage")
    (tmp_path / "c.pth").write_bytes(b"")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "e.pth")
    for name in "bce":
        with pytest.raises(ValueError, match=rf"no code in it is run\), got .*{name}\.pth"):
            encoder(tmp_path / f"{name}.pth")
    torch.save({"loss": 0.5}, tmp_path / "d.pth")
    with pytest.raises(ValueError, match="must be a state dict, tensors by their names"):
        encoder(tmp_path / "d.pth")
    (tmp_path / "empty").mkdir()
    for missing in ("gone.pth", "empty"):
        with pytest.raises(FileNotFoundError, match=f"weights must be a file.* got .*{missing}"):
            encoder(tmp_path / missing)

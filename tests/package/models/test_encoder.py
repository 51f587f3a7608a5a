"""The encoder: shapes, norms, files; the momentum copy."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from usucl._files import read_json, write_json
from usucl.models import (
    EncoderConfig,
    FrameEncoder,
    MomentumEncoder,
    load_encoder,
    save_encoder,
)

SMALL = EncoderConfig(backbone="resnet10", image_size=32, dim=16)


@pytest.mark.parametrize(
    ("config", "features"),
    [
        (SMALL, 512),
        (EncoderConfig(backbone="resnet10", image_size=32, head="linear", small_stem=True), 512),
        (EncoderConfig(backbone="resnet18"), 512),
        (EncoderConfig(backbone="resnet34", dim=7), 512),
        (EncoderConfig(backbone="resnet50"), 2048),
    ],
)
def test_shapes_and_norms(config: EncoderConfig, features: int) -> None:
    encoder = FrameEncoder(config)
    images = torch.randn(2, 3, config.image_size, config.image_size)
    assert encoder.features(images).shape == (2, features)
    embedding = encoder(images)
    assert embedding.shape == (2, config.dim) and embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


def test_embeddings_are_normalised_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        embedding = FrameEncoder(SMALL)(torch.randn(4, 3, 32, 32))
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg"}, "backbone must be .*'vgg'"),
        ({"head": "deep"}, "head must be .*'deep'"),
        ({"image_size": 16}, "image_size must be >= 32 pixels, got 16"),
        ({"dim": 0}, "dim must be >= 1, got 0"),
        ({"small_stem": True, "image_size": 128}, "must be <= 96 with small_stem, got 128"),
        (
            {"backbone": "resnet10", "pretrained": True},
            "pretrained must be False, because .* got True",
        ),
    ],
)
def test_wrong_configs(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameEncoder(EncoderConfig(**change))


def test_pretrained_weights_that_cannot_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(RuntimeError, match=r"resnet18 could not be fetched \(no network\)"):
        FrameEncoder(EncoderConfig(pretrained=True))


def test_momentum_encoder_averages_parameters_and_gathers_its_own_statistics() -> None:
    encoder = FrameEncoder(SMALL)
    average = MomentumEncoder(encoder, 0.9)
    assert not any(p.requires_grad for p in average.parameters())
    start = copy.deepcopy(encoder.state_dict())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    average.update(encoder)
    for name, own in average.encoder.named_parameters():
        torch.testing.assert_close(own, start[name] + 0.1, rtol=1e-5, atol=1e-6)
    encoder(torch.randn(4, 3, 32, 32))  # changes the statistics of the encoder only
    average.update(encoder)
    for name, own in average.encoder.named_buffers():
        assert torch.equal(own, start[name]), name
    embedding = average(torch.randn(4, 3, 32, 32))
    assert not embedding.requires_grad
    assert average.encoder.backbone.bn1.num_batches_tracked == 1


def test_one_call_moves_all_parameters_to_the_bit() -> None:
    encoder = nn.Module()
    encoder.image = nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    encoder.bias = nn.Parameter(torch.randn(7))
    encoder.in_float64 = nn.Parameter(torch.randn(2, 2, dtype=torch.float64))
    encoder.in_bfloat16 = nn.Parameter(torch.randn(5, dtype=torch.bfloat16))
    encoder.number = nn.Parameter(torch.tensor(3), requires_grad=False)
    for momentum in (0.999, 0.3, 0.0, 1.0):
        average = MomentumEncoder(encoder, momentum)
        average.encoder.image.data = average.encoder.image.data.contiguous()
        expected = [parameter.clone() for parameter in average.encoder.parameters()]
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(torch.ones_like(parameter))
            for own, other in zip(expected, encoder.parameters(), strict=True):
                own.lerp_(other, 1 - momentum) if own.is_floating_point() else own.copy_(other)
        average.update(encoder)
        for own, wanted in zip(average.encoder.parameters(), expected, strict=True):
            assert torch.equal(own, wanted)


def test_momentum_is_checked() -> None:
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5"):
        MomentumEncoder(nn.Linear(2, 2), 1.5)


def test_encoder_round_trip(tmp_path: Path) -> None:
    encoder = FrameEncoder(SMALL)
    encoder(torch.randn(4, 3, 32, 32))
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.config == SMALL and not loaded.training
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(loaded(images), encoder.eval()(images))


def test_damaged_encoder_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder\.json is missing"):
        load_encoder(tmp_path)
    save_encoder(FrameEncoder(SMALL), tmp_path)
    tensors, config = tmp_path / "encoder.safetensors", tmp_path / "encoder.json"
    whole = tensors.read_bytes(), config.read_bytes()
    flipped = bytearray(whole[0])
    flipped[len(flipped) // 2] ^= 0x40
    for path, content in [
        (tensors, whole[0][:1000]),
        (tensors, bytes(flipped)),
        (tensors, b""),
        (config, b"{"),
        (config, b"[1]"),
        (config, b"[" * 100_000),
        (config, b'{"depth": 3}'),
        (config, whole[1].replace(b'"dim": 16', b'"dim": 17')),
        (config, whole[1].replace(b' "image_size": 32,\n', b"")),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"cannot be loaded: .*{path.name} is damaged"):
            load_encoder(tmp_path)
        tensors.write_bytes(whole[0])
        config.write_bytes(whole[1])


def test_no_option_of_a_sealed_encoder_is_left_to_its_default(tmp_path: Path) -> None:
    encoder = FrameEncoder(SMALL)
    save_encoder(encoder, tmp_path)
    table = read_json(tmp_path / "encoder.json")
    del table["small_stem"]  # younger than the first files
    (tmp_path / "encoder.json").write_text(json.dumps(table))
    assert load_encoder(tmp_path).config == SMALL
    write_json(tmp_path / "encoder.json", table)
    with pytest.raises(ValueError, match="it lacks small_stem"):
        load_encoder(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Also in a file that another program has written, without a seal."""
    save_encoder(FrameEncoder(SMALL), tmp_path)
    path = tmp_path / "encoder.safetensors"
    for value in (math.nan, math.inf):
        tensors = safetensors.torch.load_file(path)
        tensors["backbone.conv1.weight"][0, 0, 0, 0] = value
        safetensors.torch.save_file(tensors, path)
        with pytest.raises(ValueError, match=r"encoder\.safetensors.*conv1\.weight has values"):
            load_encoder(tmp_path)

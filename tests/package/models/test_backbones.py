"""Backbones by name, grey input, normalisation layers: what they compute, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from runs import make_data
from torch import nn

from usucl.data import FrameBatches, VideoCatalog
from usucl.data.transforms import MEAN, STD
from usucl.models import EncoderConfig, FrameEncoder, load_encoder, save_encoder
from usucl.models.backbones import make_network
from usucl.models.colours import Colours, GreyConv2d
from usucl.models.normalisation import groups_of, synchronise
from usucl.training import train

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["timm:test_vit", "timm:test_resnet", "timm:test_convnext", "timm:test_efficientnet"]


@pytest.fixture(autouse=True)
def _needs_timm(request: pytest.FixtureRequest) -> None:
    if "timm" in request.node.name:
        pytest.importorskip("timm")


def config(backbone: str = "resnet10", **options: Any) -> EncoderConfig:
    return EncoderConfig(**{"backbone": backbone, "image_size": 32, "dim": 8, **options})


def grey_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 52), dtype=np.uint8)


def made(backbone: str, **options: Any) -> FrameEncoder:
    """An encoder with the same weights for the same backbone, in float64."""
    torch.manual_seed(3)
    return FrameEncoder(config(backbone, **options)).double().eval()


@pytest.mark.parametrize(
    ("backbone", "width", "dropped"),
    [
        ("mobilenet_v3_small", 1024, "classifier.3"),
        ("shufflenet_v2_x0_5", 1024, "fc"),
        ("regnet_y_400mf", 440, "fc"),
    ],
)
def test_features_are_what_the_last_linear_layer_takes(
    backbone: str, width: int, dropped: str
) -> None:
    network = make_network(backbone, 32)
    assert network.width == width and network.classifier == (dropped,)
    whole = torchvision.models.get_model(backbone).eval()
    names = whole.load_state_dict(network.module.state_dict(), strict=False)
    assert set(names.missing_keys) == {f"{dropped}.weight", f"{dropped}.bias"}
    assert not names.unexpected_keys
    images, taken = torch.randn(2, 3, 32, 32), []
    whole.get_submodule(dropped).register_forward_hook(lambda m, given, out: taken.append(given[0]))
    with torch.no_grad():
        whole(images)
        torch.testing.assert_close(network.module.eval()(images), taken[0])


@pytest.mark.parametrize("backbone", TINY)
def test_a_timm_network_is_pooled_and_sees_its_own_colours(backbone: str, tmp_path: Path) -> None:
    import timm

    encoder = made(backbone)
    save_encoder(encoder.float(), tmp_path)
    loaded = load_encoder(tmp_path)
    size = {"img_size": 32} if backbone == "timm:test_vit" else {}
    network = timm.create_model(backbone.removeprefix("timm:"), num_classes=0, **size).eval()
    network.load_state_dict(loaded.backbone.state_dict())
    mean, std = (network.pretrained_cfg[name] for name in ("mean", "std"))
    image = loaded.preprocess(grey_image())
    pixels = image * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    own = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(loaded.features(image), network(own), rtol=1e-4, atol=1e-5)
    assert loaded.description(bare=True)["mean"] == pytest.approx(list(mean))
    assert loaded.description()["mean"] == pytest.approx(list(MEAN))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet19"}, "or timm: and the name of one of timm, got 'resnet19'; did you"),
        ({"backbone": "inception_v3"}, "got 'inception_v3': it has further outputs in training"),
        ({"backbone": "timm:vit_tny_patch16_224"}, "got 'timm:vit_tny.*did you mean timm:vit_tiny"),
        ({"backbone": "timm:resnet18.nobody"}, "got 'timm:resnet18.nobody': one of resnet18"),
        ({"backbone": "vit_tiny_patch16_224"}, r"; did you mean timm:vit_tiny_patch16_224\?"),
        ({"backbone": "vit_b_16", "image_size": 40}, "one that vit_b_16 takes, got 40: .*patch"),
        (
            {"backbone": "timm:test_vit", "image_size": 40},
            "takes, got 40: .*of its patches of 16 pix",
        ),
        ({"backbone": "alexnet"}, "image_size must be one that alexnet takes, got 32: "),
        ({"backbone": "convnext_tiny", "small_stem": True}, "only torchvision's ResNets have"),
        ({"backbone": "timm:test_vit2", "pretrained": True, "weights": "x"}, "pretrained must be"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"norm": "layer"}, "norm must be one of batch, group, frozen, sync, got 'layer'"),
        ({"norm": "frozen", "head": "mlp-bn"}, "head must be 'mlp' or 'linear' with norm 'frozen'"),
    ],
)
def test_what_does_not_go_is_said_before_the_run(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        FrameEncoder(config(**options))


def test_without_timm_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = config("timm:convnext_tiny")  # a configuration can be read without it
    with pytest.raises(ImportError, match="needs timm, which is not installed: pip install timm"):
        FrameEncoder(wanted)


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "vit_b_16"])
def test_pretrained_weights_need_a_network(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    if backbone.startswith("timm:"):
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
        monkeypatch.setattr("timm.models._builder.load_custom_from_hf", unreachable)
    with pytest.raises(RuntimeError, match=rf"{backbone} could not be fetched \(.*give a file of"):
        FrameEncoder(config(backbone, pretrained=True))


def test_no_code_in_a_downloaded_file_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torch.hub would run it; the file is in its cache, where no checksum is looked at again."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"conv1.weight": Payload()}, folder / url.rsplit("/", 1)[1])
    with pytest.raises(RuntimeError, match="resnet18 could not be fetched"):
        FrameEncoder(config("resnet18", pretrained=True))
    assert not ran.exists()


@pytest.mark.parametrize("backbone", ["resnet10", "mobilenet_v3_small", *TINY])
def test_a_grey_encoder_gives_what_the_rgb_one_gives_of_grey_images(backbone: str) -> None:
    rgb, grey = made(backbone), made(backbone, channels=1)
    assert rgb.state_dict().keys() <= grey.state_dict().keys()
    image = grey_image()
    seen = grey.preprocess(image)
    assert seen.shape == (1, 1, 32, 32) and seen.dtype == torch.float64
    with torch.no_grad():
        expected = rgb.features(rgb.preprocess(image))
        for images in (seen, rgb.preprocess(image)):  # both of them rounded to float32
            torch.testing.assert_close(grey.features(images), expected, rtol=2e-5, atol=2e-6)
    colour = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8))
    luma = grey.preprocess(colour.convert("L")) - grey.preprocess(colour)
    assert float(luma.abs().max()) < 1.5 / 255 / 0.226  # rounding, once before the resizing


def test_the_grey_convolution_is_exact_at_the_borders_and_trains_as_that_of_rgb() -> None:
    plain = nn.Conv2d(3, 4, 7, stride=2, padding=3).double()
    grey = copy.deepcopy(plain)
    grey.__class__ = GreyConv2d
    images = torch.randn(2, 1, 20, 22, dtype=torch.float64)
    expected, got = plain(Colours(1).double()(images)), grey(images)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)  # MEAN and STD are float32
    upstream = torch.randn_like(got)
    expected.backward(upstream)
    got.backward(upstream)
    assert plain.weight.grad is not None
    torch.testing.assert_close(grey.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)


def test_groups_have_at_least_two_channels() -> None:
    for channels in [*range(1, 130), 512, 2048]:
        groups = groups_of(channels)
        assert channels % groups == 0 and (groups < channels or channels == 1) and groups <= 32
    assert [groups_of(n) for n in (64, 128, 2048, 24, 7)] == [32, 32, 32, 12, 1]


@pytest.mark.parametrize("backbone", ["resnet10", "timm:test_efficientnet"])
def test_group_normalisation_is_free_of_the_batch(backbone: str, tmp_path: Path) -> None:
    encoder = FrameEncoder(config(backbone, norm="group", head="mlp-bn")).double().train()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    together = encoder(images)
    torch.testing.assert_close(together[:1], encoder(images[:1]))
    assert float((together[0] @ together[1]).detach()) < 0.9999
    save_encoder(encoder.float(), tmp_path)
    loaded = load_encoder(tmp_path)
    assert loaded.config.norm == "group"
    torch.testing.assert_close(loaded(images.float()), together.float(), rtol=1e-3, atol=1e-4)
    batch = tmp_path / "batch"
    save_encoder(FrameEncoder(config(backbone)), batch)
    start = FrameEncoder(config(backbone, norm="group", weights=str(batch))).start
    assert start is not None and all("running" in n or "num_" in n for n in start["left_out"])


def test_frozen_statistics_stay(tmp_path: Path) -> None:
    encoder = FrameEncoder(config(norm="frozen"))
    save_encoder(encoder, tmp_path)
    before = copy.deepcopy(encoder.state_dict())
    nn.Sequential(encoder).train()
    assert encoder.training and encoder.backbone.conv1.training
    encoder(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(torch.equal(v, before[n]) for n, v in encoder.named_buffers())
    assert encoder.backbone.bn1.weight.grad is not None
    for name, stored in load_encoder(tmp_path).state_dict().items():
        assert torch.equal(stored, before[name])


@pytest.mark.parametrize("backbone", ["resnet10", "timm:test_efficientnet"])
def test_synchronised_normalisation_keeps_names_values_and_activations(backbone: str) -> None:
    encoder = FrameEncoder(config(backbone, norm="sync", head="mlp-bn")).eval()
    images = torch.randn(2, 3, 32, 32)
    before, expected = dict(encoder.state_dict()), encoder(images)
    synchronise(encoder)
    kinds = {type(m) for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds and all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert encoder.state_dict().keys() == before.keys()
    assert torch.equal(encoder.eval()(images), expected)  # evaluated, it needs no GPU


def test_encoders_of_earlier_versions_are_read(tmp_path: Path) -> None:
    encoder = FrameEncoder(config()).eval()
    save_encoder(encoder, tmp_path)
    table = json.loads((tmp_path / "encoder.json").read_text())
    for name in ("channels", "norm", "seal"):
        del table[name]
    (tmp_path / "encoder.json").write_text(json.dumps(table))
    loaded = load_encoder(tmp_path)
    assert loaded.config == encoder.config
    assert all(torch.equal(v, encoder.state_dict()[n]) for n, v in loaded.state_dict().items())


@pytest.fixture(scope="module")
def grey_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a grey transformer, and its videos beside it."""
    pytest.importorskip("timm")
    root = tmp_path_factory.mktemp("grey")
    make_data(root / "videos", videos=4, frames=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(
            data=root / "videos",
            out=root / "run",
            progress=False,
            held_out=(),
            backbone="timm:test_vit",
            channels=1,
            norm="group",
            image_size=32,
            dim=8,
            epochs=1,
            bank=0,
            videos=2,
            frames=4,
            num_workers=0,
        )


def test_a_grey_run_goes_from_training_to_a_search(grey_run: Path) -> None:
    import usucl
    from usucl.cli import main

    videos = grey_run.parent / "videos"
    encoder = usucl.load_encoder(grey_run)
    assert encoder.config.channels == 1 and encoder.config.backbone == "timm:test_vit"
    batches = FrameBatches(VideoCatalog.scan(videos), image_size=32, channels=1)
    view = batches[0, 0].anchor_view
    assert view.shape[1:] == (1, 32, 32)
    rgb = FrameBatches(VideoCatalog.scan(videos), image_size=32)[0, 0].anchor_view
    torch.testing.assert_close(view * 0.226 + 0.449, rgb[:, :1] * STD[0] + MEAN[0])
    found = usucl.embed(run=grey_run, data=videos)
    with torch.no_grad():
        own = encoder.features(encoder.preprocess(videos / "video_0"))
    torch.testing.assert_close(found.features[: len(own)], own)
    bank = grey_run.parent / "bank"
    assert main(["bank", "build", str(grey_run), str(videos), "--out", str(bank)]) == 0
    query = str(videos / "video_1" / "3.png")
    assert main(["bank", "search", str(bank), query, "--quiet"]) == 0
    evaluated = usucl.evaluate(run=grey_run, data=videos, frames_per_video=4)
    assert "trained" in evaluated.encoders
    assert "test_vit" in usucl.write_report(grey_run).read_text()

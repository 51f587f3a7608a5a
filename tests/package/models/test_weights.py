"""An encoder starts from a user's weights: which names and formats are taken, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from runs import make_data
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, ResNet

import usucl
from usucl.cli import main
from usucl.models import (
    EncoderConfig,
    FrameEncoder,
    import_checkpoint,
    load_encoder,
    save_encoder,
)
from usucl.models.weights import left_out_in_words
from usucl.run_folder import MARK
from usucl.training import checkpoint as checkpoints

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


def official(network: dict[str, torch.Tensor], *, dim: int = 8) -> dict[str, Any]:
    """A checkpoint as US_UCL and MoCo write theirs, with the average and the queues."""
    torch.manual_seed(1)
    state = {name: value for name, value in network.items() if not name.startswith("fc.")}
    for name, shape in (("0.weight", (512, 512)), ("0.bias", (512,))):
        state[f"fc.{name}"] = torch.randn(shape)
    state |= {"fc.2.weight": torch.randn(dim, 512), "fc.2.bias": torch.randn(dim)}
    average = {name: value.float() * 0.5 for name, value in state.items()}
    queues = {"queue": torch.randn(dim, 4), "queue_ptr": torch.zeros(1).long()}
    return {
        "epoch": 60,
        "arch": "resnet10",
        "state_dict": prefixed(
            "module.",
            prefixed("encoder_k.", average) | prefixed("encoder_q.", state) | queues,
        ),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
    }


@pytest.fixture(scope="module")
def checkpoint(network: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("official") / "checkpoint_0060.pth.tar"
    torch.save(official(network), file, _use_new_zipfile_serialization=False)  # as torch 1.3 did
    return file


def test_an_official_checkpoint_is_where_training_starts(
    checkpoint: Path, network: dict[str, torch.Tensor]
) -> None:
    made = encoder(checkpoint)
    assert made.start is not None and made.start["head"] == 4
    own = made.backbone.state_dict()
    assert all(torch.equal(own[name], network[name]) for name in own)
    q = official(network)["state_dict"]
    assert torch.equal(made.head[2].weight, q["module.encoder_q.fc.2.weight"])
    left = made.start["left_out_parts"]
    assert left == {"module.encoder_k": 76, "module.queue": 1, "module.queue_ptr": 1}
    assert left_out_in_words(made.start).startswith("module.encoder_k (76 tensors), module.queue, ")
    assert encoder(checkpoint, dim=16).start["head"] == 0  # type: ignore[index]


def test_an_official_checkpoint_becomes_an_encoder_for_every_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    words = ["import", str(checkpoint), "--out", str(out), "--image-size", "32"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "resnet10: 72 tensors and 4 of its head" in told and "module.encoder_k" in told
    videos = make_data(tmp_path / "videos", videos=2, frames=2, labels=False)
    assert len(usucl.embed(run=out, data=videos, out=tmp_path / "embedded")) == 4
    loaded = load_encoder(out)
    assert loaded.config.dim == 8 and loaded.config.head == "mlp"
    images = torch.randn(2, 3, 32, 32)
    whole = import_checkpoint(checkpoint, image_size=32)
    assert torch.equal(whole(images), loaded(images))
    grey = import_checkpoint(checkpoint, image_size=32, channels=1)
    image = torch.rand(30, 40)
    torch.testing.assert_close(
        grey(grey.preprocess(image)), whole(whole.preprocess(image)), rtol=1e-4, atol=1e-5
    )
    assert main(words) == 2 and "give --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    (out / "config.yaml").write_text(MARK)
    assert main([*words, "--overwrite"]) == 2
    assert "must not hold a run" in capsys.readouterr().err


def test_a_checkpoint_without_a_head_or_a_name_says_so(
    network: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    bare = {n: v for n, v in network.items() if not n.startswith("fc.")}
    torch.save({"state_dict": prefixed("module.encoder_q.", bare)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"backbone must be given, because .* does not say"):
        import_checkpoint(tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="has no projection head that fits: .* random one"):
        made = import_checkpoint(tmp_path / "a.pth", backbone="resnet10", image_size=32)
    assert all(torch.equal(v, network[n]) for n, v in made.backbone.state_dict().items())
    with pytest.raises(FileNotFoundError, match="file must be a checkpoint"):
        import_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match="weights must fit the backbone"):
        import_checkpoint(tmp_path / "a.pth", backbone="mobilenet_v3_small")


@pytest.mark.parametrize("backbone", ["timm:test_convnext", "mobilenet_v3_small"])
def test_classification_weights_of_any_network_are_taken_without_the_classifier(
    backbone: str, tmp_path: Path
) -> None:
    if backbone.startswith("timm:"):
        timm = pytest.importorskip("timm")
        whole = timm.create_model(backbone.removeprefix("timm:"))
    else:
        whole = torchvision.models.get_model(backbone)
    torch.save(prefixed("model.", whole.state_dict()), tmp_path / "a.pth")
    made = encoder(tmp_path / "a.pth", backbone=backbone)
    state = whole.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in made.backbone.state_dict().items())
    assert made.start is not None and len(made.start["left_out"]) == 2


class Payload:
    """Runs code in whoever unpickles it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_no_loader_runs_code(tmp_path: Path) -> None:
    """Every reader of files that PyTorch writes; other files of this package are no pickles."""
    ran, file = tmp_path / "ran", tmp_path / "last.ckpt"
    torch.save({"state_dict": {"conv1.weight": Payload(ran)}, "epoch": 0}, file)
    for read in (
        lambda: encoder(file),
        lambda: import_checkpoint(file, backbone="resnet10"),
        lambda: checkpoints.read_checkpoint(file, ("epoch",)),
    ):
        with pytest.raises(ValueError, match=r"no code in it is run|damaged"):
            read()
    assert not ran.exists()
    sources = Path(usucl.__file__).parent.rglob("*.py")
    loads = [line for s in sources for line in s.read_text().splitlines() if "torch.load(" in line]
    own = [line for line in loads if "torch.load({})" not in line]  # a line to paste
    assert own and all("weights_only=True" in line for line in own)
    calls = re.compile(r"pickle\.loads?\(|Unpickler\(|allow_pickle=True|joblib")
    package = Path(usucl.__file__).parent
    readers = {s.relative_to(package) for s in package.rglob("*.py") if calls.search(s.read_text())}
    # What the processes of one run tell each other, through pipes that nobody else can open.
    assert {reader.parent.as_posix() for reader in readers} <= {"training/processes"}

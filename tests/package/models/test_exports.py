"""The encoder in other libraries: files that load there and compute the same, and the lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import usucl
from usucl._files import check_seal, write_json
from usucl.cli import main
from usucl.models import EncoderConfig, FrameEncoder, export_usage, save_encoder, usage
from usucl.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = EncoderConfig(backbone="resnet10", image_size=40, dim=8)
SMALL = EncoderConfig(backbone="resnet10", image_size=32, dim=8, head="mlp-bn", small_stem=True)


@pytest.fixture(params=[PLAIN, SMALL], ids=["plain", "small-stem"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder and, in the current folder, an image."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    Image.fromarray(pixels).save("frame.png")
    encoder = FrameEncoder(request.param)
    encoder(torch.randn(8, 3, *[request.param.image_size] * 2))  # statistics that are not 0 and 1
    save_encoder(encoder, "run's")
    return Path("run's")


def expected(run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    encoder = usucl.load_encoder(run)
    images = encoder.preprocess("frame.png")
    with torch.no_grad():
        return encoder.features(images), encoder(images)


def outcome(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(code, names)
    return {key: names[key] for key in ("features", "embedding") if key in names}


def close(actual: object, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(actual), wanted, rtol=1e-4, atol=1e-5)


def test_the_lines_to_paste_run(run: Path) -> None:
    features, embedding = expected(run)
    plain, with_usucl = usage(run).split("# The same with usucl\n")
    close(outcome(plain)["features"], features)
    assert "usucl" not in plain.replace(str(run), "")
    own = outcome(with_usucl)
    assert torch.equal(own["features"], features) and torch.equal(own["embedding"], embedding)
    (run / "backbone.safetensors").unlink()  # as in runs of earlier versions
    close(outcome(usage(run).split("# The same with usucl\n")[0])["features"], features)


@pytest.mark.parametrize(
    ("format", "out"),
    [
        (None, None),
        ("torchvision", "out/weights.pth"),
        ("timm", "weights.safetensors"),
        ("pt2", None),
        (None, "encoder.onnx"),
    ],
)
def test_an_exported_file_computes_the_same(run: Path, format: Any, out: str | None) -> None:
    whole = format == "pt2" or out == "encoder.onnx"
    if whole and usucl.load_encoder(run).config != PLAIN:
        pytest.skip("whole networks are exported with one encoder, because that takes seconds")
    needed = {"timm": ["timm"], "onnx": ["onnx", "onnxscript", "onnxruntime"]}
    for library in needed.get(format or Path(out or "").suffix[1:], []):
        pytest.importorskip(library)
    file = usucl.export(run, out=out, format=format)
    assert file == Path(out) if out else file.parent == run / "exported"
    features, embedding = expected(run)
    got = outcome(export_usage(run, file, format))
    close(got["features"], features)
    if whole:
        close(got["embedding"], embedding)
    with pytest.raises(FileExistsError, match="exists: give overwrite=True"):
        usucl.export(run, out=out, format=format)
    if not whole:
        usucl.export(run, out=out, format=format, overwrite=True)


def test_a_run_holds_its_backbone_in_the_names_of_torchvision(run: Path) -> None:
    file = run / "backbone.safetensors"
    config = usucl.load_encoder(run).config
    assert check_seal(file)
    with safe_open(file, "pt") as content:
        about = content.metadata()
    assert about["architecture"] == config.backbone and about["image_size"] == str(
        config.image_size
    )
    assert json.loads(about["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(about["std"]) == [0.229, 0.224, 0.225]
    assert "centre" in about["preprocessing"]
    assert {f"backbone.{name}" for name in load_file(file)} == {
        name for name in load_file(run / "encoder.safetensors") if name.startswith("backbone.")
    }


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_a_backbone_has_the_names_and_shapes_of_torchvision(backbone: str) -> None:
    with torch.device("meta"):
        ours = FrameEncoder(EncoderConfig(backbone=backbone)).backbone.state_dict()
        theirs = getattr(torchvision.models, backbone)().state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if not name.startswith("fc.")
    }


def test_the_encoder_records_its_colours(run: Path) -> None:
    path = run / "encoder.json"
    table = json.loads(path.read_text())
    assert table["mean"] == [0.485, 0.456, 0.406] and table["std"] == [0.229, 0.224, 0.225]
    del table["mean"], table["std"], table["seal"]  # a file of an earlier version
    path.write_text(json.dumps(table))
    usucl.load_encoder(run)
    path.write_text(json.dumps(table | {"mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(ValueError, match=r"mean must be \[0.485"):
        usucl.load_encoder(run)


OTHERS = {
    "grey-vit": EncoderConfig("timm:test_vit", 32, 8, channels=1),
    "groups": EncoderConfig("resnet10", 32, 8, norm="group", channels=1, head="mlp-bn"),
    "act-groups": EncoderConfig("timm:test_efficientnet", 32, 8, norm="group"),
    "mobile": EncoderConfig("mobilenet_v3_small", 32, 8),
    "convnext": EncoderConfig("timm:test_convnext", 32, 8),
}


@pytest.fixture
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an encoder that is no plain ResNet and, in the current folder, an image."""
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("frame.png")
    encoder = FrameEncoder(OTHERS[request.param])
    encoder(torch.randn(8, encoder.config.channels, 32, 32))
    save_encoder(encoder, "run")
    return Path("run")


@pytest.mark.parametrize(
    ("other", "formats"),
    [
        pytest.param("grey-vit", ["timm", "pt2", "onnx"], marks=pytest.mark.at_length),
        ("groups", ["torchvision", "timm"]),
        ("mobile", ["torchvision"]),
        ("convnext", ["timm"]),
    ],
    indirect=["other"],
)
def test_every_kind_of_encoder_computes_the_same_elsewhere(other: Path, formats: Any) -> None:
    features, embedding = expected(other)
    lines = usage(other).split("# The same with usucl\n")[0]
    encoder = usucl.load_encoder(other)
    for code in [lines, *formats]:
        if code in formats:
            if code == "onnx":
                pytest.importorskip("onnxscript")
            file = usucl.export(other, format=code)
            code = export_usage(other, file, code)
        got = outcome(code)
        error = (torch.as_tensor(got["features"]) - features).abs().max() / features.abs().max()
        assert float(error) < 1e-4, code
        if "embedding" in got:
            assert float((torch.as_tensor(got["embedding"]) @ embedding.T).min()) > 0.999
    assert load_file(other / "backbone.safetensors").keys() == encoder.backbone.state_dict().keys()


@pytest.mark.parametrize(
    ("other", "format", "said"),
    [
        ("grey-vit", "torchvision", "must be timm, pt2 or onnx, because torchvision has no"),
        ("mobile", "timm", "must be torchvision, pt2 or onnx, because"),
        ("act-groups", "timm", "must be pt2 or onnx with encoder.norm 'group', because batch"),
    ],
    indirect=["other"],
)
def test_what_a_library_cannot_make_is_not_exported_for_it(
    other: Path, format: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        usucl.export(other, format=format)
    assert not any((other / "exported").glob("*")) if (other / "exported").exists() else True
    assert "usucl.load_encoder" in usage(other)


def test_a_model_card_counts_and_names_nobody(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "Doe")
    save_encoder(FrameEncoder(PLAIN), run.path)
    run.config.write_text("data: /archive/Jane Doe\nepochs: 7\nencoder: {weights: /x/Doe/a.pth}\n")
    write_json(run.facts, {"epochs_done": 7, "steps_done": 70, "usucl": "0.1.0"})
    rows = [
        (f"Jane Doe/{i}", f"Doe {i // 2}", "", "held_out" if i > 3 else "train") for i in range(6)
    ]
    table = "\n".join(["video_id,group,label,part", *(",".join(row) for row in rows)])
    run.split.write_text(table + "\n")
    figures = {name: {"value": 0.5, "low": 0.25, "high": 0.75} for name in ("trained", "random")}
    write_json(run.evaluation, {"retrieval": {"temporal_hard": figures}, "counts": {}})
    file = usucl.export(run.path, data_licence="CC BY-NC-ND 4.0")
    card = (file.parent / "README.md").read_text()
    assert "Doe" not in card and "/archive" not in card and "weights: a.pth" in card
    for words in (
        "Trained on: 4 videos, 2 patients",
        "Held out, by patient: 2 videos, 1 patient",
        "Licence of the data: CC BY-NC-ND 4.0",
        "7 epochs of 70 steps",
        "| retrieval / temporal hard | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] | - |",
        "not a medical device",
        "backbone.load_state_dict(load_file(",
        "epochs: 7",
    ):
        assert words in card, words
    other = usucl.export(run.path, out=file.with_name("second.pth"))
    assert "not stated" in other.with_name("second.pth.md").read_text()
    assert (file.parent / "README.md").read_text() == card  # of the first file
    usucl.export(run.path, out=file, overwrite=True)
    assert "not stated" in (file.parent / "README.md").read_text()


def test_an_export_never_replaces_the_run(tmp_path: Path) -> None:
    save_encoder(FrameEncoder(PLAIN), tmp_path)
    with pytest.raises(ValueError, match="another file than the encoder of the run"):
        usucl.export(tmp_path, out=tmp_path / "encoder.safetensors", overwrite=True)
    usucl.export(tmp_path, out=tmp_path / "encoder.pth", overwrite=True)
    assert json.loads((tmp_path / "encoder.pth.json").read_text())["image_size"] == 40
    assert usucl.load_encoder(tmp_path).config == PLAIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "keras"}, "format must be one of torchvision, timm, pt2, onnx, got 'keras'"),
        ({"out": "encoder.bin"}, r"out must end with one of .*\.onnx.*, got encoder.bin"),
        ({"out": "x.pth", "format": "pt2"}, r"out must end with \.pt2 for the format pt2"),
    ],
)
def test_wrong_exports(tmp_path: Path, options: Any, message: str) -> None:
    save_encoder(FrameEncoder(PLAIN), tmp_path)
    with pytest.raises(ValueError, match=message):
        usucl.export(tmp_path, **options)
    assert not (tmp_path / "exported").exists()


def test_a_format_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(FrameEncoder(PLAIN), tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx and .* are not installed: pip install 'usucl\[export\]'"
    ):
        usucl.export(tmp_path, format="onnx")


def test_the_command_prints_lines_that_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(FrameEncoder(PLAIN), tmp_path / "run")
    Image.new("RGB", (50, 60)).save(tmp_path / "frame.png")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "weights.pth")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"Exported: {tmp_path / 'weights.pth'}"
    assert outcome("\n".join(lines))["features"].shape == (1, 512)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "weights.pth")]) == 2
    assert "weights.pth exists: give --overwrite to replace it" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nothing")]) == 2

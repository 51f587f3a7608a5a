"""Presets and options of a fine-tuning, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from usucl.cli import main
from usucl.finetuning import presets, read_config
from usucl.finetuning.fold import last_block
from usucl.models import EncoderConfig, FrameEncoder
from usucl.training.explained import explain


def test_presets_are_the_published_recipes() -> None:
    gbcu, pocus = read_config("gbcu", {}), read_config("pocus", {})
    assert (gbcu.optimiser, gbcu.lr, gbcu.weight_decay, gbcu.batch_size) == ("sgd", 3e-3, 5e-4, 64)
    assert (gbcu.epochs, gbcu.head, gbcu.hidden, gbcu.trainable) == (30, "mlp", 256, "all")
    assert (pocus.optimiser, pocus.lr, pocus.weight_decay) == ("adam", 1e-2, 1e-4)
    assert (pocus.folds, pocus.trainable, pocus.head) == (5, "last-block", "linear")
    for name in presets():
        config = read_config(name, {})
        assert config == read_config(name, {"seed": 0})
        assert explain(config).count("\n# ") >= len(vars(config))


def test_a_config_reads_what_it_wrote(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"classes": {"a": None, "b": "c"}, "patience": None, "lr": 0.5}
    changes["augmentation"] = {"flip": 0.5, "crop": [0.5, 1.0]}
    config = read_config("gbcu", changes)
    file = tmp_path / "c.yaml"
    file.write_text(config.to_yaml())
    assert read_config(file, {}) == config
    (tmp_path / "d.yaml").write_text("preset: c.yaml\nepochs: 2\n")
    assert read_config(tmp_path / "d.yaml", {}).epochs == 2
    assert read_config(tmp_path / "d.yaml", {"epochs": "3"}).lr == 0.5


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("{0: null, 01: yes}", {"0": None, "01": "yes"}),
        ("{a: ~, no: 'null'}", {"a": None, "no": "null"}),
        ({0: None, "b": 1.5}, {"0": None, "b": "1.5"}),
    ],
)
def test_labels_may_look_like_numbers(given: Any, meant: dict[str, str | None]) -> None:
    assert read_config("default", {"classes": given}).classes == meant


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epoch": 1}, "epoch is no option of a fine-tuning; did you mean epochs?"),
        ({"epochs": 0}, r"epochs must be in \[1"),
        ({"epochs": "many"}, "epochs must be an integer, got 'many'"),
        ({"epochs": None}, "epochs must be an integer, got null"),
        ({"trainable": "some"}, "trainable must be one of all, last-block, head, got 'some'"),
        ({"validation": 0.9}, r"validation must be in \[0, 0.5\], got 0.9"),
        ({"batch_size": 1}, "batch_size must be in"),
        ({"lr": -1}, "lr must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"least_lr": 1.0}, "least_lr must be at most lr"),
        ({"folds": 1}, "folds must be in"),
        ({"classes": "covid"}, "classes must be"),
        ({"augmentation": "corp"}, "augmentation must be"),
        ({"label": ""}, "label must be the name of a column"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        read_config("default", changes)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preset must be one of .*did you mean pocus"):
        read_config("pocu", {})
    file = tmp_path / "own.yaml"
    for text, said in (
        ("epocs: 3", r"own.yaml: epocs is no option"),
        ("epochs: x", r"own.yaml: epochs must be an integer"),
        ("preset: own.yaml", "must not lead back to itself"),
        ("preset: 3", "preset must be a name or a file"),
        ("[", "is no YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_config(file, {})


def test_the_last_block_of_networks() -> None:
    torch.manual_seed(0)
    resnet = FrameEncoder(EncoderConfig(backbone="resnet18", image_size=32)).backbone
    assert last_block(resnet) == [resnet.layer4[-1]]  # type: ignore[union-attr, index]
    network = nn.Module()
    network.embed = nn.Linear(2, 2)
    network.blocks = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network.norm = nn.LayerNorm(2)
    network.head = nn.Identity()
    assert set(last_block(network)) == {network.norm, network.blocks[1]}


def test_print_config_and_wrong_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "--preset", "pocus", "--set", "epochs=3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    Path("printed.yaml").write_text(printed)
    assert read_config("printed.yaml", {}) == read_config("pocus", {"epochs": 3})
    Path("d").mkdir()
    for words, said in (
        ([], "RUN and DATA and --out are required"),
        (["d", "d", "--out", "x", "--resume", "--overwrite"], "exclude each other"),
        (["d", "d", "--out", "x", "--set", "epoch=2"], "did you mean epochs?"),
        (["d", "d", "--out", "x"], "holds no encoder"),
        (["d", "nowhere", "--out", "x"], "there is no such folder"),
        (["d", "d", "--out", "x", "--set", "run=e"], "RUN must be given as an argument"),
        (["d", "d", "--out", "x", "--seed", "1", "--set", "seed=2"], "got both"),
        (["--out", "x", "--resume"], "--out must hold a fine-tuning to resume"),
        (["d", "d", "--out", "x", "--start", "trane"], "did you mean trained?"),
    ):
        assert main(["finetune", *words]) == 2, words
        assert said in capsys.readouterr().err
    assert not Path("x").exists()

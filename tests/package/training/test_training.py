"""Training: the run folder, interruption and resumption, refusals, what the monitor computes."""

from __future__ import annotations

import csv
import math
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import BACKBONE

from usucl.bank import NegativeBank
from usucl.cli import main
from usucl.models import load_encoder
from usucl.run_folder import RunFolder
from usucl.training import read_config, train
from usucl.training.callbacks.monitor import COLUMNS
from usucl.training.callbacks.saving import Saving
from usucl.training.checkpoint import PARTS, Checkpoints

TINY = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 16,
    "pretrained": False,
    "epochs": 2,
    "videos": 3,
    "log_every": 1,
    "progress": False,
}
DENSE = {
    "preset": "dense",
    "frames": 4,
    "steps_per_epoch": 2,
    "cross_k": 4,
    "bank": 20,
    **TINY,
}
PAPER = {"preset": "paper", "bank": 8, **TINY, "videos": 2}
FLAT = {**DENSE, "search": "Flat", "max_age": 15}
MOMENTUM = {
    **DENSE,
    "key.momentum": 0.9,
    "key.negatives": "momentum",
    "positives": 2,
    "positive_decay": 0.1,
    "label_smoothing": 0.1,
    "intra_skip": 1,
    "cross_skip": 2,
}

PAPER_CODE = {"preset": "paper-code", **TINY, "videos": 2}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 16 frames of a drifting texture, two videos per patient."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for video in range(6):
        folder = root / f"video{video}"
        folder.mkdir()
        texture = rng.integers(0, 256, (40, 80), dtype=np.uint8)
        for frame in range(16):
            Image.fromarray(texture[:, 2 * frame : 2 * frame + 40]).save(folder / f"{frame:02}.png")
    rows = "".join(f"video{v},{'ab'[v % 2]},p{v // 2}\n" for v in range(6))
    (root / "labels.csv").write_text("video_id,label,patient\n" + rows)
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("options", [DENSE, PAPER, PAPER_CODE], ids=lambda o: o["preset"])
def test_a_run_leaves_a_whole_folder(videos: Path, tmp_path: Path, options: dict) -> None:
    out = train(data=videos, out=tmp_path / "run", **{**options, "backbone": "resnet10"})
    table = rows(out / "metrics.csv")
    assert tuple(table[0]) == COLUMNS
    # Two epochs of two steps, either by option or because four videos make two batches of two.
    assert [row["step"] for row in table] == ["1", "2", "3", "4"]
    for row in table:
        assert math.isfinite(float(row["loss"]))
        shares = [float(row[f"{part}_share"]) for part in ("data", "encoder", "loss")]
        assert all(0 <= share <= 1 for share in shares) and sum(shares) <= 1 + 1e-6
    assert table[-1]["intra_similarity"] != ""

    trained, initial = load_encoder(out), load_encoder(out / "initial")
    assert trained.config == initial.config and trained.config.dim == 16
    assert not torch.equal(trained.backbone.conv1.weight, initial.backbone.conv1.weight)
    split = rows(out / "split.csv")
    assert len(split) == 6 and {row["part"] for row in split} == {"train", "held_out"}
    assert {row["video_id"]: row["group"] for row in split}["video5"] == "p2"
    parts: dict[str, set[str]] = {}
    for row in split:
        parts.setdefault(row["group"], set()).add(row["part"])
    assert all(len(part) == 1 for part in parts.values())
    assert rows(out / "skipped.csv") == []
    assert (out / "checkpoints" / "last.ckpt").is_file()
    assert list((out / "tensorboard").glob("events*"))
    config = read_config(out / "config.yaml", {})
    assert config.epochs == config.curriculum.epochs == 2 and config.data == str(videos)
    if options.get("bank"):
        bank = NegativeBank.load(out / "bank")
        assert len(bank) == options["bank"]
        assert bool(bank.frames().time.isnan().all()) == (options is PAPER)


def everything(out: Path) -> dict[str, Any]:
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=False)
    names = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "bank")
    timing = {"images_per_second", "data_share", "encoder_share", "loss_share"}
    table = rows(out / "metrics.csv")
    return {
        **{name: checkpoint[name] for name in names if name in checkpoint},
        "encoder": (out / "encoder.safetensors").read_bytes(),
        "initial": (out / "initial" / "encoder.safetensors").read_bytes(),
        "metrics": [{k: v for k, v in row.items() if k not in timing} for row in table],
    }


def assert_identical(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_identical(x, y)
    else:
        assert a == b


@pytest.mark.filterwarnings("ignore:labels.csv")
@pytest.mark.parametrize(
    "options",
    [DENSE, PAPER, FLAT, MOMENTUM],
    ids=["dense", "paper", "dense-Flat", "dense-momentum"],
)
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    whole = train(data=videos, out=tmp_path / "whole", **options)
    handler = signal.getsignal(signal.SIGINT)
    out = tmp_path / "run"

    def ctrl_c(self: Saving, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 3:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "on_train_batch_end", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            train(data=videos, out=out, **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [row["step"] for row in rows(out / "metrics.csv")] == ["1", "2", "3"]
    after_one = load_encoder(out)
    assert len(NegativeBank.load(out / "bank")) > 0

    fewer = shutil.copytree(videos, tmp_path / "fewer")
    shutil.rmtree(fewer / "video0")
    with pytest.raises(ValueError, match=r"videos of the run.*1 missing, such as video0"):
        train(data=fewer, out=out, resume=True, progress=False)
    assert train(out=out, resume=True, progress=False) == out
    assert not torch.equal(load_encoder(out).head[0].weight, after_one.head[0].weight)
    assert_identical(everything(out), everything(whole))


@pytest.mark.filterwarnings("ignore:labels.csv")
@pytest.mark.parametrize(
    "options", [DENSE, PAPER, MOMENTUM], ids=["dense", "paper", "dense-momentum"]
)
def test_candidates_of_an_exact_search_train_the_same_encoder(
    videos: Path, tmp_path: Path, options: dict
) -> None:
    """The loss is the same, bit for bit, with the whole bank and with a search's candidates."""
    pytest.importorskip("faiss")
    outs = [
        train(data=videos, out=tmp_path / search, search=search, **options)
        for search in ("exact", "Flat")
    ]
    exact, flat = map(everything, outs)
    for row, other in zip(exact["metrics"], flat["metrics"], strict=True):
        assert row.pop("bank_recall") == "" and float(other.pop("bank_recall")) == 1.0
    assert_identical(flat, exact)


def test_options_of_a_bank_need_one(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"key\.search is for a bank, got 'Flat'"):
        train(data=videos, out=tmp_path / "run", search="Flat", **{**DENSE, "bank": 0})
    assert not (tmp_path / "run").exists()


def test_broken_files_are_named_and_left_out(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    (data / "broken.mp4").write_bytes(b"no video")
    (data / "torn").mkdir()
    (data / "torn" / "00.png").write_bytes((data / "video0" / "00.png").read_bytes()[:50])
    out = train(data=data, out=tmp_path / "run", **{**DENSE, "epochs": 1})
    skipped = rows(out / "skipped.csv")
    assert [Path(row["path"]).name for row in skipped] == ["broken.mp4", "torn"]
    assert all(row["reason"] for row in skipped)
    printed = capsys.readouterr().err
    assert "2 videos are left out" in printed
    assert len(rows(out / "split.csv")) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nowhere"}, "must be a folder of videos"),
        ({"preset": "papre"}, "preset must be one of dense, paper, paper-code.*'papre'"),
        ({"bank": 64, "search": "IVFnonsense"}, r"key\.search must be"),
        ({"croos_k": 3}, r"croos_k is no option .* did you mean cross_k"),
        ({"momentum": 0.9}, "momentum is ambiguous: give key.momentum or optimiser.momentum"),
        ({"cross_k": "many"}, "loss.cross_k"),
        ({"precision": "int8"}, "precision"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"held_out": (0, 1, 2)}, r"held_out must be some of the folds \[0, 1, 2\], but not all"),
        ({"held_out": (0, 7)}, r"held_out must be some of the folds .* got \[0, 7\]"),
        (
            {"margin": 0.1, "bank": 64, "search": "Flat"},
            "loss.margin must be None unless key.search",
        ),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        (PAPER, r"sampling\.frames is for method 'dense' only: 'paper' has no such option, got 4"),
    ],
)
def test_wrong_arguments_create_nothing(
    videos: Path, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(**{"data": videos, "out": tmp_path / "run", **DENSE, **change})
    assert not (tmp_path / "run").exists()


def test_out_is_never_overwritten_unasked(videos: Path, tmp_path: Path) -> None:
    options = {"data": videos, **DENSE, "epochs": 1}
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds no run"):
            train(out=foreign, overwrite=overwrite, **options)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(out=foreign, resume=True, progress=False)
    # A config.yaml of another program does not mark a run.
    (foreign / "config.yaml").write_text("theme: dark\n")
    (foreign / "figures").mkdir()
    with pytest.raises(FileExistsError, match="holds no run"):
        train(out=foreign, overwrite=True, **options)
    left = sorted(path.name for path in foreign.iterdir())
    assert left == ["config.yaml", "figures", "thesis.tex"]

    out = tmp_path / "run"
    train(out=out, **options)
    before = everything(out)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        train(out=out, **options)
    with pytest.raises(ValueError, match="must be a folder"):
        train(out=out, overwrite=True, **{**options, "data": tmp_path / "gone"})
    assert_identical(everything(out), before)
    (out / "notes.txt").write_text("mine")
    (out / "report.html").write_text("of the earlier run")
    train(out=out, overwrite=True, seed=1, **options)
    assert everything(out)["encoder"] != before["encoder"]
    assert (out / "notes.txt").is_file() and not (out / "report.html").exists()


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end before their first step."""
    monkeypatch.setattr("usucl.training.fitting._fit", lambda *_: None)


def parts(out: Path) -> dict[str, str]:
    return {row["video_id"]: row["part"] for row in rows(out / "split.csv")}


def give(videos: Path, copy: Path, column: str, values: list[Any]) -> Path:
    """A copy of the videos with another column instead of the patients."""
    shutil.copytree(videos, copy)
    lines = "".join(f"video{v},a,{value}\n" for v, value in enumerate(values))
    (copy / "labels.csv").write_text(f"video_id,label,{column}\n" + lines)
    return copy


@pytest.mark.usefixtures("no_fit")
def test_folds_given_from_1_hold_the_first_out(videos: Path, tmp_path: Path) -> None:
    data = give(videos, tmp_path / "data", "fold", [1, 2, 3, 4, 5, 5])
    out = train(data=data, out=tmp_path / "run", **DENSE)
    assert [v for v, part in parts(out).items() if part == "held_out"] == ["video0"]
    out = train(data=data, out=tmp_path / "other", held_out=[5], **DENSE)
    held_out = [v for v, part in parts(out).items() if part == "held_out"]
    assert held_out == ["video4", "video5"]


@pytest.mark.usefixtures("no_fit")
def test_one_fold_given_for_all_is_ignored(videos: Path, tmp_path: Path) -> None:
    data = give(videos, tmp_path / "data", "fold", [1] * 6)
    with pytest.warns(UserWarning, match="every fold given is 1"):
        out = train(data=data, out=tmp_path / "run", **DENSE)
    assert set(parts(out).values()) == {"train", "held_out"}


@pytest.mark.usefixtures("no_fit")
def test_of_one_patient_nothing_is_held_out(videos: Path, tmp_path: Path) -> None:
    data = give(videos, tmp_path / "data", "patient", ["p"] * 6)
    with pytest.warns(UserWarning, match="nothing is held out"):
        out = train(data=data, out=tmp_path / "run", **DENSE)
    assert set(parts(out).values()) == {"train"}
    with pytest.raises(ValueError, match="--held-out without a number"):
        train(data=data, out=tmp_path / "other", held_out=(0,), **DENSE)


@pytest.mark.usefixtures("no_fit")
def test_a_presets_own_seed_and_held_out_stand(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("seed: 7\nheld_out: [1]\n")
    options = {"data": videos, **TINY, "preset": own}
    config = read_config(train(out=tmp_path / "a", **options) / "config.yaml", {})
    assert (config.seed, config.held_out) == (7, (1,))
    out = train(out=tmp_path / "b", seed=0, held_out=(), **options)
    config = read_config(out / "config.yaml", {})
    assert (config.seed, config.held_out) == (0, ())
    assert set(parts(out).values()) == {"train"}
    print_config = ["train", str(videos), "--out", "x", "--preset", str(own), "--print-config"]
    capsys.readouterr()
    for change, expected in (
        ([], ["held_out: [1]", "seed: 7"]),
        (["--held-out", "--seed", "3"], ["held_out: []", "seed: 3"]),
        (["--held-out", "2", "3"], ["held_out: [2, 3]", "seed: 7"]),
    ):
        assert main([*print_config, *change]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith(("held_out:", "seed:"))] == expected


@pytest.mark.usefixtures("no_fit")
def test_options_cannot_change_on_resumption(videos: Path, tmp_path: Path) -> None:
    out = train(data=videos, out=tmp_path / "run", **DENSE)
    done = {"current": {"ready": 1, "processed": 1}}
    loops = {"fit_loop": {"epoch_progress": done, "epoch_loop.batch_progress": done}}
    known = {"run": {"id": RunFolder(out).id}, "loops": loops, "global_step": 1}
    checkpoint = {**dict.fromkeys([*PARTS, "bank"]), **known}
    Checkpoints().save_checkpoint(checkpoint, out / "checkpoints" / "last.ckpt")
    again = {"out": out, "resume": True, "progress": False}
    for change in ({"epochs": 1}, {"seed": 1}, {"held_out": (1,)}, {"cross_k": 5}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} cannot change"):
            train(**again, **change)
    moved = shutil.copytree(videos, tmp_path / "moved")
    train(**again, data=moved, epochs=2, seed=0, cross_k="4")
    config = read_config(out / "config.yaml", {})
    assert config.data == str(moved) and config.epochs == 2


def test_a_run_that_diverges_keeps_the_last_good_encoder(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = train(data=videos, out=tmp_path / "good", **{**DENSE, "epochs": 2, "log_every": 99})

    def diverge(self: Saving, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.global_step == 4:  # the end of the second epoch, no row of metrics
            with torch.no_grad():
                module.encoder.head[0].weight.fill_(math.nan)

    monkeypatch.setattr(Saving, "on_train_batch_end", diverge)
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"not finite at step 4.*is kept: try a lower optimiser"):
        train(data=videos, out=out, **{**DENSE, "epochs": 2, "log_every": 99})
    assert load_encoder(out).head[0].weight.isfinite().all()
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    monkeypatch.undo()
    train(out=out, resume=True, progress=False)
    assert_identical(everything(out)["encoder"], everything(good)["encoder"])

"""Nothing of a run is lost: checkpoints, full disks, wrong options, signals, corrected data."""

from __future__ import annotations

import io
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_data

from usucl._files import DamagedFileError, check_seal
from usucl.cli import main
from usucl.models import load_encoder
from usucl.training import TrainingConfig, read_config, train
from usucl.training.callbacks.finite import FiniteLoss
from usucl.training.callbacks.saving import Saving
from usucl.training.checkpoint import PARTS, Checkpoints, read_checkpoint

TINY = {
    "backbone": "resnet10",
    "image_size": 32,
    "dim": 8,
    "epochs": 1,
    "sampling.videos": 2,
    "sampling.frames": 2,
    "steps_per_epoch": 1,
    "bank": 8,
    "progress": False,
}
CHECKPOINT = {**dict.fromkeys(PARTS, 0), "weight": torch.arange(6.0)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=6, frames=4)


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; copy it before changing it."""
    torch.set_num_threads(1)
    return train(data=videos, out=tmp_path_factory.mktemp("runs") / "run", **TINY)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def content(folder: Path) -> dict[str, Any]:
    """The bytes of small files, and which version of large ones is there."""
    return {
        path.relative_to(folder).as_posix(): (
            path.read_bytes() if path.stat().st_size < 50_000 else path.stat().st_mtime_ns
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_checkpoint_is_sealed_and_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    Checkpoints().save_checkpoint(CHECKPOINT, path)
    assert check_seal(path)
    read = read_checkpoint(path)
    assert torch.equal(read.pop("weight"), CHECKPOINT["weight"])
    assert read == dict.fromkeys(PARTS, 0)
    assert torch.load(path, weights_only=True).keys() == CHECKPOINT.keys()


def test_nothing_of_a_checkpoint_is_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a temporary folder that is full, on another disk or read-only."""
    monkeypatch.setattr("tempfile.mkstemp", pytest.fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    Checkpoints().save_checkpoint(CHECKPOINT, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_checkpoint_before(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    Checkpoints().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()
    saved = torch.save

    class Failing(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 300:
                raise error
            return super().write(data)

    monkeypatch.setattr(torch, "save", lambda checkpoint, file: saved(checkpoint, Failing()))
    with pytest.raises(type(error)) as raised:
        Checkpoints().save_checkpoint({**CHECKPOINT, "epoch": 1}, path)
    if isinstance(error, OSError):
        assert str(path) in str(raised.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        pickled = next(i for i in archive.infolist() if i.filename.endswith("data.pkl"))
    data[pickled.header_offset + 200] ^= 0x10
    path.write_bytes(data)


def _without(name: str) -> Callable[[Path], None]:
    """As an earlier version, or another program, might have written it."""

    def change(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint[name]
        torch.save(checkpoint, path)

    return change


def _of_another_encoder(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["encoder.head.0.weight"] = torch.zeros(3, 3)
    torch.save(checkpoint, path)


def _code(path: Path) -> None:
    torch.save({**dict.fromkeys(PARTS, 0), "bank": os.system}, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "text": lambda path: path.write_text("checkpoint"),
    "bit": _flipped,
    "code": _code,
    "no dictionary": lambda path: torch.save([1], path),
    "no bank": _without("bank"),
    "no weights": _without("state_dict"),
    "no loops": _without("loops"),
    "other shapes": _of_another_encoder,
}


@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - {"other shapes"}))
def test_a_damaged_checkpoint_is_named_with_what_to_do(
    damage: str, finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "last.ckpt"
    shutil.copy(finished / "checkpoints" / "last.ckpt", path)
    DAMAGES[damage](path)
    with pytest.raises(DamagedFileError, match=r"last\.ckpt is damaged \(.*overwrite=True"):
        read_checkpoint(path, (*PARTS, "bank"))


@pytest.mark.parametrize("damage", ["bit", "no bank", "other shapes"])
def test_resuming_from_a_damaged_checkpoint_changes_nothing(damage: str, run: Path) -> None:
    DAMAGES[damage](run / "checkpoints" / "last.ckpt")
    before = content(run)
    with pytest.raises(DamagedFileError, match=r"last\.ckpt is damaged \(.*overwrite=True"):
        train(out=run, resume=True, progress=False)
    after = content(run)
    assert {name: after.get(name) for name in before} == before
    load_encoder(run)


WRONG = {
    "temperature": 0,
    "soft_nn_temperature": -1,
    "max_similarity": "nan",
    "margin": "nan",
    "intra_k": -1,
    "cross_k": 2**40,
    "intra_skip": -2,
    "lr": -1,
    "optimiser.momentum": "nan",
    "weight_decay": "-.inf",
    "encoder.dim": 10**9,
    "image_size": 10**7,
    "backbone": "resnet11",
    "bank": 10**12,
    "max_age": -1,
    "sampling.frames": 10**9,
    "sampling.videos": 0,
    "positive_radius": -1,
    "cache_gb": -1,
    "num_workers": -1,
    "steps_per_epoch": 0,
    "cross_only": 1.5,
    "windows": "[[0.3, 0.2]]",
    "curriculum.kind": "slow",
    "epochs": 10**12,
    "log_every": 0,
    "seed": -1,
    "precision": "int4",
    "held_out": "[77]",
    "time_unit": "seconds",
    "nonsense": 1,
}


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option_changes_nothing_and_is_named(
    option: str, finished: Path, videos: Path
) -> None:
    before = content(finished)
    with pytest.raises((ValueError, TypeError), match=option.rpartition(".")[2]):
        train(data=videos, out=finished, overwrite=True, **{**TINY, option: WRONG[option]})
    assert content(finished) == before


def test_a_method_that_needs_two_videos_says_so(finished: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path / "one", videos=1, frames=8)
    before = content(finished)
    options = {"backbone": "resnet10", "image_size": 32, "pretrained": False, "progress": False}
    with pytest.raises(ValueError, match="data must hold more videos to train on for method 'pap"):
        train(data=data, out=finished, overwrite=True, preset="paper", held_out=(), **options)
    assert content(finished) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "full")])
def test_an_earlier_run_is_back_if_the_new_one_fails_before_its_first_checkpoint(
    error: Any, run: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(run)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Saving, "on_train_epoch_end", fail)
    with pytest.raises((KeyboardInterrupt, RuntimeError, OSError)):
        train(data=videos, out=run, overwrite=True, seed=1, **TINY)
    assert content(run) == before


def test_a_full_disk_names_the_run(
    run: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system's error has no name, as from an open file."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usucl.training.callbacks.monitor.MetricsTable.append", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*run'"):
        train(data=videos, out=run, overwrite=True, **TINY)


def test_sigterm_in_a_program_exits_with_143(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(FiniteLoss, "on_train_batch_end", _sigterm)
    with pytest.raises(SystemExit) as stop:
        train(data=videos, out=tmp_path / "run", **{**TINY, "epochs": 3})
    assert stop.value.code == 143
    assert capsys.readouterr().err.splitlines()[-1] == "usucl: terminated (SIGTERM)"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    load_encoder(tmp_path / "run")


def test_sigterm_of_the_command_is_said_and_the_run_goes_on(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    sets = [f"{name}={value}" for name, value in TINY.items() if name != "progress"]
    words = ["train", str(videos), "--out", str(tmp_path / "run"), "--no-progress"]
    with monkeypatch.context() as patch:
        patch.setattr(FiniteLoss, "on_train_batch_end", _sigterm)
        assert main([*words, "--set", *sets, "epochs=2"]) == 143
    said = capsys.readouterr().err
    assert "usucl: error: terminated (SIGTERM): " in said
    assert f"to go on: usucl train {videos} --out {tmp_path / 'run'} --resume" in said
    assert main([*words, "--resume"]) == 0
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2


def _sigterm(self: FiniteLoss, trainer: Any, *_: Any) -> None:
    if trainer.global_step == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def test_corrected_labels_and_patients_do_not_forbid_resuming(
    run: Path, videos: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    table = (data / "labels.csv").read_text()
    corrected = table.replace("video_1,across", "video_1,along").replace("patient_1", "patient_9")
    (data / "labels.csv").write_text(corrected)
    before = [line.split(",")[::3] for line in (run / "split.csv").read_text().splitlines()]
    train(data=data, out=run, resume=True, progress=False)
    after = (run / "split.csv").read_text()
    assert "patient_9" in after and "video_1,patient_0,along" in after
    assert [line.split(",")[::3] for line in after.splitlines()] == before


def test_other_frames_forbid_resuming(run: Path, videos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    row = next(line for line in (run / "split.csv").read_text().splitlines() if "train" in line)
    (data / row.split(",")[0] / "3.png").unlink()
    before = content(run)
    with pytest.raises(ValueError, match=r"such as video_\d \(4 then, 3 now\)"):
        train(data=data, out=run, resume=True, progress=False)
    assert content(run) == before


@pytest.mark.parametrize("preset", ["dense", "paper", "paper-code"])
def test_every_option_can_be_set(
    preset: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by itself to the value that it has, as ``--print-config`` shows it."""
    words = ["train", str(videos), "--out", str(tmp_path / "run"), "--preset", preset]
    assert main([*words, "--print-config"]) == 0
    printed = capsys.readouterr().out
    config = read_config(preset, {"data": str(videos)})
    (tmp_path / "printed.yaml").write_text(printed)
    assert read_config(tmp_path / "printed.yaml", {}) == config
    options = _options(config)
    assert len(options) > 30
    assert main([*words, "--print-config", "--set", *options]) == 0
    assert capsys.readouterr().out == printed


def _options(config: TrainingConfig) -> list[str]:
    from dataclasses import asdict

    sets = []
    for name, value in asdict(config).items():
        for option, inner in value.items() if isinstance(value, dict) else [(None, value)]:
            text = "null" if inner is None else str(inner).replace("(", "[").replace(")", "]")
            sets.append(f"{name}={text}" if option is None else f"{name}.{option}={text}")
    return [text.replace(",]", "]") for text in sets]


@pytest.mark.parametrize("change", ["seed=1", "held_out=[1]", "held_out=[]"])
def test_options_with_a_flag_of_their_own_can_be_set(
    change: str,
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("usucl.training.fitting._fit", lambda *_: None)
    words = ["train", str(videos), "--out", str(tmp_path / "run"), "--set"]
    small = [f"{name}={value}" for name, value in TINY.items() if name not in ("progress",)]
    assert main([*words, *small, change]) == 0
    name, value = change.split("=")
    stored = read_config(tmp_path / "run" / "config.yaml", {})
    assert getattr(stored, name) == getattr(read_config("dense", {name: value}), name)
    if name in ("seed", "held_out"):
        assert main([*words, change, f"--{name.replace('_', '-')}", "0"]) == 2
        assert "got both" in capsys.readouterr().err
    assert main([*words, "data=/elsewhere"]) == 2

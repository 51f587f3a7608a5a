"""The presets that come with the package, and those of a user."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from usucl.cli import main
from usucl.data.sampling.curriculum import Schedule
from usucl.methods import METHODS
from usucl.run_folder import MARK
from usucl.training import TrainingConfig, presets, read_config
from usucl.training.explained import explained

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "own.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_presets_hold_the_paper(tmp_path: Path) -> None:
    assert {"dense", "paper", "paper-code"} <= set(presets())
    paper = read_config("paper", {})
    assert (paper.loss.intra_k, paper.loss.cross_k) == (3, 4)
    assert paper.loss.temperature == paper.loss.soft_nn_temperature == 0.07
    assert (paper.optimiser.kind, paper.optimiser.lr, paper.optimiser.momentum) == (
        "sgd",
        3e-3,
        0.9,
    )
    assert (paper.epochs, paper.sampling.videos, paper.key.momentum) == (60, 32, 0.999)
    assert not paper.curriculum.intra(9) and paper.curriculum.intra(10)
    assert paper.curriculum.window(10) == (0.2, 0.4)
    assert read_config("paper-code", {}).curriculum.kind == "paper-code"
    own = tmp_path / "own.yaml"
    own.write_text("method: paper\noptimiser: {lr: 1e-2}\n")
    assert read_config(own, {"optimiser.momentum": 0.5}).optimiser.lr == 0.01
    round_trip = tmp_path / "round.yaml"
    round_trip.write_text(paper.to_yaml())
    assert read_config(round_trip, {}) == paper


@pytest.mark.parametrize(
    ("text", "preset"),
    [
        ("{}", "dense"),
        ("epochs: 4", "dense"),
        ("preset: paper", "paper"),
        ("preset: paper\nencoder: {dim: 64}", "paper"),
        ("method: paper-code\nlr: 0.5", "paper-code"),
        ("loss.cross_k: 5\nloss: {intra_k: 2}\nframes: 3", "dense"),
    ],
)
def test_a_file_is_its_preset_and_its_changes(text: str, preset: str, write: Write) -> None:
    changes = {
        "{}": {},
        "epochs: 4": {"epochs": 4},
        "preset: paper": {},
        "preset: paper\nencoder: {dim: 64}": {"dim": 64},
        "method: paper-code\nlr: 0.5": {"lr": 0.5},
        "loss.cross_k: 5\nloss: {intra_k: 2}\nframes: 3": {
            "cross_k": 5,
            "loss.intra_k": 2,
            "frames": 3,
        },
    }[text]
    assert read_config(write(text), {}) == read_config(preset, changes)


def test_a_preset_may_be_another_file(write: Write) -> None:
    write("preset: paper\nlr: 0.5\nepochs: 7", "base.yaml")
    config = read_config(write("preset: base.yaml\nepochs: 9"), {"dim": 16})
    assert config == read_config("paper", {"lr": 0.5, "epochs": 9, "dim": 16})
    own = write("preset: own.yaml")
    with pytest.raises(ValueError, match="preset must not lead back to itself, got"):
        read_config(own, {})


@pytest.mark.parametrize("preset", presets())
def test_a_whole_config_is_read_as_it_is(preset: str, write: Write) -> None:
    whole = read_config(preset, {"epochs": 7, "image_size": 33, "seed": 2})
    assert read_config(write(whole.to_yaml()), {}) == whole
    assert read_config(write(MARK + whole.to_yaml()), {}) == whole


def test_the_config_of_an_earlier_version_keeps_the_defaults_of_that_time(write: Write) -> None:
    whole = MARK + TrainingConfig().to_yaml()
    lines = [line for line in whole.splitlines() if "head:" not in line and "damaged" not in line]
    assert read_config(write("\n".join(lines)), {}) == TrainingConfig()  # not dense's mlp-bn


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 4", "own.yaml: epoch is no option .* did you mean epochs?"),
        ("loss: {cros_k: 4}", "own.yaml: loss.cros_k is no option .*did you mean loss.cross_k"),
        ("preset: papr", "own.yaml: preset must be one of .*got 'papr'; did you mean paper"),
        ("preset: [dense]", "own.yaml: preset must be a name or a file"),
        ("momentum: 0.5", "own.yaml: momentum is ambiguous"),
        ("lr: 1\noptimiser: {lr: 2}", "own.yaml: optimiser.lr is given twice"),
        ("epochs: many", "own.yaml: epochs must be an integer, got 'many'"),
        ("precision: half", "own.yaml: precision must be one of 32-true, bf16-mixed, 16-mixed"),
        ("image_size: 3", "own.yaml: encoder.image_size must be >= 32"),
        ("image_size: 64px", "own.yaml: encoder.image_size must be an integer, got '64px'"),
        ("cache_gb: 4 GB", "own.yaml: sampling.cache_gb must be a number, got '4 GB'"),
        ("pretrained: maybe", "own.yaml: encoder.pretrained must be true or false, got 'maybe'"),
        ("held_out: 1", "own.yaml: held_out must be a list of integers or null, got 1"),
        ("starts: 0.5", "own.yaml: curriculum.starts must be a list of numbers, got 0.5"),
        ("head: mlpbn", "own.yaml: encoder.head must be .*got 'mlpbn'; did you mean mlp-bn"),
        ("method: papr", "own.yaml: method must be one of .*got 'papr'; did you mean paper"),
        ("learning_rate: 1", "own.yaml: learning_rate is no .*did you mean optimiser.lr?"),
        ("optimizer: {lr: 1}", "own.yaml: optimizer is no .*did you mean optimiser?"),
        ("optimizer.lr: 1", "own.yaml: optimizer.lr is no .*did you mean optimiser.lr?"),
    ],
)
def test_a_wrong_name_or_value_is_said_with_its_file(text: str, said: str, write: Write) -> None:
    with pytest.raises(ValueError, match=said):
        read_config(write(text), {})


NUMBERS = {
    "epochs": (0, -1),
    "log_every": (0,),
    "seed": (-1,),
    "encoder.image_size": (31, -64),
    "encoder.dim": (0,),
    "sampling.videos": (0,),
    "sampling.frames": (0,),
    "sampling.positive_radius": (-1,),
    "sampling.steps_per_epoch": (0, -5),
    "sampling.cache_gb": (-1, ".nan", ".inf"),
    "sampling.num_workers": (-1, 10**6),
    "curriculum.cross_only": (-0.1, 1.1, ".nan"),
    "curriculum.windows": ("[[0.3,0.2]]", "[[-1,2]]", "[]"),
    "loss.intra_k": (-1,),
    "loss.cross_k": (-1,),
    "loss.intra_skip": (-1,),
    "loss.cross_skip": (-1,),
    "loss.temperature": (0, -1, ".nan", ".inf"),
    "loss.soft_nn_temperature": (0, ".nan"),
    "loss.max_similarity": (".nan",),
    "loss.margin": (".nan",),
    "key.bank": (-1,),
    "key.max_age": (-1,),
    "key.nprobe": (0,),
    "key.ef_search": (-3,),
    "key.rebuild_after": (0,),
    "optimiser.lr": (-1, ".nan", ".inf"),
    "optimiser.momentum": (-0.1, 1.1),
    "optimiser.weight_decay": (-1, ".nan"),
    "extended": ("[0]", "[50]", "[9,9]"),
}


@pytest.mark.parametrize("option", NUMBERS)
def test_every_number_has_a_range_and_is_named(option: str) -> None:
    for value in NUMBERS[option]:
        with pytest.raises(ValueError, match=f"^{option} must be"):
            read_config("dense", {option: value})
    for option, value in (("sampling.negatives", -1), ("key.momentum", 1.5)):
        with pytest.raises(ValueError, match=f"^{option} must be"):
            read_config("paper", {option: value})


def test_windows_are_in_the_unit_of_the_times(write: Write) -> None:
    seconds: dict[str, Any] = {"time_unit": "seconds", "windows": "[[1,2]]"}
    assert read_config("dense", seconds).curriculum.windows == ((1.0, 2.0),)
    own = write("time_unit: seconds\nwindows: [[1, 2]]")
    assert read_config(own, {"time_unit": "seconds"}) == read_config("dense", seconds)
    alone = write("time_unit: frames", "alone.yaml")
    for source, changes in (
        ("dense", {"time_unit": "seconds"}),
        (alone, {}),
        (own, {"time_unit": "frames"}),
        (own, {"time_unit": "fraction"}),
    ):
        with pytest.raises(ValueError, match=r"^curriculum\.windows must be given too where"):
            read_config(source, changes)


def test_print_config_shows_the_result(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    own = write("preset: paper\nlr: 0.5")
    words = ["train", "videos", "--out", "run", "--preset", str(own), "--print-config"]
    assert main([*words, "--set", "epochs=3"]) == 0
    data = str(Path("videos").absolute())
    expected = read_config("paper", {"lr": 0.5, "epochs": 3, "data": data})
    shown = write(capsys.readouterr().out, "shown.yaml")
    assert read_config(shown, {}) == expected
    assert "# Learning rate at the start." in shown.read_text()


@pytest.mark.parametrize("preset", presets())
def test_every_option_is_explained(preset: str) -> None:
    lines = explained(preset, {}).splitlines()
    options = [n for n, line in enumerate(lines) if re.match(r" *\w+:", line)]
    assert all(lines[n - 1].lstrip().startswith("# ") for n in options)
    names = {lines[n].split(":")[0].strip() for n in options}
    config = read_config(preset, {})
    for name, value in vars(config).items():
        assert {name, *(vars(value) if is_dataclass(value) else ())} <= names | {"epochs"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: null", "epochs must be an integer, got null"),
        ("encoder: {dim: null}", "encoder.dim must be an integer, got null"),
        ("curriculum: {windows: null}", "curriculum.windows must be a list of pairs"),
        ("method: pa", "method must be one of"),
        ("preset: paper\ncurriculum: {windows: [[0.2, 0.4]]}", "curriculum.starts must be"),
    ],
)
def test_an_error_names_the_file_that_changes_a_preset(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{file}: {said}")):
        read_config(file, {})


@pytest.mark.parametrize("preset", ["dense", "paper", "paper-code"])
@pytest.mark.parametrize("kind", get_args(Schedule))
def test_every_preset_takes_every_kind_of_curriculum(preset: str, kind: str) -> None:
    curriculum = read_config(preset, {"data": "x", "curriculum.kind": kind}).curriculum
    assert curriculum.kind == kind and curriculum.window(0) == curriculum.windows[0]


@pytest.mark.parametrize("preset", presets())
def test_a_preset_is_a_file_with_a_reason_for_its_values(preset: str) -> None:
    text = METHODS[preset].preset
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0].startswith("# ") and not any("{" in line for line in lines)
    comments = sum("#" in line for line in lines)
    assert comments >= len(lines) / 4


def test_what_runs_of_earlier_versions_did_not_use_stays_unused(tmp_path: Path) -> None:
    whole = read_config("dense", {"bank": 8, "key.momentum": 0.9}).to_yaml()
    file = tmp_path / "config.yaml"
    file.write_text(MARK + whole)
    assert read_config(file, {}).key.momentum == 0.9
    earlier = re.sub("(?m)^computing:\n(  .*\n)+", "", whole)
    assert earlier != whole
    file.write_text(MARK + earlier)
    assert read_config(file, {}).key.momentum is None

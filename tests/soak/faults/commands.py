"""The commands that are disturbed: their words, and what a user types to go on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Words = list[str]

# The smallest backbone there is; as in tests/helpers/runs.py, which takes seconds to import.
BACKBONE = "timm:test_resnet" if importlib.util.find_spec("timm") else "resnet10"

_TRAIN = (
    *("--set", "epochs=2", "steps_per_epoch=2", "sampling.videos=2", "sampling.frames=3", "dim=8"),
    *("bank=16", "image_size=32", "log_every=1", "cross_only=0", "saving.checkpoint_every=1"),
    f"encoder.backbone={BACKBONE}",
)
_FINETUNE = (
    *("--set", "epochs=1", "folds=2", "frames_per_video=2", "test_frames_per_video=2"),
    *("resamples=20", "num_workers=0"),
)
_COMPARE = (
    *("--arms", "random", "simclr", "both", "--processes", "1", "--set", "steps=2", "epochs=1"),
    *("frames=4", "videos=2", "image_size=32", "folds=2", "probe_frames=3", "shares=1", "dim=8"),
    *("retrieval=false", "resamples=20", f"backbone={BACKBONE}"),
)
_EVALUATE = (
    "--resamples",
    "20",
    "--frames-per-video",
    "3",
    "--queries-per-video",
    "2",
    "--no-report",
)


@dataclass(frozen=True)
class Folders:
    """Where a command reads and writes.

    Attributes:
        data: the videos.
        run: a trained run, which no command changes.
        out: what the command writes.
    """

    data: Path
    run: Path
    out: Path


@dataclass(frozen=True)
class Disturbed:
    """A command that is to be disturbed, once as it starts anew and once over something earlier.

    Attributes:
        words: what is typed.
        on: what is typed to go on after it was disturbed.
        before: what makes the folder that it writes to; None if that is new.
        either: whether the earlier result, being whole, may be what going on leads to.
        in_run: whether the folder that it writes to is a run, of which ``out`` is a copy.
        reads_run: whether it needs a trained run.
    """

    words: Callable[[Folders], Words]
    on: Callable[[Folders], Words]
    before: Callable[[Folders], Words] | None = None
    either: bool = False
    in_run: bool = False
    reads_run: bool = True


def train(f: Folders) -> Words:
    """The words of a training, also that of the run that others read."""
    return ["train", str(f.data), "--out", str(f.out), *_TRAIN]


def _finetune(f: Folders) -> Words:
    return ["finetune", str(f.run), str(f.data), "--out", str(f.out), "--no-report", *_FINETUNE]


def _compare(f: Folders, seeds: int = 1) -> Words:
    return [
        "compare",
        str(f.data),
        "--out",
        str(f.out),
        "--seeds",
        str(seeds),
        "--no-report",
        *_COMPARE,
    ]


def _bank(f: Folders) -> Words:
    return ["bank", "build", str(f.run), str(f.data), "--out", str(f.out)]


def _convert(f: Folders, to: str) -> Words:
    words = ["data", "convert", str(f.data), "--out", str(f.out), "--to", to, "--jobs", "1"]
    return [*words, "--crop", "sector"] if to == "frames" else words


def _embed(f: Folders, suffix: str = "safetensors") -> Words:
    return ["embed", str(f.run), str(f.data), "--out", str(f.out), "--format", suffix]


def _evaluate(f: Folders, seed: int = 0) -> Words:
    return ["evaluate", str(f.out), str(f.data), "--seed", str(seed), *_EVALUATE]


def _report(f: Folders) -> Words:
    return ["report", str(f.out)]


def _over(words: Callable[[Folders], Words]) -> Callable[[Folders], Words]:
    return lambda f: [*words(f), "--overwrite"]


def _to_frames(f: Folders) -> Words:
    return _convert(f, "frames")


def _to_store(f: Folders) -> Words:
    return _convert(f, "store")


def _with_two_seeds(f: Folders) -> Words:
    return _compare(f, 2)


COMMANDS: dict[str, Disturbed] = {
    "train": Disturbed(train, lambda f: [*train(f), "--resume"], reads_run=False),
    "train --overwrite": Disturbed(
        _over(train),
        lambda f: ["train", str(f.data), "--out", str(f.out), "--resume"],
        lambda f: [*train(f), "seed=1"],
        either=True,
        reads_run=False,
    ),
    "finetune": Disturbed(_finetune, lambda f: [*_finetune(f), "--resume"]),
    "finetune --overwrite": Disturbed(
        _over(_finetune),
        lambda f: ["finetune", "--no-report", "--out", str(f.out), "--resume"],
        lambda f: [*_finetune(f), "--seed", "1"],
        either=True,
    ),
    "compare": Disturbed(_compare, _compare, reads_run=False),
    "compare, one seed more": Disturbed(
        _with_two_seeds, _with_two_seeds, _compare, reads_run=False
    ),
    "bank build": Disturbed(_bank, _bank),
    "bank build --overwrite": Disturbed(
        _over(_bank), _over(_bank), lambda f: [*_bank(f), "--frames-per-video", "2"]
    ),
    "convert to frames": Disturbed(_to_frames, _to_frames, reads_run=False),
    "convert to a store": Disturbed(_to_store, _to_store, reads_run=False),
    "embed": Disturbed(_embed, _over(_embed)),
    "embed --overwrite": Disturbed(
        _over(_embed), _over(_embed), lambda f: [*_embed(f, "npz"), "--frames-per-video", "2"]
    ),
    "evaluate": Disturbed(_evaluate, _evaluate, lambda f: _evaluate(f, 1), in_run=True),
    "report": Disturbed(_report, _report, lambda f: _evaluate(f, 1), in_run=True),
}

"""Whether and how a run goes on: from its own checkpoint, with its own options and videos."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from usucl._files import DamagedFileError, is_empty, read_tensors
from usucl._terminal import say
from usucl.data import VideoCatalog
from usucl.run_folder import RunFolder, different_videos
from usucl.training.checkpoint import ADVICE, PARTS, read_checkpoint
from usucl.training.config import TrainingConfig
from usucl.training.module import NUM_FRAMES, RUN
from usucl.training.presets import read_config


def new_id() -> str:
    """Returns an identity for a run."""
    return uuid.uuid4().hex


CHANGEABLE = ("running", "saving", "watching", "computing")
"""Sections that may change when a run is resumed: none changes the encoder but by rounding."""


class Position(NamedTuple):
    """How far a run is: finished epochs, batches of the next, and steps of the optimiser in all."""

    epochs: int
    batches: int | None  # None between two epochs
    steps: int


def is_there(run: RunFolder) -> bool:
    """Returns whether there is a run to go on with; where nothing is, a new one starts.

    Raises:
        FileNotFoundError: there is something else.
    """
    if run.is_run:
        return True
    if run.path.exists() and not (run.path.is_dir() and is_empty(run.path)):
        raise FileNotFoundError(f"nothing to resume: {run.path} is not empty and holds no run")
    say(f"{run.path} holds no run yet: a new one starts", stderr=True)
    return False


def continued(run: RunFolder, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Returns the config of a run that goes on, of which only some options may have changed.

    These are those of the sections in ``CHANGEABLE``, and the epochs, which may have become more.

    Raises:
        ValueError: an override has another value than the run.
        FileNotFoundError: there is nothing to resume.
    """
    if not (run.is_unfinished or run.checkpoint.is_file()):
        raise FileNotFoundError(
            f"nothing to resume: {run.checkpoint} is missing; put it back, or start without resume"
        )
    config = stored = read_config(run.config, {})
    accepted: dict[str, Any] = {}
    for name, value in overrides.items():
        if name == "epochs":
            epochs = read_config(run.config, {name: value, "extended": []}).epochs
            if epochs < stored.epochs:
                raise ValueError(
                    f"epochs cannot change to fewer when a run is resumed, got {epochs} after "
                    f"{stored.epochs}: leave it out, or start another run"
                )
            if epochs > stored.epochs:
                ends = stored.extended if run.is_unfinished else stored.ends
                config = replace(config, epochs=epochs, extended=ends)
            continue
        changed = absolute(read_config(run.config, {**accepted, name: value}))
        sections = {name: getattr(changed, name) for name in CHANGEABLE}
        if replace(stored, **sections) != changed:
            raise ValueError(
                f"{name} cannot change when a run is resumed, got {value}: leave it out, or start "
                f"another run (only options of {', '.join(sections)} can, and epochs to more)"
            )
        accepted[name] = value
        config = replace(config, **sections)
    return config


def absolute(config: TrainingConfig) -> TrainingConfig:
    """Returns a config in which the path of the first weights is absolute, as runs store it."""
    weights = config.encoder.weights
    if weights is None:
        return config
    own = replace(config.encoder, weights=str(Path(weights).absolute()))
    return replace(config, encoder=own)


def is_finished(run: RunFolder, config: TrainingConfig) -> bool:
    """Returns whether the checkpoint is that of the last epoch of the run.

    Raises:
        ValueError: it is of another run.
        DamagedFileError: it was changed or cut, or does not fit the encoder of the run.
    """
    checkpoint = _own_checkpoint(run, config)
    if _position(run, checkpoint).epochs < config.epochs:
        return False
    for name, value in read_tensors(run.encoder_weights)[0].items():
        other = checkpoint["state_dict"].get(f"encoder.{name}")
        if other is None or other.shape != value.shape:
            reason = f"it does not fit the run: encoder.{name} has another shape or is missing"
            raise DamagedFileError(run.checkpoint, reason, ADVICE)
    return True


def check_checkpoint(run: RunFolder, config: TrainingConfig, training: VideoCatalog) -> Position:
    """Returns how far the run is.

    Raises:
        ValueError: the run cannot go on from its checkpoint with these videos.
        DamagedFileError: the checkpoint was changed or cut.
    """
    checkpoint = _own_checkpoint(run, config)
    then = checkpoint.get(NUM_FRAMES, {})  # checkpoints of earlier versions do not have it
    now = {entry.id: entry.num_frames for entry in training}
    changed = [
        f"{name} ({then[name]} then, {now[name]} now)"
        for name in now
        if then.get(name, now[name]) != now[name]
    ]
    different_videos(run.path, with_another_number_of_frames=changed)
    return _position(run, checkpoint)


def _position(run: RunFolder, checkpoint: dict[str, Any]) -> Position:
    try:
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batch = (loops[f"{n}_progress"]["current"] for n in ("epoch", "epoch_loop.batch"))
        within = int(epoch["processed"]) < int(epoch["ready"])
        batches = int(batch["processed"]) if within else None
        return Position(int(epoch["processed"]), batches, int(checkpoint["global_step"]))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it does not fit the run: {type(error).__name__} in its loops"
        raise DamagedFileError(run.checkpoint, reason, ADVICE) from error


def _own_checkpoint(run: RunFolder, config: TrainingConfig) -> dict[str, Any]:
    """Reads the checkpoint; raises ValueError if it has another identity than the run.

    Runs of earlier versions have none, and their checkpoints neither, whoever resumes them.
    """
    checkpoint = read_checkpoint(run.checkpoint, (*PARTS, "bank") if config.key.bank else PARTS)
    other = checkpoint.get(RUN) or {}
    if other.get("id") != run.id:
        whose = f"the run in {other['folder']}" if "folder" in other else "a run without identity"
        raise ValueError(
            f"{run.checkpoint} must be a checkpoint of this run, got that of {whose}: put this "
            "run's own back, or start again with overwrite=True"
        )
    return checkpoint

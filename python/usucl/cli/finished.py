"""What a command says in the end: where its results are, and what may be done with them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from usucl._files import DamagedFileError, read_json
from usucl.run_folder import RunFolder


def of_training(out: Path) -> Iterator[str]:
    """Yields lines on a run that has been trained."""
    run = RunFolder(out)
    yield f"Run: {out}"
    for what, paths in (
        ("encoder", (run.encoder_weights, run.encoder_config)),
        ("backbone alone", (run.backbone_weights,)),
        ("before training", (run.initial,)),
        ("metrics", (run.metrics, run.hardness, run.probe, run.tensorboard, run.loggers)),
        ("pictures", (run.negatives,)),
        ("videos", (run.split, run.skipped, run.guard)),
        ("options", (run.config,)),
    ):
        if names := [path.name for path in paths if path.exists()]:
            yield f"  {what + ':':<17}{', '.join(names)}"


def next_steps(out: Path, data: Path) -> Iterator[str]:
    """Yields what may be done with a run; commands are ready to be pasted."""
    yield "Next:"
    yield f"  {command('evaluate', out, data)}"
    bank = out.with_name(out.name + "-bank")
    yield f"  {command('bank build', out, data, '--out', bank)}"
    epochs = 2 * int(_facts(RunFolder(out)).get("epochs_done") or 0) or "NUMBER"
    longer = command("train", data, "--out", out, "--resume", "--set", f"epochs={epochs}")
    yield f"  {longer}  # trains on"
    yield f"  {command('export', out)}  # for torchvision, timm, ONNX"
    yield "In Python, after 'import usucl':"
    yield f"  encoder = usucl.load_encoder({str(out)!r})"
    yield "  features = encoder.features(encoder.preprocess('frame.png'))"


def what_is_kept(out: Path) -> str:
    """Returns what a run that has ended early holds, in words."""
    facts = _facts(RunFolder(out))
    epochs, steps = facts.get("epochs_done"), facts.get("steps_done")
    saved = f"a checkpoint of step {steps}" if steps else "a checkpoint"
    if epochs == 0:
        return f"{saved} and, until the first epoch is finished, the encoder before training"
    return f"{saved} and the encoder of {f'epoch {epochs}' if epochs else 'its last epoch'}"


def command(name: str, *words: object) -> str:
    """Returns a command as it is typed into a shell."""
    return " ".join(["usucl", name, *(shlex.quote(str(word)) for word in words)])


def _facts(run: RunFolder) -> dict[str, Any]:
    try:
        return read_json(run.facts)
    except (FileNotFoundError, DamagedFileError):  # an earlier version's run has none
        return {}

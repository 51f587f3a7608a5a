"""The package's functions as commands: demo, train, embed, evaluate, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from usucl.cli import finished
from usucl.cli.console import say, table

if TYPE_CHECKING:
    from usucl.evaluation import Evaluation
    from usucl.evaluation.bootstrap import Estimate


def demo(*, data: Path | None = None, out: Path = Path("runs/demo"), minutes: float = 6.0) -> None:
    """Train a small encoder, evaluate it and write a report, in minutes.

    Without data, synthetic ultrasound videos are made first. Nothing is overwritten: if the folder
    exists, demo-2, demo-3, ... is used.

    Args:
        data: folder of ultrasound videos.
        out: run folder.
        minutes: time for everything on this machine, about 60 % of it for training.
    """
    from usucl.demo import run_demo

    report, evaluation = run_demo(data=data, out=out, minutes=minutes)
    _show(evaluation)
    say(f"Report: {report}")


def train(
    data: Path,
    *,
    out: Path,
    preset: str = "dense",
    set_: Sequence[str] = (),
    held_out: Sequence[int] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    print_config: bool = False,
    no_progress: bool = False,
) -> None:
    """Pretrain an encoder on a folder of ultrasound videos.

    Ctrl-C leaves a usable encoder; the same command with --resume continues the run.

    Args:
        data: folder of videos: folders of frames and video files, mixed and nested.
        out: run folder.
        preset: dense, paper, paper-code, or a YAML file such as a run's config.yaml.
        set_: changes to the preset, such as epochs=20 loss.cross_k=64 encoder.backbone=resnet50.
        held_out: folds of patients that are not trained on; without a number, none are held out. By
            default those of the preset, or the smallest fold if it gives none.
        seed: seed of the first weights, the folds and every random draw; by default the preset's.
        overwrite: replace an earlier run in the run folder.
        resume: continue the run in the run folder, with the configuration it was started with.
        print_config: print the configuration that would be used, with every option, and stop.
        no_progress: show no progress bar.
    """
    from usucl import training

    folds = None if held_out is None else list(held_out)
    given: dict[str, Any] = {"data": data, "held_out": folds, "seed": seed}
    flags = {name: value for name, value in given.items() if value is not None}
    changes = dict(_change(text) for text in set_)
    if twice := [name for name in ("held_out", "seed") if name in flags and name in changes]:
        raise ValueError(f"{twice[0]} must be given by --set or by its own option, got both")
    if changes.get("data", str(data)) not in (str(data), str(data.absolute())):
        raise ValueError(f"--set data must be {data}, the folder given, got {changes['data']}")
    options: dict[str, Any] = changes | flags
    if print_config:
        options["data"] = str(data.absolute())
        for line in training.read_config(preset, options).to_yaml().splitlines():
            say(line)
        return
    out = training.train(
        out=out,
        preset=preset,
        overwrite=overwrite,
        resume=resume,
        progress=not no_progress,
        **options,
    )
    for line in finished.of_training(out, data):
        say(line)


def embed(
    run: Path,
    data: Path,
    *,
    out: Path | None = None,
    encoder: Literal["trained", "random", "pixels"] = "trained",
    frames_per_video: int | None = None,
    batch_size: int = 64,
    format: Literal["safetensors", "npz", "csv"] = "safetensors",
    overwrite: bool = False,
) -> None:
    """Write the embeddings of a folder's frames.

    Args:
        run: run folder.
        data: folder of videos.
        out: folder for the files; embedded/ of the run by default.
        encoder: the trained encoder, its random initialisation, or raw pixels.
        frames_per_video: greatest number of frames per video, evenly spaced; all by default.
        batch_size: frames encoded at once.
        format: <encoder>.safetensors with the numbers and <encoder>.csv with one row per frame;
            <encoder>.npz with NumPy's arrays; or <encoder>.csv with rows and numbers.
        overwrite: replace what an earlier call wrote there.
    """
    from usucl import evaluation
    from usucl.run_folder import RunFolder

    result = evaluation.embed(
        run=run,
        data=data,
        out=out,
        encoder=encoder,
        frames_per_video=frames_per_video,
        batch_size=batch_size,
        format=format,
        overwrite=overwrite,
    )
    videos, dim = len(result.video_id), result.embedding.shape[1]
    say(f"{len(result)} frames of {videos} videos, {dim} numbers each")
    say(f"Embeddings: {out or RunFolder(run).embedded}")


def evaluate(
    run: Path,
    data: Path,
    *,
    out: Path | None = None,
    frames_per_video: int = 20,
    queries_per_video: int = 10,
    resamples: int = 2000,
    folds: int = 5,
    seed: int = 0,
    no_report: bool = False,
) -> None:
    """Measure the trained encoder against its random initialisation and raw pixels.

    Intervals are 95 %, by bootstrap over patients. The report of the run is written again.

    Args:
        run: run folder.
        data: folder of videos, with labels.csv for the probes.
        out: folder for evaluation.json and embeddings/; the run folder by default.
        frames_per_video: greatest number of frames per video, evenly spaced.
        queries_per_video: augmented queries per held-out video, for temporal retrieval.
        resamples: bootstrap resamples of the patients.
        folds: folds of the cross-validation, by patient, unless labels.csv gives them.
        seed: seed of augmentations, folds and resamples.
        no_report: write only evaluation.json.
    """
    from usucl import evaluation
    from usucl.run_folder import RunFolder

    result = evaluation.evaluate(
        run=run,
        data=data,
        out=out,
        frames_per_video=frames_per_video,
        queries_per_video=queries_per_video,
        resamples=resamples,
        folds=folds,
        seed=seed,
    )
    _show(result)
    say(f"Evaluation: {RunFolder(out or run).evaluation}")
    if not no_report and out is None:
        from usucl.report import write_report

        say(f"Report: {write_report(run)}")


def report(run: Path, *, evaluation: Path | None = None) -> None:
    """Write the report of a run again, from what lies in its folder; nothing is measured.

    Args:
        run: run folder.
        evaluation: folder of an evaluation of the run, such as one on other data: the report goes
            there. By default the run folder.
    """
    from usucl.report import write_report

    say(f"Report: {write_report(run, evaluation=evaluation)}")


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--set must be NAME=VALUE, got {text!r}")
    return name, value


def _show(evaluation: Evaluation) -> None:
    from usucl.evaluation.embed import ENCODERS
    from usucl.report.results import probe_rows, retrieval_rows

    rows = []
    for unit, figures in (
        ("AUROC", retrieval_rows(evaluation)),
        ("balanced accuracy", probe_rows(evaluation)),
    ):
        for row in figures:
            estimates = [row.estimates[name] for name in (*ENCODERS, "trained - random")]
            cells = [_estimate(e, "+.2f" if e is estimates[-1] else ".2f") for e in estimates]
            rows.append((" ".join(row.name.split()), unit, *cells))
    title = f"Measured on {evaluation.protocol.measured_on}, with 95 % intervals over patients"
    table(["", "figure", *ENCODERS, "trained - random"], rows, title=title)


def _estimate(estimate: Estimate, form: str) -> str:
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None else f" [{estimate.low:{form}}, {estimate.high:{form}}]"
    return f"{estimate.value:{form}}{interval}"

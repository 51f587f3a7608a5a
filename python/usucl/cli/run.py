"""The package's functions as commands: demo, train, embed, evaluate, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from usucl._progress import job
from usucl.cli.console import hint, say
from usucl.cli.errors import keeping
from usucl.cli.evaluation import show
from usucl.cli.parameters import (
    Change,
    Count,
    Data,
    Evaluated,
    Label,
    Metavar,
    NewFile,
    NewFolder,
    Pattern,
    Run,
    Seed,
    Sweep,
    at_least,
    positive,
    rules,
)


def demo(
    *,
    data: Data | None = None,
    patient_pattern: Pattern | None = None,
    label: Label = "label",
    sweep: Sweep | None = None,
    out: NewFolder = Path("runs/demo"),
    minutes: Annotated[float, positive] = 6.0,
) -> None:
    """Train a small encoder, evaluate it and write a report, in minutes.

    Without data, synthetic ultrasound videos are made first. Nothing is overwritten: if the folder
    exists, demo-2, demo-3, ... is used.

    Args:
        data: folder of ultrasound videos (default: synthetic ones, made beside the run).
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder; usucl data check shows whom it finds
            (default: patients as in labels.csv).
        label: column of labels.csv and frame_labels.csv that holds the labels.
        sweep: regular expression with groups, ( ), around everything in which the clips of one
            examination agree, such as "patient_([0-9]+)_([LR])"; they are then one video. none
            leaves every clip a video (default: sweeps as in sweeps.csv, if there is one).
        out: run folder.
        minutes: time for everything on this machine, about 60 % of it for training.
    """
    from usucl.demo import run_demo

    report, evaluation = run_demo(
        data=data,
        out=out,
        minutes=minutes,
        patient_pattern=patient_pattern,
        label=label,
        sweep=sweep,
    )
    show(evaluation)
    say(f"Report: {report}")


@rules(
    needed=("data", "out"),
    unless={"print_config": ("data", "out"), "dry_run": ("out",)},
    not_both=("resume", "overwrite"),
)
def train(
    data: Data | None = None,
    *,
    out: NewFolder | None = None,
    patient_pattern: Pattern | None = None,
    label: Label | None = None,
    sweep: Sweep | None = None,
    preset: str = "dense",
    set_: Sequence[Change] = (),
    held_out: Sequence[Annotated[int, at_least(0), Metavar("FOLD")]] | None = None,
    seed: Seed | None = None,
    overwrite: bool = False,
    resume: bool = False,
    print_config: bool = False,
    dry_run: bool = False,
    no_measure: bool = False,
    plot: NewFile | None = None,
    no_progress: bool = False,
) -> None:
    """Pretrain an encoder on a folder of ultrasound videos.

    Ctrl-C, SIGTERM and SIGUSR1 save the run at the end of the step; the same command with --resume
    continues it, or starts it where there is none, so that a cluster may repeat one command.

    Args:
        data: folder of videos: folders of frames and video files, mixed and nested.
        out: run folder.
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder; usucl data check shows whom it finds
            (default: patients as in labels.csv).
        label: column of labels.csv and frame_labels.csv that holds the labels, which training
            itself does not use (default: label).
        sweep: regular expression with groups, ( ), around everything in which the clips of one
            examination agree, such as "patient_([0-9]+)_([LR])"; they are then one video. none
            leaves every clip a video (default: sweeps as in sweeps.csv, if there is one).
        preset: dense, paper, paper-code, or a YAML file: a run's config.yaml, or a few options that
            change the preset it names (preset: dense if it names none).
        set_: changes to the preset, such as epochs=20 loss.cross_k=64 encoder.backbone=resnet50;
            --print-config lists all names (default: no changes).
        held_out: folds of patients that are not trained on; without a number, none are held out
            (default: those of the preset, or the smallest fold if it gives none).
        seed: seed of the first weights, the folds and every random draw (default: the preset's).
        overwrite: replace an earlier run in the run folder.
        resume: continue the run in the run folder, with the configuration it was started with, or
            start it if there is none; --set epochs=N adds epochs, also to a finished run.
        print_config: print the configuration that would be used, with every option and what it
            means, and stop; needs neither DATA nor --out.
        dry_run: read the videos, check every option, print the configuration, the batches, the
            steps, the curriculum's windows and what the run needs of memory, disk and time, and
            stop. For that, five steps are done and thrown away, and only their frames are decoded;
            nothing is written to the run folder, and --out is not needed. With --resume, it is
            about what is left of the run.
        no_measure: with --dry-run, do no steps: time and the memory of activations stay unknown.
        plot: with --dry-run, draw the curriculum into a file that ends in .png, .svg or .pdf
            (default: no picture).
        no_progress: show no progress bar.
    """
    folds = None if held_out is None else list(held_out)
    given: dict[str, Any] = {"held_out": folds, "seed": seed, "patient_pattern": patient_pattern}
    given |= {"label": label, "sweep": sweep}
    flags = {name: value for name, value in given.items() if value is not None}
    changes = dict(text.split("=", 1) for text in set_)
    if twice := [name for name in given if name in flags and name in changes]:
        raise ValueError(f"{twice[0]} must be given by --set or by its own option, got both")
    if data is not None and changes.get("data", str(data)) not in (str(data), str(data.absolute())):
        raise ValueError(f"--set data must be {data}, the folder given, got {changes['data']}")
    options: dict[str, Any] = changes | flags
    if data is not None:
        options["data"] = str(data.absolute())
    if print_config:
        from usucl.training.explained import explained

        for line in explained(preset, options).splitlines():
            say(line)
        return
    assert data is not None
    options["data"] = data
    if plot is not None and not dry_run:
        raise ValueError("plot must be given with --dry-run, got it alone")
    if no_measure and not dry_run:
        raise ValueError("no_measure must be given with --dry-run, got it alone")
    if dry_run:
        how = {"overwrite": overwrite, "resume": resume, "progress": not no_progress}
        _dry_run(plot, out=out, preset=preset, measure=not no_measure, **how, **options)
        return
    assert out is not None
    from usucl import training
    from usucl.cli import finished
    from usucl.run_folder import RunFolder
    from usucl.training.processes.world import World
    from usucl.training.summary import show_summary

    checkpoint = RunFolder(out).checkpoint
    before = _written(checkpoint)

    def kept() -> str:
        after = _written(checkpoint)
        if after is None or (after == before and not resume):
            earlier = "" if after is None else "; the earlier run is back"
            return f"nothing was kept, as no step was finished; start again{earlier}"
        again = finished.command("train", data, "--out", out, "--resume")
        return f"{out} has {finished.what_is_kept(out)}; to go on: {again}"

    with keeping(kept):
        training.train(
            out=out,
            preset=preset,
            overwrite=overwrite,
            resume=resume,
            progress=not no_progress,
            **options,
        )
    if not World.here().is_first:
        return
    if no_progress:
        show_summary(RunFolder(out))
    for line in finished.of_training(out):
        say(line)
    for line in finished.next_steps(out, data):
        hint(line)


def _dry_run(plot: Path | None, **options: Any) -> None:
    from usucl.cli.planned import show
    from usucl.training.planning import plan

    if options["resume"] and options["out"] is None:
        raise ValueError("out must be given with --resume: the run to go on with")
    if plot is not None:
        from usucl.report.figures.curriculum import check_plot, draw_curriculum

        check_plot(plot)
    planned = plan(**options)
    show(planned)
    if plot is not None:
        say(f"Plot: {draw_curriculum(planned, plot)}")
    hint("This was a dry run: nothing was trained.")


def embed(
    run: Run,
    data: Data,
    *,
    out: NewFolder | None = None,
    label: Label | None = None,
    sweep: Sweep | None = None,
    min_frames: Count = 2,
    encoder: Literal["trained", "random", "pixels"] = "trained",
    frames_per_video: Count | None = None,
    batch_size: Count = 64,
    format: Literal["safetensors", "npz", "csv"] = "safetensors",
    overwrite: bool = False,
) -> None:
    """Write the embeddings of a folder's frames.

    Args:
        run: run folder.
        data: folder of videos.
        out: folder for the files (default: embedded/ of the run).
        label: column of labels.csv that holds the labels (default: that of the run).
        sweep: regular expression that makes one video of the clips of an examination, or none
            (default: as in the run).
        min_frames: videos with fewer frames are left out; 1 takes single images too.
        encoder: the trained encoder, its random initialisation, or raw pixels.
        frames_per_video: greatest number of frames per video, evenly spaced (default: all).
        batch_size: frames encoded at once.
        format: <encoder>.safetensors with the numbers and <encoder>.csv with one row per frame;
            <encoder>.npz with NumPy's arrays; or <encoder>.csv with rows and numbers.
        overwrite: replace what an earlier call wrote there.
    """
    from usucl import evaluation
    from usucl.run_folder import RunFolder

    with keeping(lambda: "to start again: the same command with --overwrite"):
        result = evaluation.embed(
            run=run,
            data=data,
            out=out,
            label=label,
            sweep=sweep,
            min_frames=min_frames,
            encoder=encoder,
            frames_per_video=frames_per_video,
            batch_size=batch_size,
            format=format,
            overwrite=overwrite,
        )
    videos, dim = len(result.video_id), result.embedding.shape[1]
    say(f"{len(result)} frames of {videos} videos, {dim} numbers each")
    unknown = sum(map(str.__eq__, result.group, result.video_id))
    if unknown:
        say(f"Patients unknown for {unknown} of {videos} videos: their group is the video's id.")
    say(f"Embeddings: {out or RunFolder(run).embedded}")


def _parts(options: Mapping[str, Any]) -> dict[str, float | None]:
    return {"Evaluating": 34, **({} if options["no_report"] else {"Writing the report": 15})}


@job("Evaluation", _parts)
def evaluate(
    run: Run,
    data: Data,
    *,
    out: NewFolder | None = None,
    patient_pattern: Pattern | None = None,
    label: Label | None = None,
    sweep: Sweep | None = None,
    min_frames: Count = 2,
    frames_per_video: Count = 20,
    queries_per_video: Count = 10,
    resamples: Count = 2000,
    folds: Annotated[int, at_least(2)] = 5,
    seed: Seed = 0,
    no_report: bool = False,
) -> None:
    """Measure the trained encoder against its random initialisation and raw pixels.

    Intervals are 95 %, by bootstrap over patients. On the run's own data, the report of the run is
    written again. Other data have a folder of their own, evaluations/<name of the data folder> in
    the run folder, with a report of its own.

    Args:
        run: run folder.
        data: folder of videos, with labels.csv for the probes.
        out: folder for evaluation.json, embeddings/ and the report (default: the run folder, or
            one of its own in it for other data).
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder (default: that of the run).
        label: column of labels.csv that holds the labels (default: that of the run).
        sweep: regular expression that makes one video of the clips of an examination, or none
            (default: as in the run).
        min_frames: videos with fewer frames are left out; 1 takes single images too.
        frames_per_video: greatest number of frames per video, evenly spaced; of a video in which
            only some frames have a label, these come first.
        queries_per_video: augmented queries per held-out video, for temporal retrieval.
        resamples: bootstrap resamples of the patients.
        folds: folds of the cross-validation, by patient, unless labels.csv gives them.
        seed: seed of augmentations, folds and resamples.
        no_report: write only evaluation.json.
    """
    from usucl import evaluation
    from usucl.run_folder import RunFolder

    with keeping(lambda: "no evaluation was written; the same command starts again"):
        result = evaluation.evaluate(
            run=run,
            data=data,
            out=out,
            frames_per_video=frames_per_video,
            queries_per_video=queries_per_video,
            resamples=resamples,
            folds=folds,
            seed=seed,
            patient_pattern=patient_pattern,
            label=label,
            sweep=sweep,
            min_frames=min_frames,
        )
    show(result)
    own = RunFolder(run) if result.own_data else RunFolder(run).evaluation_of(data)
    folder = own if out is None else RunFolder(out)
    say(f"Evaluation: {folder.evaluation}")
    if not no_report:
        from usucl.report import write_report

        elsewhere = None if folder.path == Path(run) else folder.path
        say(f"Report: {write_report(run, evaluation=elsewhere)}")


def report(run: Run, *, evaluation: Evaluated | None = None) -> None:
    """Write the report of a run again, from what lies in its folder; nothing is measured.

    Args:
        run: run folder.
        evaluation: folder of an evaluation of the run, such as one on other data, where its report
            goes (default: the run folder).
    """
    from usucl.report import write_report

    say(f"Report: {write_report(run, evaluation=evaluation)}")


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None

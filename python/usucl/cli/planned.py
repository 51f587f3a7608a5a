"""What ``usucl train --dry-run`` prints."""

from __future__ import annotations

from usucl.cli.console import say, table
from usucl.data.sampling.clock import UNIT_WORDS
from usucl.training.planning import Plan, Stage


def show(plan: Plan) -> None:
    """Prints a plan: the configuration, what is trained on and how, needs, and the curriculum."""
    for line in plan.config.to_yaml().splitlines():
        say(line)
    say()
    table(["", ""], plan.rows(), title="The run")
    table(["", ""], plan.needs.rows(), title="What it needs")
    curriculum, epochs = plan.config.curriculum, plan.config.epochs
    video = plan.batches.catalog.entries[plan.median_video]
    share = f"{plan.cross_only} of {epochs} epochs ({plan.cross_only / epochs:.0%})"
    title = f"The curriculum: {curriculum.kind}; only cross-video negatives in {share}"
    columns = ["epochs", f"window ({UNIT_WORDS[plan.config.sampling.time_unit]})"]
    columns += [f"frames of {video.num_frames}, the median video", "videos reached", "distance"]
    videos = len(plan.batches.catalog)
    table(columns, [_row(stage, videos) for stage in plan.stages()], title=title)


def _row(stage: Stage, videos: int) -> list[str]:
    if stage.window is None or stage.frames is None:
        return [stage.epochs, "cross-video only", "", "", ""]
    window, frames = (f"{lo:.3g} to {hi:.3g}" for lo, hi in (stage.window, stage.frames))
    return [stage.epochs, window, frames, f"{stage.reached} of {videos}", stage.bar]

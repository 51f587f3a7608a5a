"""``usucl compare``: methods on the same videos, and what can be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from usucl._progress import job
from usucl.cli.console import hint, say
from usucl.cli.errors import keeping
from usucl.cli.parameters import (
    Change,
    Count,
    Data,
    Label,
    Metavar,
    NewFolder,
    Pattern,
    Sweep,
    rules,
)

Arms = Annotated[str, Metavar("ARM")]


def _parts(options: Any) -> dict[str, float | None]:
    parts: dict[str, float | None] = {"Comparing": None}
    return parts if options["no_report"] else parts | {"Writing the report": 5}


@rules(needed=("data", "out"), unless={"print_config": ("data", "out")})
@job("Comparison and report", _parts)
def compare(
    data: Data | None = None,
    *,
    out: NewFolder | None = None,
    preset: str | None = None,
    arms: Sequence[Arms] = (),
    labels: Sequence[Label] = (),
    patient_pattern: Pattern | None = None,
    sweep: Sweep | None = None,
    seeds: Count | None = None,
    processes: Count | None = None,
    set_: Sequence[Change] = (),
    print_config: bool = False,
    no_report: bool = False,
) -> int | None:
    """Train several methods on the same videos, probe them alike, and conclude.

    Every arm sees the same frames, augmentation, steps and first weights, and is tested on patients
    that were held out from its training. Differences have 95 % intervals over seeds and patients,
    corrected for their number. The same command goes on where it was stopped, and adds seeds and
    arms.

      usucl compare my/videos --out comparison --labels diagnosis --seeds 5

    Args:
        data: folder of videos, with labels.csv or frame_labels.csv.
        out: folder for the runs, figures.csv, differences.csv and the report.
        preset: core (six arms), full, or a YAML file of options and arms (default: that of the
            comparison in the folder, or core).
        arms: names of the arms that are run and shown now (default: all of the preset).
        labels: columns that the probes tell apart (default: all with two classes or more).
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder (default: patients of labels.csv alone).
        sweep: regular expression that makes one video of the clips of an examination, or none
            (default: the sweeps of sweeps.csv, if there is one).
        seeds: number of seeds (default: that of the preset, 5).
        processes: runs at the same time (default: as many as there are cores, one with a GPU).
        set_: changes to the preset, such as steps=480 image_size=64; --print-config lists all
            names (default: no changes).
        print_config: print every option and all arms, and stop; needs neither DATA nor --out.
        no_report: write no report.
    """
    changes: dict[str, Any] = dict(text.split("=", 1) for text in set_)
    given = {
        "labels": tuple(labels) or None,
        "patient_pattern": patient_pattern,
        "sweep": sweep,
        "seeds": seeds,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    if twice := [name for name in flags if name in changes]:
        raise ValueError(f"{twice[0]} must be given by --set or by its own option, got both")
    options = changes | flags
    if print_config:
        from usucl.comparison.design.config import read_config

        for line in read_config(preset or "core", options).to_yaml().splitlines():
            say(line)
        return None
    assert out is not None
    from usucl import comparison
    from usucl.cli.finished import command

    again = command("compare", data, "--out", out)
    with keeping(lambda: f"finished runs are kept in {out}; to go on: {again}"):
        result = comparison.compare(
            data=data, out=out, preset=preset, arms=arms, processes=processes, **options
        )
    from usucl.cli.comparison_views import show
    from usucl.report.comparison import write_comparison_report

    show(result.conclusion)
    for run, reason in result.failures:
        say(f"Not done: {run.arm}, seed {run.seed}, fold {run.fold}: {reason}")
    say(f"Figures: {result.folder.figures}")
    say(f"Differences: {result.folder.differences}")
    if not no_report:
        pictured = result.subject if result.config.pictures else None
        report = write_comparison_report(result.conclusion, result.folder.report, pictured)
        say(f"Report: {report}")
    if result.missing:
        hint(f"{result.missing} runs are missing; to do them: {again}")
        return 2
    return None

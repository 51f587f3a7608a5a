"""``usucl data prepare``: a published data set that the user has becomes a data folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from usucl.cli.console import hint, say
from usucl.cli.console import table as show_table
from usucl.cli.parameters import NewFolder, Seed, folder_of

Recipe = Literal["blues", "gbusv", "gbcu", "butterfly", "pocus"]
Source = Annotated[Path, folder_of("the folder of a data set")]


def prepare(
    recipe: Recipe,
    source: Source,
    *,
    out: NewFolder,
    table: Path | None = None,
    sweeps: bool = False,
    seed: Seed = 0,
    copy: bool = False,
) -> None:
    """Make a data folder of a published data set that you have.

    The folder holds links to the unchanged videos or frames, labels.csv with patients, folds and
    labels, and LICENCE.txt, which says what the licence forbids. Nothing is downloaded. What does
    not look like the data set is refused.

    Args:
        recipe: the data set. blues is COVID-BLUES, butterfly is that of the MIT Grand Hack 2018,
            pocus that of jannisborn/covid19_ultrasound; gbusv and gbcu are those of the
            paper.
        source: the folder of the data set, as its owner distributes it or, for gbcu, butterfly and
            pocus, as UltraBench lays it out.
        out: folder to write to, new or empty, outside of source.
        table: the owner's table of labels (default: the one in source).
        sweeps: for blues, join the three clips of one side of a patient to one video in a random
            order; clips of other sides are left out.
        seed: decides the order of the clips of a sweep.
        copy: copy the files instead of linking to them.
    """
    from usucl.cli.finished import command
    from usucl.data.recipes import LICENCE
    from usucl.data.recipes import prepare as make

    done = make(recipe, source, out, table=table, sweeps=sweeps, seed=seed, copy=copy)
    say(f"{done.recipe.title}, {done.layout}: {_counted(done.counts)}")
    expected = done.recipe.published
    if any(done.counts.get(what, count) != count for what, count in expected.items()):
        say(f"Its owner counts {_counted(expected)}.")
    rows = [
        (column, ", ".join(f"{label} {count}" for label, count in sorted(counts.items())))
        for column, counts in done.labels.items()
    ]
    show_table(["column", "videos with each label"], rows)
    for remark in done.remarks:
        say(remark)
    say(f"Licence: {done.recipe.licence}. What it forbids is in {done.folder / LICENCE}.")
    hint("Next:")
    hint(f"  {command('data check', done.folder)}")


def _counted(counts: Mapping[str, int]) -> str:
    words = (f"{n} {what.removesuffix('s') if n == 1 else what}" for what, n in counts.items())
    return ", ".join(words)

"""A comparison as tables in the shell: the figures of every arm, and the primary differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usucl.cli.console import say, table
from usucl.cli.evaluation import bounded, judged

if TYPE_CHECKING:
    from usucl.comparison.analysis.conclusion import Conclusion


def show(conclusion: Conclusion) -> None:
    """Prints the leading figures of every arm, the primary differences, and how to read them."""
    from usucl.data.catalog.patients import UNIT
    from usucl.report.comparison.tables import leading
    from usucl.report.comparison.wording import cautions, headline, title_of_measure, title_of_task
    from usucl.report.wording import Subjects, count

    experiment = conclusion.experiment
    if not experiment.results:
        say("No run has finished yet.")
        return
    measures = leading(conclusion)
    rows = [
        (
            arm.title,
            *(
                bounded(e, ".2f") if (e := conclusion.figures[m].get(arm.name)) else "-"
                for m in measures
            ),
        )
        for arm in experiment.arms
    ]
    table(["", *(title_of_task(m.task) for m in measures)], rows, title="Every arm")
    compared = [
        (
            f"{experiment.title_of(d.arm)} against {experiment.title_of(d.reference)}",
            title_of_measure(d.measure),
            judged(d.estimate),
        )
        for d in conclusion.primary
    ]
    if compared:
        table(["", "measured by", ""], compared, title="Primary differences")
    say(headline(conclusion.primary))
    figures = list(dict.fromkeys(title_of_measure(m) for m in measures))
    say(f"Figures of the first table, by the linear probe or retrieval: {'; '.join(figures)}.")
    unit = UNIT[experiment.patients]
    say(
        f"Brackets: 95 % intervals over {count(len(experiment.seeds), 'seed')} and "
        f"{count(len(experiment.tested), unit)}; those of differences are wider, for all primary "
        "ones to hold at once."
    )
    for text in cautions(conclusion, Subjects(experiment.patients, experiment.synthetic)):
        say(text)

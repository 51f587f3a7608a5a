"""Pictures of a comparison: forest plots, label efficiency, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usucl import _style as style
from usucl.comparison.conclusion import Conclusion, Difference
from usucl.comparison.measures import Measure
from usucl.report.comparison.wording import bounds, title_of_measure
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.page import Drawing

VERDICT_COLOUR = {"better": style.TRAINED, "worse": "#b4325a"}
ROW, HEAD, FOOT = 0.3, 0.34, 0.5  # inches
NAMES, NUMBERS = 3.7, 1.75  # inches beside a forest
LEFT, TITLE, BELOW, PANEL = 0.62, 0.42, 0.5, 2.5  # inches of a panel of lines
OTHERS = "#c3cad2"


def forest(conclusion: Conclusion, differences: Sequence[Difference], path: Path) -> Drawing:
    """Draws differences with their intervals, alone and adjusted, by what is measured."""
    by_measure: dict[Measure, list[Difference]] = {}
    for d in differences:
        if d.estimate.value is not None:
            by_measure.setdefault(d.measure, []).append(d)
    ends = [
        abs(end)
        for of in by_measure.values()
        for d in of
        for end in (d.estimate.value, d.estimate.adjusted_low, d.estimate.adjusted_high)
        if end is not None
    ]
    reach = 1.08 * max([0.02, *ends])
    return rendered(lambda narrow: _forest(conclusion, by_measure, reach, narrow), path)


def _forest(
    conclusion: Conclusion,
    by_measure: Mapping[Measure, Sequence[Difference]],
    reach: float,
    narrow: bool,
) -> Figure:
    across = style.NARROW if narrow else style.WIDTH
    left, right = (0.05, 0.05) if narrow else (NAMES, NUMBERS)
    row = ROW + 0.2 if narrow else ROW
    legend = Legend(
        [
            Entry(style.TRAINED, "better"),
            Entry(VERDICT_COLOUR["worse"], "worse"),
            Entry(style.MUTED, "not told apart"),
        ],
        across - 0.1,
    )
    rows = sum(map(len, by_measure.values()))
    body = row * rows + HEAD * len(by_measure)
    figure = Figure(figsize=(across, legend.height + 0.12 + body + FOOT))
    legend.draw(figure, 0, 0)
    axes = panel(figure, left, legend.height + 0.12, across - left - right, body)
    axes.axvline(0, color=style.INK, linewidth=1)
    y = 0.0
    for measure, differences in by_measure.items():
        heading = style.wrapped(title_of_measure(measure), 10, across)[0]
        x = (0.05 - left) / (across - left - right)
        axes.text(
            x, y + HEAD / 2, heading, transform=axes.get_yaxis_transform(), fontsize=9.5,
            weight="bold", va="center",
        )  # fmt: skip
        y += HEAD
        for d in differences:
            _row(axes, conclusion, d, y, narrow)
            y += row
    axes.set(yticks=[], ylim=(body, 0), xlim=(-reach, reach), xlabel="difference")
    axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 7))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    return figure


def _row(axes: Axes, conclusion: Conclusion, d: Difference, top: float, narrow: bool) -> None:
    e, titles = d.estimate, conclusion.experiment.title_of
    y = top + (0.3 if narrow else ROW / 2)
    colour = VERDICT_COLOUR.get(d.verdict, style.MUTED)
    for low, high, width in ((e.adjusted_low, e.adjusted_high, 1.2), (e.low, e.high, 3.6)):
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    assert e.value is not None  # forest() leaves out the others
    axes.plot(e.value, y, "o", color=colour, markersize=5.5, markeredgecolor=style.PAPER)
    across = axes.get_yaxis_transform()
    if narrow:
        name = style.shortened(f"{titles(d.arm)} − {titles(d.reference)}", 56)  # noqa: RUF001
        axes.text(0.0, top + 0.1, name, transform=across, fontsize=8, va="center")
        return
    name = f"{titles(d.arm)} − {titles(d.reference)}"  # noqa: RUF001
    (shown, *more) = style.wrapped(name, 9, NAMES - 0.2)
    if more:
        shown = style.shortened(name, len(shown))
    axes.text(-0.02, y, shown, transform=across, fontsize=9, va="center", ha="right")
    axes.text(1.02, y, bounds(d), transform=across, fontsize=9, va="center", color=colour)


def label_efficiency(conclusion: Conclusion, path: Path) -> Drawing | None:
    """Draws the linear probe over the share of labelled patients, a panel per task and figure.

    Arms that no primary difference names, and that are no baselines, are grey. None if there is one
    share only.
    """
    panels: dict[tuple[str, str], list[Measure]] = {}
    named = {p.figure for p in conclusion.experiment.primary} or {"balanced_accuracy"}
    for m in conclusion.figures:
        if m.probe == "linear" and m.figure in named:
            panels.setdefault((m.task, m.figure), []).append(m)
    panels = {key: of for key, of in panels.items() if len(of) > 1}
    if not panels:
        return None
    return rendered(lambda narrow: _efficiency(conclusion, panels, narrow), path)


def _efficiency(
    conclusion: Conclusion, panels: Mapping[tuple[str, str], Sequence[Measure]], narrow: bool
) -> Figure:
    colours = _colours(conclusion)
    titles = conclusion.experiment.title_of
    entries = [Entry(colour, titles(name)) for name, colour in colours.items()]
    if len(colours) < len(conclusion.experiment.arms):
        entries.append(Entry(OTHERS, "other arms"))
    figure, axes = _grid(list(panels), entries, narrow)
    for one, ((task, figure_name), measures) in zip(axes, panels.items(), strict=True):
        measures = sorted(measures, key=lambda m: m.share)
        one.set_title(style.shortened(task, 30))
        for arm in sorted(conclusion.experiment.arms, key=lambda arm: arm.name in colours):
            points = [
                (m.share, e.value)
                for m in measures
                if (e := conclusion.figures[m].get(arm.name)) and e.value is not None
            ]
            if points:
                colour, width = colours.get(arm.name, OTHERS), 1.6 if arm.name in colours else 1.0
                x, y = zip(*points, strict=True)
                one.plot(x, y, "o-", color=colour, linewidth=width, markersize=4)
        shares = [m.share for m in measures]
        one.set_xscale("log")
        one.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        one.minorticks_off()
        one.set(xlabel="labelled patients", ylabel=figure_name.replace("_", " "))
    return figure


def _colours(conclusion: Conclusion) -> dict[str, str]:
    """Returns a colour for each arm that stands out, in the order of the arms."""
    experiment = conclusion.experiment
    named = {name for p in experiment.primary for name in (p.arm, p.reference)}
    shown = [arm for arm in experiment.arms if arm.name in named or arm.group == "baseline"]
    shown = shown if named else list(experiment.arms)
    free = iter(style.CATEGORIES[1:] * len(shown))
    baseline = iter([style.RANDOM, style.INK, style.PIXELS, *style.CATEGORIES] * len(shown))
    leading = {p.arm for p in experiment.primary}
    colours: dict[str, str] = {}
    for arm in shown:
        if arm.name in leading and style.TRAINED not in colours.values():
            colours[arm.name] = style.TRAINED
        else:
            colours[arm.name] = next(baseline if arm.group == "baseline" else free)
    return colours


def learning_curves(conclusion: Conclusion, path: Path) -> Drawing | None:
    """Draws the loss of every arm that was trained, a line per seed; None if none was."""
    curves: dict[str, list[tuple[tuple[int, float], ...]]] = {}
    for r in conclusion.experiment.results:
        if r.curve:
            curves.setdefault(r.arm, []).append(r.curve)
    curves = {a.name: curves[a.name] for a in conclusion.experiment.arms if a.name in curves}
    if not curves:
        return None

    def draw(narrow: bool) -> Figure:
        figure, axes = _grid(list(curves), [], narrow)
        for one, (arm, of_arm) in zip(axes, curves.items(), strict=True):
            one.set_title(style.shortened(conclusion.experiment.title_of(arm), 34))
            lowest = min(loss for curve in of_arm for _, loss in curve)
            for curve in of_arm:
                x, y = zip(*curve, strict=True)
                one.plot(x, y, color=style.TRAINED, linewidth=1.1, alpha=0.7)
            one.set(xlabel="step", ylabel="loss")
            if lowest >= 0:
                one.set_ylim(bottom=0)
            one.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        return figure

    return rendered(draw, path)


def _grid(
    panels: Sequence[object], entries: Sequence[Entry], narrow: bool
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with one panel for each, three in a row, below a legend."""
    across, columns = (style.NARROW, 1) if narrow else (style.WIDTH, 3)
    legend = Legend(entries, across - 0.1)
    top = legend.height + 0.15 if entries else 0.0
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(across, top + rows * (PANEL + 0.1)))
    if entries:
        legend.draw(figure, 0, 0)
    cell = across / columns
    axes = []
    for i in range(len(panels)):
        row, column = divmod(i, columns)
        axes.append(
            panel(
                figure,
                column * cell + LEFT,
                top + row * (PANEL + 0.1) + TITLE,
                cell - LEFT - 0.2,
                PANEL - TITLE - BELOW,
            )
        )
    return figure, axes

"""Pictures of a comparison: forest plots, label efficiency, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usucl import _style as style
from usucl.comparison.analysis.conclusion import LEADING, Conclusion, Difference
from usucl.comparison.analysis.measures import Measure
from usucl.report.comparison.wording import bounds, title_of_measure, title_of_probe
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.page import Drawing

VERDICT_COLOUR = {"better": style.TRAINED, "worse": "#b4325a"}
ROW, HEAD, LINE, FOOT = 0.3, 0.34, 0.16, 0.5  # inches
NAMES, NUMBERS = 3.7, 1.75  # inches beside a forest
LEFT, TITLE, BELOW, PANEL = 0.62, 0.42, 0.5, 2.5  # inches of a panel of lines
OTHERS = "#c3cad2"


def forest(conclusion: Conclusion, differences: Sequence[Difference], path: Path) -> Drawing:
    """Draws differences with their intervals, alone and adjusted, by measure and arm."""
    groups: dict[tuple[Measure, str], list[Difference]] = {}
    for d in differences:
        if d.estimate.value is not None:
            groups.setdefault((d.measure, d.arm), []).append(d)
    ends = [
        abs(end)
        for of in groups.values()
        for d in of
        for end in (d.estimate.value, d.estimate.adjusted_low, d.estimate.adjusted_high)
        if end is not None
    ]
    reach = 1.08 * max([0.02, *ends])
    return rendered(lambda narrow: _forest(conclusion, groups, reach, narrow), path)


def _forest(
    conclusion: Conclusion,
    groups: Mapping[tuple[Measure, str], Sequence[Difference]],
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
    titles = conclusion.experiment.title_of
    arms = {arm for _, arm in groups}
    only = titles(*arms) if len(arms) == 1 else ""
    headings = [
        style.wrapped(
            title_of_measure(measure) if only else f"{titles(arm)}: {title_of_measure(measure)}",
            10.5,  # of bold letters, which are wider than those of the size below
            across - 0.1,
        )
        for measure, arm in groups
    ]
    rows = sum(map(len, groups.values()))
    body = row * rows + sum(HEAD + LINE * (len(lines) - 1) for lines in headings)
    figure = Figure(figsize=(across, legend.height + 0.12 + body + FOOT))
    legend.draw(figure, 0, 0)
    axes = panel(figure, left, legend.height + 0.12, across - left - right, body)
    axes.axvline(0, color=style.INK, linewidth=1)
    x, y = (0.05 - left) / (across - left - right), 0.0
    for lines, differences in zip(headings, groups.values(), strict=True):
        for i, text in enumerate(lines):
            _text(axes, x, y + HEAD / 2 + LINE * i, text, 9.5, weight="bold")
        y += HEAD + LINE * (len(lines) - 1)
        for d in differences:
            _row(axes, conclusion, d, y, narrow)
            y += row
    axes.set(yticks=[], ylim=(body, 0), xlim=(-reach, reach))
    label = f"{only} minus the other" if only else "difference"
    axes.set_xlabel(_fitted(label, 9.5, across - left - right))
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
    name = f"against {titles(d.reference)}"
    if narrow:
        _text(axes, 0.0, top + 0.1, _fitted(name, 8, style.NARROW - 0.1), 8)
    else:
        _text(axes, -0.02, y, _fitted(name, 9, NAMES - 0.2), 9, ha="right")
        _text(axes, 1.02, y, bounds(d), 9, color=colour)


def _text(axes: Axes, x: float, y: float, text: str, points: float, **look: Any) -> None:
    """Writes at a share of the width, over the lines of the panel."""
    behind = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.8}
    place = axes.get_yaxis_transform()
    axes.text(x, y, text, transform=place, fontsize=points, va="center", bbox=behind, **look)


def _fitted(text: str, points: float, inches: float) -> str:
    """Returns text cut in the middle if it does not fit a line."""
    first, *more = style.wrapped(text, points, inches)
    return style.shortened(text, int(inches * 72 / (0.62 * points))) if more else first


def label_efficiency(conclusion: Conclusion, path: Path) -> Drawing | None:
    """Draws the linear probe and fine-tuning over the share of labelled patients.

    There is a panel per task, probe and figure. Arms that no primary difference names, and that are
    no baselines, are grey. None if there is one share only.
    """
    panels: dict[tuple[str, str, str], list[Measure]] = {}
    named = {p.figure for p in conclusion.experiment.primary} or {"balanced_accuracy"}
    for m in conclusion.figures:
        if m.probe in LEADING and m.figure in named:
            panels.setdefault((m.task, m.probe, m.figure), []).append(m)
    panels = {key: of for key, of in panels.items() if len(of) > 1}
    if not panels:
        return None
    return rendered(lambda narrow: _efficiency(conclusion, panels, narrow), path)


def _efficiency(
    conclusion: Conclusion, panels: Mapping[tuple[str, str, str], Sequence[Measure]], narrow: bool
) -> Figure:
    colours = _colours(conclusion)
    titles = conclusion.experiment.title_of
    entries = [Entry(colour, titles(name)) for name, colour in colours.items()]
    if len(colours) < len(conclusion.experiment.arms):
        entries.append(Entry(OTHERS, "other arms"))
    figure, axes = _grid(list(panels), entries, narrow)
    for one, ((task, probe, figure_name), measures) in zip(axes, panels.items(), strict=True):
        measures = sorted(measures, key=lambda m: m.share)
        _title(one, task if probe == "linear" else f"{task}, {title_of_probe(probe)}", narrow)
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
            _title(one, conclusion.experiment.title_of(arm), narrow)
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


def _title(axes: Axes, text: str, narrow: bool) -> None:
    across = style.NARROW if narrow else style.WIDTH / 3
    axes.set_title(_fitted(text, 1.15 * 10.5, across - LEFT - 0.1))  # bold letters are wider


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

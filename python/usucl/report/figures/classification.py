"""Pictures of a classification: confusion matrix, ROC curves, calibration, learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usucl import _style as style
from usucl.evaluation.classification import BINS, Figures, calibration
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes import Predictions
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.page import Drawing
from usucl.report.verdicts import interval
from usucl.report.wording import number

SHARES = LinearSegmentedColormap.from_list("shares", ["#f6f8fa", "#5aa0a4", "#0f5c63"])
TITLE, FOOT, LEFT, GAP = 0.42, 0.55, 0.62, 0.45  # inches
LONGEST_CLASS = 18  # letters on an axis; the tables have whole names
MOST_CURVES = len(style.CATEGORIES)


def confusion_matrices(
    figures: Mapping[str, Figures], classes: Sequence[str], path: Path
) -> Drawing:
    """Draws a matrix per level: true classes in rows, which sum to 100 %, predicted in columns."""
    names = [style.shortened(name, LONGEST_CLASS) for name in classes]
    label = max(style.width_of(name, 9) for name in names) + 0.15

    def draw(narrow: bool) -> Figure:
        across = style.NARROW if narrow else style.WIDTH
        columns = 1 if narrow else len(figures)
        cell = min(0.95, ((across / columns) - label - 0.5) / len(classes))
        side = cell * len(classes)
        head = TITLE + 0.25 + label if _is_upright(names, cell) else TITLE + 0.4
        down = head + side + 0.45
        figure = Figure(figsize=(across, down * (len(figures) if narrow else 1)))
        for i, (level, of) in enumerate(figures.items()):
            left = label + 0.25 + (0 if narrow else i * across / columns)
            axes = panel(figure, left, head + (i * down if narrow else 0), side, side)
            _matrix(axes, np.array(of.confusion, dtype=float), names, cell)
            title = f"Per {level}: {of.samples:,} {level}s"
            axes.set_title(title, pad=72 * (head - TITLE) - 4, x=-label / side)
        return figure

    return rendered(draw, path)


def _matrix(axes: Axes, counts: FloatArray, names: Sequence[str], cell: float) -> None:
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    axes.imshow(share, cmap=SHARES, vmin=0, vmax=1, aspect="equal")
    axes.grid(False)
    points, with_share = float(np.clip(15 * cell, 6, 11)), cell > 0.5
    for row in range(len(names)):
        for column in range(len(names)):
            colour = style.PAPER if share[row, column] > 0.45 else style.INK
            axes.text(
                column, row - 0.08 * with_share, f"{counts[row, column]:.0f}", ha="center",
                va="center", color=colour, fontsize=points,
                weight="bold" if row == column else "normal",
            )  # fmt: skip
            if total[row] and with_share:
                axes.text(
                    column, row + 0.24, f"{100 * share[row, column]:.0f} %", ha="center",
                    va="center", color=colour, fontsize=0.72 * points,
                )  # fmt: skip
    upright = 90 if _is_upright(names, cell) else 0
    axes.set_xticks(range(len(names)), names, rotation=upright)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.set_xlabel("columns: predicted; rows: true", labelpad=6)
    axes.tick_params(labelsize=9, colors=style.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=style.PAPER, linewidth=2)
    axes.tick_params(which="minor", length=0)


def _is_upright(names: Sequence[str], cell: float) -> bool:
    """Returns whether names above the columns would overlap if they were level."""
    return max(style.width_of(name, 9) for name in names) + 0.08 > cell


def roc_curves(
    predictions: Mapping[str, Predictions],
    figures: Mapping[str, Figures],
    classes: Sequence[str],
    path: Path,
) -> Drawing:
    """Draws a panel per level with a curve per class against the rest."""

    def one(level: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            axes.plot([0, 1], [0, 1], color=style.RULE, linewidth=1.2, zorder=0)
            for c in _shown(predictions[level], classes):
                x, y = roc(predictions[level], c)
                axes.plot(x, y, color=style.CATEGORIES[c % MOST_CURVES], clip_on=False)
            _square(axes, "1 − specificity", "sensitivity")  # noqa: RUF001

        return draw

    def entries(level: str) -> list[Entry]:
        found = []
        for c in _shown(predictions[level], classes):
            e = figures[level].per_class[classes[c]]["auroc"]
            text = f"{style.shortened(classes[c], 20)}: AUROC {number(e.value)} {interval(e)}"
            found.append(Entry(style.CATEGORIES[c % MOST_CURVES], text.strip()))
        return found

    titles = {level: f"Per {level}" for level in predictions}
    return _squares(titles, one, entries, path)


def roc(predictions: Predictions, c: int) -> tuple[FloatArray, FloatArray]:
    """Returns 1 - specificity and sensitivity of class number ``c`` over all thresholds."""
    from sklearn.metrics import roc_curve

    x, y, _ = roc_curve(predictions.truth == c, predictions.probability[:, c])
    return x, y


def _shown(predictions: Predictions, classes: Sequence[str]) -> list[int]:
    """Returns the classes that have a curve: those tested and, somewhere, not."""
    count = np.bincount(predictions.truth, minlength=len(classes))
    return [c for c in range(len(classes)) if 0 < count[c] < count.sum()]


def reliability_diagrams(
    predictions: Mapping[str, Predictions], figures: Mapping[str, Figures], path: Path
) -> Drawing:
    """Draws, per level, how often a prediction is right against the probability that it has."""

    def one(level: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            right, confidence, bins = calibration(predictions[level])
            number_in = np.bincount(bins, minlength=BINS)
            share = number_in / max(1, number_in.sum())
            centres = (np.arange(BINS) + 0.5) / BINS
            axes.bar(centres, share, 0.9 / BINS, color=style.RULE, linewidth=0, zorder=1)
            axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1, linestyle=(0, (4, 2)))
            there = np.flatnonzero(number_in)
            said = np.array([confidence[bins == b].mean() for b in there])
            true = np.array([right[bins == b].mean() for b in there])
            for x, y in zip(said, true, strict=True):
                axes.plot([x, x], [x, y], color=style.INTRA, linewidth=1.2, alpha=0.6, zorder=2)
            size = 20 + 180 * share[there]  # a dot of few samples says little
            axes.scatter(said, true, size, color=style.TRAINED, zorder=3, clip_on=False)
            _square(axes, "probability of the predicted class", "share that is right")

        return draw

    def entries(level: str) -> list[Entry]:
        e = figures[level].overall["calibration_error"]
        return [
            Entry(style.TRAINED, f"ECE {number(e.value)} {interval(e)}".strip()),
            Entry(style.RULE, f"share of the {level}s in a bin"),
        ]

    return _squares({level: f"Per {level}" for level in predictions}, one, entries, path)


def _squares(
    titles: Mapping[str, str],
    draw: Callable[[str], Callable[[Axes], None]],
    entries: Callable[[str], Sequence[Entry]],
    path: Path,
) -> Drawing:
    """Draws square panels, side by side or below each other, each with a legend below."""

    def drawn(narrow: bool) -> Figure:
        across = style.NARROW if narrow else style.WIDTH
        columns = 1 if narrow else max(2, len(titles))
        width = across / columns
        side = min(width - LEFT - 0.15, 3.7)
        legends = {level: Legend(entries(level), side) for level in titles}
        below = max(legend.height for legend in legends.values())
        block = TITLE + side + FOOT + below + 0.2
        figure = Figure(figsize=(across, block * (len(titles) if narrow else 1)))
        for i, (level, title) in enumerate(titles.items()):
            left = LEFT + (0 if narrow else i * width)
            top = i * block if narrow else 0
            axes = panel(figure, left, top + TITLE, side, side)
            axes.set_title(title)
            draw(level)(axes)
            legends[level].draw(figure, left, top + TITLE + side + FOOT)
        return figure

    return rendered(drawn, path)


def _square(axes: Axes, across: str, up: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=across, ylabel=up)
    axes.set_xticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks(ticks, ["0", "0.25", "0.5", "0.75", "1"])


def learning_curves(
    history: Mapping[str, Mapping[str, FloatArray]], best: Mapping[str, int], path: Path
) -> Drawing:
    """Draws a line per fold over the epochs, with a dot at the epoch that was kept.

    Args:
        history: columns of the table of epochs, by fold.
        best: the epoch that was kept, by fold.
        path: file of the PNG.
    """
    panels = [
        ("Training loss", "training_loss"),
        ("Validation loss", "validation_loss"),
        ("Validation balanced accuracy", "validation_balanced_accuracy"),
    ]
    panels = [
        (title, name)
        for title, name in panels
        if any(np.isfinite(columns[name]).any() for columns in history.values())
    ]
    colours = {
        fold: style.INK if fold == "final" else style.CATEGORIES[i % MOST_CURVES]
        for i, fold in enumerate(history)
    }
    names = {f: "all folds" if f == "final" else f"fold {f}" for f in history}

    def draw(narrow: bool) -> Figure:
        across = style.NARROW if narrow else style.WIDTH
        columns = 1 if narrow else 3
        cell, height = across / columns, 2.7
        legend = Legend([Entry(colours[fold], names[fold]) for fold in history], across - 0.2)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(across, height * rows + legend.height + 0.1))
        for i, (title, name) in enumerate(panels):
            row, column = divmod(i, columns)
            left, top = column * cell + LEFT, row * height + TITLE
            axes = panel(figure, left, top, cell - LEFT - 0.12, height - TITLE - FOOT)
            axes.set_title(title)
            for fold, of in history.items():
                values, kept = of[name], of["epoch"] == best.get(fold, -1)
                if not np.isfinite(values).any():
                    continue
                axes.plot(of["epoch"], values, color=colours[fold], linewidth=1.3)
                axes.plot(of["epoch"][kept], values[kept], "o", color=colours[fold], markersize=5)
            axes.set(xlabel="epoch")
            axes.set_ylim(bottom=0, top=1.02 if name.endswith("accuracy") else None)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        legend.draw(figure, 0.1, height * rows)
        return figure

    return rendered(draw, path)

"""Maps of the embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from usucl import _style as style
from usucl.data.catalog.tables.columns import LABEL
from usucl.embedding import Embeddings, evenly_spaced, numbered
from usucl.evaluation.metrics import FloatArray
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.page import Drawing

MAP_POINTS = 700
UNLABELLED = "no label"
FEW_VIDEOS = 8
TITLES = {"trained": "Trained", "random": "Not trained", "pixels": "Pixels"}
TITLE, GAP, HEIGHT = 0.38, 0.3, 3.8  # inches


@dataclass(frozen=True)
class _View:
    """What colours mean in a column of maps: title, dots, and a legend of names or of time."""

    title: str
    dots: Callable[[Axes, FloatArray], None]
    legend: list[Entry]  # none if colour is time


def embedding_map(
    embeddings: Mapping[str, Embeddings], path: Path, seed: int = 0, label: str = LABEL
) -> Drawing | None:
    """Draws 2-D maps of the embeddings of each encoder, by video and by label if there is one.

    They show at most ``MAP_POINTS`` frames, of held-out videos where there are any. Frames without
    finite embeddings are left out. Names are whole, whatever their length. ``label`` is what the
    labels are called.

    Returns:
        The drawing, also written to ``path``, or None if no frame is left.
    """
    some = next(iter(embeddings.values()))
    mask = some.frame_held_out if any(some.held_out) else np.ones(len(some), dtype=bool)
    for e in embeddings.values():
        mask &= e.embedding.norm(dim=1).isfinite().numpy()
    shown = np.flatnonzero(mask)
    if not shown.size:
        return None
    mask[:] = False
    mask[shown[evenly_spaced(len(shown), MAP_POINTS, ends=True)]] = True
    kept = {name: e.select(mask) for name, e in embeddings.items()}
    points = {TITLES[name]: project(e.embedding.numpy(), seed) for name, e in kept.items()}
    one = next(iter(kept.values()))
    views = [_by_video(one)]
    labels, title = _labels(one, label)
    if labels is not None:
        views.append(_by_label(labels, title))
    return rendered(lambda narrow: _draw(points, views, narrow), path)


def project(points: NDArray[np.floating], seed: int = 0) -> FloatArray:
    """Projects to ``[n, 2]`` by t-SNE, or by principal components if there are too few points."""
    distinct = len(np.unique(points, axis=0))
    if distinct == 1:
        return np.zeros((len(points), 2))
    if distinct < 12 or points.shape[1] == 1:
        components = min(2, *points.shape)
        flat = PCA(components, random_state=seed).fit_transform(points)
        return np.pad(flat, ((0, 0), (0, 2 - components))).astype(np.float64)
    perplexity = min(30.0, (len(points) - 1) / 3)
    # So few points take a second on one thread, but minutes on several where cores are shared.
    with threadpool_limits(1):
        start = PCA(2, random_state=seed).fit_transform(points)
        spread = np.std(start[:, 0])
        if not spread > 0:
            return np.zeros((len(points), 2))  # t-SNE would end the process
        start = (start / spread * 1e-4).astype(np.float32)
        flat = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(points)
    return flat.astype(np.float64)


def _draw(points: Mapping[str, FloatArray], views: Sequence[_View], narrow: bool) -> Figure:
    """Draws a block of maps per view: beside each other on a screen, one by one on a phone."""
    across = style.NARROW if narrow else style.WIDTH
    stacked = narrow or len(views) > 1  # the maps of a view
    width = across if narrow or len(views) == 1 else (across - GAP) / len(views)
    side = width if stacked else (width - GAP * (len(points) - 1)) / len(points)
    height = min(HEIGHT, side)
    maps = (TITLE + height) * (len(points) if stacked else 1)
    legends = [Legend(view.legend, width) for view in views]
    blocks = [maps + 0.1 + max(legend.height, 0.45) + 0.15 for legend in legends]
    figure = Figure(figsize=(across, sum(blocks) if narrow else max(blocks)))
    for number, (view, legend) in enumerate(zip(views, legends, strict=True)):
        left = 0.0 if narrow else number * (width + GAP)
        top = sum(blocks[:number]) if narrow else 0.0
        for i, (name, flat) in enumerate(points.items()):
            x, y = (left, top + i * (TITLE + height)) if stacked else (left + i * (side + GAP), top)
            axes = panel(figure, x, y + TITLE, side, height)
            _frame(axes, flat, f"{name}: {view.title}", side / height)
            view.dots(axes, flat)
        if view.legend:
            legend.draw(figure, left, top + maps + 0.1)
        else:
            _time_bar(figure, left, top + maps + 0.14, min(width, 2.6))
    return figure


def _by_video(e: Embeddings) -> _View:
    video, time = e.video.numpy(), e.time.numpy()
    shown = np.unique(video)
    few = len(shown) <= FEW_VIDEOS
    colours = [style.CATEGORIES[i % len(style.CATEGORIES)] for i in range(len(shown))]

    def dots(axes: Axes, points: FloatArray) -> None:
        for v, colour in zip(shown, colours, strict=True):
            sweep = points[video == v]  # frames come in order
            line = colour if few else "#a7b2be"
            axes.add_collection(
                LineCollection([sweep], colors=[line], linewidths=0.9, alpha=0.7, zorder=1)
            )
            if few:
                _dots(axes, sweep, color=colour, zorder=2)
        if not few:
            _dots(axes, points, c=time, cmap=style.TIME, vmin=0, vmax=1, zorder=2)

    names = [Entry(colour, e.video_id[v]) for v, colour in zip(shown, colours, strict=True)]
    if few:
        return _View("one colour per video", dots, names)
    return _View("colour is time", dots, [])


def _by_label(labels: Sequence[str], title: str) -> _View:
    names, of = numbered(labels)
    frequent = np.argsort(-np.bincount(of), kind="stable")[: len(style.CATEGORIES) - 1]
    colours = dict(zip(sorted(frequent.tolist()), style.CATEGORIES, strict=False))
    rest = ~np.isin(of, frequent)
    legend = [Entry(colour, names[label]) for label, colour in colours.items()]
    if rest.any():
        legend.append(Entry(style.RULE, f"other ({len(names) - len(colours)} labels)"))

    def dots(axes: Axes, points: FloatArray) -> None:
        for label, colour in colours.items():
            _dots(axes, points[of == label], color=colour)
        if rest.any():
            _dots(axes, points[rest], color=style.RULE, zorder=0)

    return _View(title, dots, legend)


def _labels(e: Embeddings, title: str) -> tuple[list[str] | None, str]:
    if any(e.frame_label):
        return [label or UNLABELLED for label in e.frame_label], f"{title} of the frame"
    if any(e.label):
        return [e.label[v] or UNLABELLED for v in e.video.tolist()], f"{title} of the video"
    return None, ""


def _dots(axes: Axes, points: FloatArray, **look: Any) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=15, linewidths=0, **look)


def _frame(axes: Axes, points: FloatArray, title: str, ratio: float) -> None:
    """Makes an empty map with one scale for both axes."""
    axes.set_title(title)
    style.bare(axes)
    axes.set_facecolor(style.MAP)
    middle = (points.min(0) + points.max(0)) / 2
    wide, high = np.ptp(points, axis=0)
    half = 0.54 * max(float(wide) / ratio, float(high), 1e-6)
    axes.set(
        xlim=(middle[0] - half * ratio, middle[0] + half * ratio),
        ylim=(middle[1] - half, middle[1] + half),
    )


def _time_bar(figure: Figure, left: float, top: float, width: float) -> None:
    axes = panel(figure, left, top, width, 0.1)
    axes.imshow(np.linspace(0, 1, 64)[None], cmap=style.TIME, aspect="auto")
    style.bare(axes)
    below: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "fontsize": Legend.POINTS}
    axes.text(0, -0.6, "start of the video", ha="left", color=style.INK, **below)
    axes.text(1, -0.6, "end", ha="right", color=style.INK, **below)

"""The plots of the report: training curves, embedding maps, and the figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from usucl import _style as style
from usucl.embedding import Embeddings, evenly_spaced, numbered
from usucl.evaluation.metrics import FloatArray
from usucl.report.record import RunRecord
from usucl.report.results import Row

MAP_POINTS = 700
FEW_VIDEOS = 8
TIME_UNITS = {"fraction": "share of the video", "frames": "frames", "seconds": "seconds"}


def training_curves(record: RunRecord, path: Path) -> Path:
    """Draws six panels over the optimiser steps."""
    with style.styled():
        figure = Figure(figsize=(style.WIDTH, 5.3), layout="constrained")
        panels = figure.subplots(2, 3, gridspec_kw={"hspace": 0.1}).ravel()
        _lines(panels[0], record, "Loss", {"loss": (style.INK, "")})
        _lines(
            panels[1],
            record,
            "Cosine similarity to the anchor",
            {
                "positive_similarity": (style.POSITIVE, "positive"),
                "intra_similarity": (style.INTRA, "intra-video negatives"),
                "cross_similarity": (style.CROSS, "cross-video negatives"),
            },
        )
        _lines(
            panels[2],
            record,
            "Effective rank of a batch",
            {"effective_rank": (style.INK, "")},
            from_zero=True,
        )
        _window(panels[3], record)
        _lines(
            panels[4],
            record,
            "Images per second",
            {"images_per_second": (style.INK, "")},
            from_zero=True,
        )
        _time_shares(panels[5], record)
        steps = record.metrics.get("step", np.zeros(1))
        for panel in panels:
            if panel.axison and steps.size and np.nanmax(steps) > 0:
                panel.set_xlim(-0.02 * np.nanmax(steps), 1.02 * np.nanmax(steps))
        for panel in panels[3:]:
            panel.set_xlabel("step")
        return style.save(figure, path)


def _lines(
    axes: Axes,
    record: RunRecord,
    title: str,
    series: Mapping[str, tuple[str, str]],
    from_zero: bool = False,
) -> None:
    axes.set_title(title)
    drawn = False
    for name, (colour, label) in series.items():
        steps, values = record.series(name)
        if not values.size:
            continue
        drawn = True
        width = len(values) // 25
        if width > 1:  # the raw line stays visible behind its running mean
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
            steps, values = _running_mean(steps, width), _running_mean(values, width)
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, values, color=colour, label=label or None, marker=marker)
    if not drawn:
        _say(axes, "not logged in this run")
    elif any(label for _, label in series.values()):
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= 1]
        axes.set_ylim(low, high + 0.42 * (high - low))  # room for the legend
        axes.set_yticks(ticks)
        axes.legend(loc="upper left", borderaxespad=0.1, labelspacing=0.3)
    if from_zero and drawn:
        axes.set_ylim(bottom=0)


def _window(axes: Axes, record: RunRecord) -> None:
    axes.set_title("Window of intra-video negatives")
    steps, lo = record.series("window_lo")
    _, hi = record.series("window_hi")
    if record.window is None or len(lo) != len(hi):
        _say(axes, "no intra-video negatives in this run")
        return
    axes.fill_between(steps, lo, hi, step="post", color=style.INTRA, alpha=0.25, linewidth=0)
    axes.step(steps, np.c_[lo, hi], where="post", color=style.INTRA)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(TIME_UNITS[record.config.sampling.time_unit])


def _time_shares(axes: Axes, record: RunRecord) -> None:
    axes.set_title("Where the time goes")
    parts = {
        "data": (style.PIXELS, "data_share"),
        "encoder": (style.CROSS, "encoder_share"),
        "loss": (style.TRAINED, "loss_share"),
    }
    shares = {label: record.series(name) for label, (_, name) in parts.items()}
    steps = next(iter(shares.values()))[0]
    if not steps.size or any(len(s) != len(steps) for s, _ in shares.values()):
        _say(axes, "not logged in this run")
        return
    width = max(1, len(steps) // 25)
    stacked = [_running_mean(values, width) for _, values in shares.values()]
    colours = [colour for colour, _ in parts.values()]
    axes.stackplot(_running_mean(steps, width), stacked, colors=colours, alpha=0.75, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    handles = [
        Line2D([], [], color=colour, linewidth=6, alpha=0.75, label=f"{label} {values.mean():.0%}")
        for (label, (_, values)), colour in zip(shares.items(), colours, strict=True)
    ]
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=3,
        handlelength=0.8,
        columnspacing=1.2,
    )


def embedding_map(embeddings: Mapping[str, Embeddings], path: Path, seed: int = 0) -> Path | None:
    """Draws 2-D maps of the embeddings, one row per encoder, by video and by label if there is one.

    They show at most ``MAP_POINTS`` frames, of held-out videos where there are any. Frames without
    finite embeddings are left out.

    Returns:
        ``path``, or None if no frame is left.
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
    labels, title = _labels(next(iter(kept.values())))
    columns = 1 if labels is None else 2
    names = {"trained": "Trained", "random": "Random initialisation", "pixels": "Pixels"}
    with style.styled():
        size = (style.WIDTH * (0.62 if columns == 1 else 1), 3.5 * len(kept) + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(kept), columns, squeeze=False)
        for row, (name, e) in enumerate(kept.items()):
            points = project(e.embedding.numpy(), seed)
            _by_video(
                panels[row, 0], points, e, f"{names[name]}: by video", last=row + 1 == len(kept)
            )
            if labels is not None:
                last = row + 1 == len(kept)
                _by_label(panels[row, 1], points, labels, f"{names[name]}: {title}", last)
        return style.save(figure, path)


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


def _by_video(axes: Axes, points: FloatArray, e: Embeddings, title: str, last: bool) -> None:
    _map_panel(axes, points, title)
    video, time = e.video.numpy(), e.time.numpy()
    shown = np.unique(video)
    few = len(shown) <= FEW_VIDEOS
    for number, v in enumerate(shown):
        sweep = points[video == v]  # frames come in order
        colour = style.CATEGORIES[number % len(style.CATEGORIES)] if few else "#a7b2be"
        axes.add_collection(
            LineCollection([sweep], colors=[colour], linewidths=0.9, alpha=0.7, zorder=1)
        )
        if few:
            _dots(axes, sweep, color=colour, label=_in_legend(e.video_id[v]), zorder=2)
    if few:
        if last:
            _legend_below(axes)
        return
    dots = _dots(axes, points, c=time, cmap=style.TIME, vmin=0, vmax=1, zorder=2)
    if last:
        bar = axes.figure.colorbar(
            dots, ax=axes, location="bottom", shrink=0.5, aspect=30, pad=0.02
        )
        bar.outline.set_visible(False)
        bar.set_ticks([0, 1], labels=["start of the video", "end"])


def _by_label(
    axes: Axes, points: FloatArray, labels: Sequence[str], title: str, last: bool
) -> None:
    _map_panel(axes, points, title)
    names, of = numbered(labels)
    frequent = np.argsort(-np.bincount(of), kind="stable")[: len(style.CATEGORIES) - 1]
    for colour, label in zip(style.CATEGORIES, sorted(frequent), strict=False):
        _dots(axes, points[of == label], color=colour, label=_in_legend(names[label]))
    rest = ~np.isin(of, frequent)
    if rest.any():
        _dots(axes, points[rest], color=style.RULE, label="other", zorder=0)
    if last:
        _legend_below(axes)


def _dots(axes: Axes, points: FloatArray, **look: Any) -> PathCollection:
    return axes.scatter(points[:, 0], points[:, 1], s=14, linewidths=0, **look)


def _map_panel(axes: Axes, points: FloatArray, title: str) -> None:
    axes.set_title(title)
    style.bare(axes)
    axes.set_facecolor(style.MAP)
    middle = (points.min(0) + points.max(0)) / 2
    half = 0.54 * max(float(np.ptp(points, axis=0).max()), 1e-6)  # one scale for both axes
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))


def results(rows: Sequence[Row], path: Path) -> Path:
    """Draws dots with intervals, one row per figure."""
    with style.styled():
        figure = Figure(figsize=(style.WIDTH, 0.9 + 0.52 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for i, row in enumerate(rows):
            axes.plot(
                [row.chance] * 2, [i - 0.36, i + 0.36], color=style.INK, linewidth=1.1, alpha=0.5
            )
            for offset, name in zip((-0.2, 0.0, 0.2), style.ENCODER_COLOUR, strict=True):
                e = row.estimates[name]
                if e.value is None:
                    continue
                colour = style.ENCODER_COLOUR[name]
                if e.low is not None and e.high is not None:
                    axes.plot([e.low, e.high], [i + offset] * 2, color=colour, linewidth=2)
                axes.plot(e.value, i + offset, "o", color=colour, markersize=5.5)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=style.INK)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlim(0, 1.01)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        handles = [
            Line2D([], [], marker="o", color=colour, linewidth=2, markersize=5.5, label=label)
            for colour, label in zip(
                style.ENCODER_COLOUR.values(),
                ("trained", "random initialisation", "raw pixels"),
                strict=True,
            )
        ]
        handles.append(Line2D([], [], color=style.INK, alpha=0.5, linewidth=1.1, label="chance"))
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        return style.save(figure, path)


def _labels(e: Embeddings) -> tuple[list[str] | None, str]:
    if any(e.frame_label):
        return [label or "none" for label in e.frame_label], "by label of the frame"
    if any(e.label):
        return [e.label[v] or "none" for v in e.video.tolist()], "by label of the video"
    return None, ""


def _in_legend(name: str) -> str:
    text = style.shortened(name, 18)
    return f" {text}" if text.startswith("_") else text  # which Matplotlib would leave out


def _legend_below(axes: Axes) -> None:
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=4,
        handletextpad=0.2,
        columnspacing=1.0,
        markerscale=1.4,
    )


def _say(axes: Axes, text: str) -> None:
    style.bare(axes)
    axes.set_facecolor(style.MAP)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.MUTED)


def _running_mean(values: FloatArray, width: int) -> FloatArray:
    return np.convolve(values, np.full(width, 1 / width), mode="valid")

"""A result as pictures: the share of the machine's peak, the other providers, and the sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullLocator

from benchmarks.rows import CHUNKED, EAGER, MATMUL, OURS, Result, Row
from benchmarks.targets import LEAST_SHARE, MOST_MEMORY, share_of_peak
from usucl._style import GRID, INK, MUTED, WIDTH, styled

COLOUR = {OURS: "#0f766e", MATMUL: "#c2571a"}  # the colours of trained and intra in a run's report
SHADES = ("#9ecfd1", "#5fb0b0", "#2f8f8c", "#166b69", "#0b4a50", "#08303a")  # small to large


def draw(result: Result, folder: Path, stem: str) -> dict[str, Path]:
    """Writes ``<stem>-shapes.png`` and, if there are sweeps, ``<stem>-sweeps.png``.

    Returns:
        What each picture shows, to its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Path] = {}
    with styled(), matplotlib.rc_context({"figure.constrained_layout.w_pad": 0.08}):
        for name, what, make in (
            ("shapes", "time over that of usucl, and share of the FMA peak, by shape", _shapes),
            ("sweeps", "sweeps over sizes, negatives, dtype, order of the keys, threads", _sweeps),
        ):
            figure = make(result)
            if figure is not None:
                pictures[what] = folder / f"{stem}-{name}.png"
                figure.savefig(pictures[what])
    return pictures


def _shapes(result: Result) -> Figure | None:
    ours = result.where(group="shapes", metric="time", mode="both", provider=OURS)
    if not ours:
        return None
    shapes = [row.shape for row in ours]
    shade = dict(zip(shapes, _spread_over(SHADES, len(shapes)), strict=True))
    shares = [row for row in ours if share_of_peak(result, row) is not None]
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    if shares:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _peak_panel(right, result, shapes)
    else:
        left = figure.subplots()
    ratios = result.where(group="shapes", metric="ratio", mode="both")
    names = [name for name in result.providers if any(row.provider == name for row in ratios)]
    for row in ratios:
        if row.value is not None:
            lane = (shapes.index(row.shape) + 0.5) / len(shapes) - 0.5
            y = names.index(row.provider) + 0.7 * lane
            left.plot([row.low, row.high], [y, y], color=shade[row.shape], linewidth=1.2)
            left.plot(row.value, y, "o", color=shade[row.shape], markersize=4.5)
    left.axvline(1, color=INK, linewidth=0.8)
    left.set(xscale="log", yticks=range(len(names)), yticklabels=names)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.grid(axis="y", visible=False)
    for y in range(1, len(names)):
        left.axhline(y - 0.5, color=GRID, linewidth=0.8)
    left.tick_params(axis="y", labelcolor=INK)
    left.xaxis.set_major_formatter(_plain_numbers())
    left.set_title("Time over that of usucl, loss and gradient")
    left.set_xlabel("times as long, log scale; right of 1 usucl is faster")
    handles = [left.plot([], [], "o", color=shade[s], markersize=4.5)[0] for s in shapes]
    labels = [f"{n} x {m}" for n, m, _ in shapes]
    figure.legend(handles, labels, loc="outside lower left", ncols=len(shapes), handletextpad=0.1,
                  title="N anchors x M keys", title_fontsize=8, alignment="left")  # fmt: skip
    return figure


def _peak_panel(axes: Axes, result: Result, shapes: Sequence[tuple[int, int, int]]) -> None:
    """Draws bars of ours and of the matmul, with the goal of ours."""
    longest = 100.0
    for name, offset in ((OURS, -0.19), (MATMUL, 0.19)):
        mode = "both" if name == OURS else "forward"
        for row in result.where(group="shapes", metric="time", provider=name, mode=mode):
            share, y = share_of_peak(result, row), shapes.index(row.shape) + offset
            if share is not None:
                axes.barh(y, share, height=0.36, color=COLOUR[name])
                told = f"{share:.0f}" + (f"  {name}" if row.shape == shapes[0] else "")
                axes.text(share + 1.5, y, told, va="center", color=COLOUR[name], fontsize=8)
                longest = max(longest, share)
    for y, (n, m, _) in enumerate(shapes):
        goal = LEAST_SHARE.get((n, m))
        if goal is not None:
            axes.plot([goal, goal], [y - 0.4, y], color=INK, linewidth=1.4)
            if (n, m) == next(iter(LEAST_SHARE)):
                axes.text(goal, y - 0.42, "goal", ha="center", va="bottom", fontsize=7.5)
    axes.set(yticks=range(len(shapes)), yticklabels=[f"{n} x {m}" for n, m, _ in shapes])
    axes.set(xlim=(0, longest + 8), ylim=(len(shapes) - 0.5, -0.5))
    axes.set_xlabel("%, 2 N M D counted as work")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.set_title("Share of the float32 FMA peak")


def _sweeps(result: Result) -> Figure | None:
    panels: list[tuple[str, Callable[[Axes, Result], None]]] = [
        ("N", lambda a, r: _share_or_time(a, r, "N", "Anchors N", lambda row: row.shape[0])),
        ("M", lambda a, r: _share_or_time(a, r, "M", "Keys M", lambda row: row.shape[1])),
        ("D", lambda a, r: _share_or_time(a, r, "D", "Dimension D", lambda row: row.shape[2])),
        ("threads", lambda a, r: _share_or_time(a, r, "threads", "Threads", lambda x: x.threads)),
        ("k", lambda a, r: _relative(a, r, "k", "Negatives cross_k", 1.3)),
        ("dtype", lambda a, r: _relative(a, r, "dtype", "Dtype of the embeddings", None)),
        ("order", lambda a, r: _relative(a, r, "order", "Order of the keys", 2.0)),
    ]
    present = [panel for name, panel in panels if result.where(group=name)]
    if present and result.where(metric="memory"):
        present.append(_memory)
    if not present:
        return None
    columns = min(4, len(present))
    lines = -(-len(present) // columns)
    figure = Figure(figsize=(WIDTH, 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, present, strict=False):
        panel(axes, result)
    for axes in grid[len(present) :]:
        axes.set_visible(False)
    return figure


def _share_or_time(
    axes: Axes, result: Result, group: str, title: str, what: Callable[[Row], int]
) -> None:
    """Draws ours and the matmul: share of the peak, or picoseconds per multiply-add."""
    rows = result.where(group=group, metric="time")
    share = all(share_of_peak(result, row) is not None for row in rows if row.value)
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for name in (OURS, MATMUL):
        mode = "both" if name == OURS else "forward"
        mine = [r for r in rows if r.provider == name and r.mode == mode and r.value is not None]
        y = [(share_of_peak(result, row) if share else _picoseconds(row)) or 0.0 for row in mine]
        if mine:
            lines[name] = [what(row) for row in mine], y
            axes.plot(*lines[name], "o-", color=COLOUR[name], markersize=3.5)
    highest = max(lines, key=lambda name: lines[name][1][-1])
    for name, (x, y) in lines.items():  # the upper line's name above it, the lower one's below
        axes.annotate(name, (x[-1], y[-1]), (3, 7 if name == highest else -13),
                      textcoords="offset points", ha="right", color=COLOUR[name],
                      fontsize=8)  # fmt: skip
    values = sorted({what(row) for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [_short(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, max(100.0, 1.1 * max(max(y) for _, y in lines.values())) if share else None)
    axes.margins(x=0.1)
    axes.set_title(title)
    axes.set_ylabel("% of the FMA peak" if share else "ps per multiply-add")
    axes.set_xlabel(_rest(rows[0], group))


def _relative(axes: Axes, result: Result, group: str, title: str, goal: float | None) -> None:
    """Draws bars of our times over the first of them."""
    times = result.where(group=group, metric="time", mode="both", provider=OURS)
    ratios = result.where(group=group, metric="ratio", mode="both", provider=OURS)
    values = [1.0, *(row.value or 0.0 for row in ratios)]
    labels = [_label(row) for row in times]
    for y, value in enumerate(values):
        axes.barh(y, value, height=0.62, color=COLOUR[OURS] if y else "#8a94a1")
        axes.text(value, y, f"{value:.2f} ", va="center", ha="right", fontsize=8, color="white")
    if goal is not None:
        axes.axvline(goal, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.annotate("goal", (goal, -0.5), (2, 2), textcoords="offset points", fontsize=7.5,
                      color=MUTED, va="bottom")  # fmt: skip
    axes.set(yticks=range(len(values)), yticklabels=labels, ylim=(len(values) - 0.5, -0.5))
    axes.set_xlim(0, 1.25 * max(*values, goal or 0))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.set_title(title, pad=14)  # room for the goal's name
    axes.set_xlabel(f"times as long as {labels[0]}\n{_rest(times[0], group)}")


def _memory(axes: Axes, result: Result) -> None:
    """Draws one dot per shape, over the number of pairs."""
    rows = [row for row in result.where(group="shapes", metric="memory") if row.value]
    for name, colour, above in ((EAGER, "#50606f", 7), (CHUNKED, "#b98a4a", -13), (OURS, "", 7)):
        mine = [(r.shape[0] * r.shape[1], r.value or 0.0) for r in rows if r.provider == name]
        if mine:
            x, y = zip(*mine, strict=True)
            colour = COLOUR.get(name, colour)
            axes.plot(x, y, "o", color=colour, markersize=4, alpha=0.85)
            last = [v for u, v in zip(x, y, strict=True) if u == max(x)]
            axes.annotate(name, (max(x), max(last) if above > 0 else min(last)), (3, above),
                          textcoords="offset points", ha="right", color=colour,
                          fontsize=8)  # fmt: skip
    axes.axhline(MOST_MEMORY, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.annotate("goal", (0, MOST_MEMORY), (2, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=7.5, color=MUTED)  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(_plain_numbers())
    axes.minorticks_off()
    axes.margins(x=0.1, y=0.15)
    axes.set_title("Peak extra memory", pad=14)
    axes.set(xlabel="pairs N x M", ylabel="MiB")


def _label(row: Row) -> str:
    return {"k": str(row.k[1]), "dtype": row.dtype, "order": row.order}[row.group]


def _rest(row: Row, group: str) -> str:
    """Returns what a sweep does not vary."""
    n, m, d = row.shape
    parts = {"N": f"N={_short(n)}", "M": f"M={_short(m)}", "D": f"D={d}"}
    return ", ".join(text for name, text in parts.items() if name != group)


def _picoseconds(row: Row) -> float:
    n, m, d = row.shape
    return (row.value or 0.0) * 1e9 / (n * m * d)


def _short(value: int) -> str:
    return f"{value // 1024}k" if value >= 1024 and value % 1024 == 0 else str(value)


def _plain_numbers() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:g}")


def _spread_over(shades: Sequence[str], count: int) -> list[str]:
    last = max(count - 1, 1)
    return [shades[round(i * (len(shades) - 1) / last)] for i in range(count)]

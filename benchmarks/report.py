"""Result files as Markdown and pictures; this measures nothing and needs no PyTorch.

``python -m benchmarks.report FILE ... [--out FOLDER] [--page FILE] [--readme README.md]``
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import gpu_report
from benchmarks.rows import MATMUL, MODES, OURS, SEARCH, Result, Row, read
from benchmarks.targets import Target, peak, share_of_peak, targets

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
FULL_COMMAND, REPORT_COMMAND = "usucl bench", "python -m benchmarks.report"
NONE = "-"
BUSY = 0.2  # cores of other programs; with more, threads wait milliseconds for one another
SWEEPS = {
    "N": "anchors N",
    "M": "keys M",
    "D": "dimension D",
    "threads": "threads",
    "k": "cross_k",
    "dtype": "dtype",
    "order": "order of the keys",
}


def markdown(result: Result, pictures: Mapping[str, str] | None = None) -> str:
    """Returns all of a result: tables, goals, sweeps, what providers cannot do, the machine.

    Args:
        result: what :func:`benchmarks.rows.read` returned.
        pictures: path of each picture by what it shows.
    """
    if "stages" in result.run:
        return gpu_report.summary(result)
    modes = [
        f"**{mode}**, ms, median [20th, 80th percentile]\n\n{_times(result, mode)}"
        for mode in MODES
    ]
    sweeps = [
        f"**{title}**\n\n{_sweep(result, name)}"
        for name, title in SWEEPS.items()
        if result.where(group=name)
    ]
    parts = [
        "## Loss and gradient\n",
        warning(result),
        headline(result),
        *_shown(pictures or {}),
        "## Goals\n",
        _goals(targets(result)),
        "## Times\n",
        *modes,
        "## Peak extra memory\n",
        _memory(result),
        *(["## Sweeps\n", *sweeps] if sweeps else []),
        "## Who is compared\n",
        _providers(result),
        machine(result),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def page_block(result: Result, source: str, pictures: Mapping[str, str]) -> str:
    """Returns what the page on benchmarks shows: tables, what providers cannot do, the machine.

    Args:
        result: what :func:`benchmarks.rows.read` returned.
        source: path of its file, as the page links to it.
        pictures: as for :func:`markdown`.
    """
    quick = " --quick" if result.run["quick"] else ""
    parts = [
        warning(result),
        headline(result),
        *_shown(pictures),
        "Peak extra memory of the same calls, MiB:",
        _memory(result),
        _providers(result),
        machine(result),
        f"Measured by `{FULL_COMMAND}{quick}` ([raw figures]({source})), written here by "
        f"`{REPORT_COMMAND}`.",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def readme_block(result: Result, source: str, pictures: Mapping[str, str]) -> str:
    """Returns what the README shows: the first table, the machine. Arguments as for the page."""
    raw = f"{machine(result).strip()} [Raw figures]({source})."
    parts = [warning(result), headline(result), raw]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def put_into(text: str, block: str) -> str:
    """Returns ``text`` with the block between the two marker comments replaced.

    Raises:
        ValueError: there is not exactly one pair of markers.
    """
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    found = len(pattern.findall(text))
    if found != 1:
        raise ValueError(f"text must have one block between {BEGIN} and {END}, got {found}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{block}\n\n{END}", text)


def figures(result: Result) -> tuple[list[str], list[list[str]]]:
    """Returns loss and gradient at the main shapes: head and lines of a table in Markdown."""
    rows = _main_rows(result)
    shares = [share_of_peak(result, row) for row in rows]
    lines = [[f"**{OURS}**", *(f"{_number(row.value)} ms" for row in rows)]]
    if any(share is not None for share in shares):
        lines.append(["its share of the FMA peak", *map(_percent, shares)])
    ratios = result.where(group="shapes", metric="ratio", mode="both")
    found = {(row.provider, row.shape): row.value for row in ratios}
    for name in _present(result):
        if name != OURS:
            values = [found.get((name, row.shape)) for row in rows]
            lines.append([name, *map(_times_as_long, values)])
    return ["N anchors x M keys", *map(_size, rows)], lines


def explanation(result: Result) -> str:
    """Returns what the :func:`figures` are."""
    rows = _main_rows(result)
    note = ""
    if any(share_of_peak(result, row) is not None for row in rows):
        note = " and its share of the machine's float32 FMA peak, 2 N M D alone counted as work"
    return (
        f"The loss and its gradient to the anchors, {_setting(rows)}. For {OURS} the time{note}; "
        f"for the others how many times as long they take, median of paired rounds; **bold** where "
        f"they are faster. {MATMUL} and {SEARCH} have no backward pass: their one call counts."
    )


def headline(result: Result) -> str:
    """Returns loss and gradient at the main shapes: our time, and others' multiples of it."""
    return f"{_table(*figures(result))}\n\n{explanation(result)}"


def _main_rows(result: Result) -> list[Row]:
    return result.where(group="shapes", metric="time", provider=OURS, mode="both")


def machine(result: Result) -> str:
    """Returns a sentence on the machine, the code and the date."""
    run, facts, versions = result.run, result.run["machine"], result.run["versions"]
    top, copies = peak(result, facts["threads"]), result.where(op="copy")
    rates = [f"FMA peak {top:.0f} GFLOP/s"] if top is not None else []
    rates += [f"copy {row.value:.0f} GB/s" for row in copies if row.value is not None]
    missing = [row.note for row in result.where(op="fma_peak") if row.value is None]
    rates += [f"no FMA peak ({missing[0]})"] if missing else []
    others = run["cores_of_others"]
    busy = [] if others is None else [f"other programs took {others:.1f} cores"]
    settings = [f"{name}={value}" for name, value in facts["settings"].items()]
    libraries = [
        f"{k} {versions[k]}"
        for k in ("faiss-cpu", "pytorch-metric-learning", "lightly")
        if k in versions
    ]
    parts = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads",
        *rates,
        *busy,
        *settings,
        f"usucl {versions['usucl']} ({facts['cpu_capability']}), commit {run['commit']}",
        f"torch {versions['torch']} ({facts['torch_cpu_capability']})",
        *libraries,
        run["date"],
    ]
    return "; ".join(parts) + "."


def warning(result: Result) -> str:
    """Returns a sentence if other programs kept the machine busy, else an empty string."""
    others = result.run["cores_of_others"]
    if others is None or others <= BUSY:
        return ""
    return f"**Not to be trusted: other programs took {others:.1f} cores during the run.**"


def _times(result: Result, mode: str) -> str:
    rows = result.where(group="shapes", metric="time", mode=mode)
    notes = [f"{row.provider} at {_size(row)}: {row.note}" for row in rows if row.note]
    return "\n\n".join([_by_provider(result, rows, _spread), *notes])


def _memory(result: Result) -> str:
    rows = result.where(group="shapes", metric="memory")
    if not any(row.value is not None for row in rows):
        return "This system does not tell."
    return _by_provider(result, rows, lambda row: NONE if row is None else _number(row.value))


def _by_provider(result: Result, rows: Sequence[Row], cell: Callable[[Row | None], str]) -> str:
    """Returns one line per provider and one column per shape."""
    shapes = {row.shape: row for row in rows}
    found = {(row.provider, row.shape): row for row in rows}
    names = [name for name in _present(result) if any(row.provider == name for row in rows)]
    lines = [[name, *(cell(found.get((name, shape))) for shape in shapes)] for name in names]
    return _table(["N anchors x M keys", *map(_size, shapes.values())], lines)


def _goals(goals: Sequence[Target]) -> str:
    lines = [
        [
            goal.what,
            f"{'≥' if goal.least else '≤'} {_number(goal.bound)} {goal.unit}",
            NONE if goal.figure is None else f"{_number(goal.figure)} {goal.unit}",
            goal.verdict,
        ]
        for goal in goals
    ]
    met = sum(goal.verdict == "met" for goal in goals)
    measured = sum(goal.verdict in ("met", "not met") for goal in goals)
    counted = f"{met} of {measured} measured goals met (of {len(goals)} in all)."
    return _table(["forward and backward", "goal", "measured", ""], lines) + f"\n\n{counted}"


def _sweep(result: Result, group: str) -> str:
    """Returns what is varied, our time, and its ratio to the matmul or the first row."""
    rows = result.where(group=group, metric="time", mode="both", provider=OURS)
    lines = []
    for row in rows:
        ratio = result.where(
            group=group,
            metric="ratio",
            mode="both",
            shape=row.shape,
            k=row.k,
            dtype=row.dtype,
            order=row.order,
            threads=row.threads,
        )
        value = ratio[0].value if ratio else None
        if any(r.provider == MATMUL for r in result.where(group=group)):
            value = None if value is None else 1 / value
        elif row is rows[0]:
            value = 1.0
        share = share_of_peak(result, row)
        lines.append([varied(row), _spread(row), f"{_number(value)} x", _percent(share)])
    beside = f"over {MATMUL}" if result.where(group=group, provider=MATMUL) else "over the first"
    return _table([SWEEPS[group], f"{OURS}, ms", beside, "of FMA peak"], lines) + (
        f"\n\n{_setting(rows, but=group)}"
    )


def varied(row: Row) -> str:
    """Returns the value of what a sweep varies."""
    n, m, d = row.shape
    values = {"N": n, "M": m, "D": d, "k": row.k[1], "threads": row.threads}
    return str({**values, "dtype": row.dtype, "order": row.order}[row.group])


def _setting(rows: Sequence[Row], but: str = "shapes") -> str:
    if not rows:
        return ""
    (n, m, d), row = rows[0].shape, rows[0]
    parts = {
        "dtype": row.dtype,
        "N": f"N={n}",
        "M": f"M={m}",
        "D": f"D={d}",
        "": f"intra_k={row.k[0]}",
        "k": f"cross_k={row.k[1]}",
        "order": "keys in random order",
    }
    left_out = {"N", "M", "order"} if but == "shapes" else {but}
    return ", ".join(text for name, text in parts.items() if name not in left_out)


def _providers(result: Result) -> str:
    lines = []
    for name in result.providers:
        one = result.providers[name]
        ran = name in _present(result)
        reason = one["skipped"] or ("" if ran else "not part of this run")
        lines.append([name, one["what"], one["cannot"] or NONE, reason or NONE])
    if all(line[3] == NONE for line in lines):
        return _table(["", "computes", "cannot"], [line[:3] for line in lines], numbers=False)
    return _table(["", "computes", "cannot", "not measured"], lines, numbers=False)


def _present(result: Result) -> list[str]:
    """Returns the providers with figures at the main shapes, in their order."""
    measured = {row.provider for row in result.where(group="shapes")}
    return [name for name in result.providers if name in measured]


def _shown(pictures: Mapping[str, str]) -> list[str]:
    return [f"![{what}]({path})" for what, path in pictures.items()]


def _size(row: Row) -> str:
    return f"{row.shape[0]} x {row.shape[1]}"


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.0f} %"


def _times_as_long(ratio: float | None) -> str:
    if ratio is None:
        return NONE
    return f"{_number(ratio)} x" if ratio >= 1 else f"**{_number(ratio)} x**"


def _spread(row: Row | None) -> str:
    if row is None or row.value is None:
        return NONE
    return f"{_number(row.value)} [{_number(row.low)}, {_number(row.high)}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    rule = ["---", *(["--:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 with a line on standard error if a file cannot be used."""
    parser = argparse.ArgumentParser(prog=REPORT_COMMAND, description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--out", type=Path, help="folder for report.md and pictures")
    parser.add_argument("--page", type=Path, help="page whose marked block becomes all tables")
    parser.add_argument("--readme", type=Path, help="page whose marked block becomes the first one")
    options = parser.parse_args(arguments)
    blocks = {options.page: page_block, options.readme: readme_block}
    pages = {page: block for page, block in blocks.items() if page}
    if pages and len(options.files) != 1:
        parser.error(f"--page and --readme show one result, got {len(options.files)}")
    try:
        results = {path: read(path) for path in options.files}
        texts = []
        for path, result in results.items():
            pictures: dict[str, Path] = {}
            if options.out:
                from benchmarks import plots

                pictures = plots.draw(result, options.out, path.stem)
            relative = {what: os.path.relpath(p, options.out) for what, p in pictures.items()}
            texts.append(f"# {path.stem}\n\n{markdown(result, relative)}\n")
            for page, block_of in pages.items():
                home = page.resolve().parent
                beside = {w: os.path.relpath(p.resolve(), home) for w, p in pictures.items()}
                block = block_of(result, os.path.relpath(path.resolve(), home), beside)
                whole = put_into(page.read_text(encoding="utf-8"), block)
                page.write_text(whole, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"{REPORT_COMMAND}: {error}", file=sys.stderr)
        return 1
    if options.out:
        (options.out / "report.md").write_text("\n".join(texts), encoding="utf-8")
    elif not pages:
        print("\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

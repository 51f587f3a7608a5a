"""``python -m benchmarks.evidence [FOLDER ...]``: writes the tables of ``docs/evidence.md``.

Each folder is one that ``usucl compare`` has written with a preset of this folder, and is called
like it: its conclusions are copied to ``benchmarks/results/evidence``. Without a folder the tables
are written again from what is there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from usucl._files import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "evidence"
PAGE = ROOT / "docs" / "evidence.md"
BLOCK = re.compile(r"(<!-- (\w+): by benchmarks\.evidence -->\n).*?(<!-- end -->)", re.DOTALL)
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
    "macro_f1": "macro F1",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Copies conclusions and writes the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for folder in parser.parse_args(arguments).folders:
        write_json(RESULTS / f"{folder.name}.json", read_json(folder / "comparison.json"))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written(page: str) -> str:
    """Returns the page with its tables made anew from the results."""

    def block(match: re.Match[str]) -> str:
        path = RESULTS / f"{match[2]}.json"
        if not path.is_file():
            return f"{match[1]}Not measured yet.\n{match[3]}"
        record = json.loads(path.read_text(encoding="utf-8"))
        lines = "\n".join(tables(record))
        return f"{match[1]}{lines}\n{match[3]}"

    return BLOCK.sub(block, page)


def tables(record: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the tables of one experiment."""
    options, figures = record["options"], record["figures"]
    arms, primary = options["arms"], [d for d in record["differences"] if d["primary"] == "yes"]
    figure = primary[0]["figure"] if primary else "balanced_accuracy"
    shown = [
        f
        for f in figures
        if f["share"] == 1
        and ((f["probe"] == "linear" and f["figure"] == figure) or f["probe"] == "retrieval")
    ]
    columns = list(dict.fromkeys((f["task"], f["probe"]) for f in shown))
    cells = {(f["arm"], f["task"], f["probe"]): _cell(f) for f in shown}
    yield f"{_facts(record)} Columns of labels: {TITLES[figure]} of the linear probe."
    yield ""
    yield "| arm | " + " | ".join(task.replace("_", " ") for task, _ in columns) + " | rank |"
    yield "|--|" + "--|" * (len(columns) + 1)
    for name in arms:
        ranks = [r["spread"]["effective_rank"] for r in record["runs"] if r["arm"] == name]
        rank = f"{sum(ranks) / len(ranks):.0f}" if ranks else "-"
        values = (cells.get((name, *column), "-") for column in columns)
        yield f"| {_title(record, name)} | {' | '.join(values)} | {rank} |"
    if any(d["share"] < 1 for d in primary):
        yield from _few_labels(record, primary[0]["task"], figure)
    if primary:
        yield ""
        yield "| primary difference | measured | value | interval for all primary | verdict |"
        yield "|--|--|--|--|--|"
    for d in primary:
        titles = (_title(record, d[side]) for side in ("arm", "reference"))
        yield (
            f"| {' minus '.join(titles)} | {_measured(d)} | "
            f"{d['value']:+.3f} | {_interval(d['adjusted_low'], d['adjusted_high'], '+.3f')} | "
            f"{d['verdict']} |"
        )
    if primary:
        yield from _further(record, primary[0], figure)
        yield from _others(record, primary[0], figure)


def _few_labels(record: Mapping[str, Any], task: str, figure: str) -> Iterator[str]:
    """Yields what each arm comes to with the labels of fewer patients, by probe and fine-tuned."""
    cells = {
        (f["arm"], f["probe"], f["share"]): _cell(f)
        for f in record["figures"]
        if (f["task"], f["figure"]) == (task, figure) and f["probe"] in ("linear", "finetuned")
    }
    columns = sorted(
        {(probe, share) for _, probe, share in cells}, key=lambda c: (c[0] != "linear", -c[1])
    )
    names = [f"{probe}, {100 * share:g} %" for probe, share in columns]
    yield ""
    yield f"| {task.replace('_', ' ')}, share of the patients | {' | '.join(names)} |"
    yield "|--|" + "--|" * len(columns)
    for name in record["options"]["arms"]:
        values = (cells.get((name, *column), "-") for column in columns)
        yield f"| {_title(record, name)} | {' | '.join(values)} |"


def _further(record: Mapping[str, Any], first: Mapping[str, Any], figure: str) -> Iterator[str]:
    """Yields what else was measured of the first primary difference, with all labels."""
    names = [_title(record, first[side]) for side in ("arm", "reference")]
    yield from _exploratory(
        f"exploratory: {' minus '.join(names)}",
        (
            (d["task"].replace("_", " "), d)
            for d in record["differences"]
            if (d["arm"], d["reference"]) == (first["arm"], first["reference"])
            and ((d["probe"], d["figure"]) == ("linear", figure) or d["probe"] == "retrieval")
        ),
    )


def _others(record: Mapping[str, Any], first: Mapping[str, Any], figure: str) -> Iterator[str]:
    """Yields the differences of the same arm to all others, in what is primary."""
    task = first["task"]
    yield from _exploratory(
        f"exploratory, {task.replace('_', ' ')}: {_title(record, first['arm'])} minus",
        (
            (_title(record, d["reference"]), d)
            for d in record["differences"]
            if d["arm"] == first["arm"]
            and (d["task"], d["probe"], d["figure"]) == (task, "linear", figure)
        ),
    )


def _exploratory(heading: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Yields a table of those differences that are exploratory, with all labels."""
    lines = [
        f"| {name} | {d['value']:+.3f} | {_interval(d['low'], d['high'], '+.3f')} | "
        f"{_interval(d['adjusted_low'], d['adjusted_high'], '+.3f')} | {d['verdict']} |"
        for name, d in rows
        if (d["primary"], d["share"]) == ("no", 1) and d["value"] is not None
    ]
    if lines:
        yield ""
        yield f"| {heading} | value | interval alone | for all exploratory | verdict |"
        yield "|--|--|--|--|--|"
        yield from lines


def _title(record: Mapping[str, Any], arm: str) -> str:
    return record["options"]["arms"][arm].get("title", arm)


def _measured(difference: Mapping[str, Any]) -> str:
    """Returns what a difference is of: the task, how it was told, and the figure."""
    words = [difference["task"].replace("_", " "), TITLES[difference["figure"]]]
    if difference["probe"] == "knn":
        words.insert(1, "kNN")
    if difference["probe"] == "finetuned":
        words.insert(1, f"fine-tuned with {100 * difference['share']:g} % of the patients")
    return ", ".join(words)


def _facts(record: Mapping[str, Any]) -> str:
    facts = record["facts"]
    seconds = sum(run["seconds"] for run in record["runs"])
    return (
        f"{facts['data']}; {facts['encoder']}; {facts['training']}; {len(record['runs'])} runs, "
        f"{seconds / 60:.0f} minutes of training on {facts['machine']}."
    )


def _cell(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.2f} {_interval(figure['low'], figure['high'], '.2f')}".strip()


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()

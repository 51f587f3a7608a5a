"""Draws images/architecture.svg: the folders of the code, and which of them import which.

What is drawn is read from the imports and includes themselves, the rows of the Python package from
the table that ``tests/test_layering.py`` enforces, the captions from the table in
``architecture.md``. An arrow is left out where other arrows lead the same way; one that closes a
circle is red.

    python docs/draw_architecture.py
"""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.append(str(ROOT / "tests"))

from test_layering import CSRC, LAYERS, _imports, _includes, _module  # noqa: E402

DRAWING = DOCS / "images" / "architecture.svg"
# What Python loads of csrc, and how a file of it says that it is to be loaded.
LOADED = re.compile(r"PYBIND11_MODULE|STABLE_TORCH_LIBRARY")

BOX_WIDTH, BOX_HEIGHT, GAP, ROW_GAP = 172, 58, 24, 32
LANE = 14  # what an arrow that passes a row takes in it
WIDE = 2 * BOX_WIDTH  # a band that is one folder
BAND_PADDING, MARGIN, TITLE = 20, 20, 40
BANDS = {  # top to bottom: title, fill, colour
    "python/usucl": ("the training package", "#eef4fb", "#2f6db3"),
    "usucl_ext": ("the loss and the search for PyTorch", "#fdf3e7", "#b8731f"),
    "csrc": ("the kernels, in C++ and CUDA", "#eef7f0", "#2f8552"),
}
Edge = tuple[str, str]


@dataclass
class Graph:
    """Folders, by the band that they are drawn in, and who imports whom."""

    bands: dict[str, set[str]] = field(default_factory=lambda: {band: set() for band in BANDS})
    edges: set[Edge] = field(default_factory=set)
    inside: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # sub-folders

    def add(self, source: str | None, target: str | None) -> None:
        if source is not None and target is not None and source != target:
            self.edges.add((source, target))


def read_code() -> Graph:
    graph = Graph()
    sources = [*ROOT.glob("usucl_ext/**/*.py"), *ROOT.glob("python/usucl/**/*.py")]
    for source in sources:
        here = _part(_module(source))
        if here is not None:
            graph.bands["usucl_ext" if here == "usucl_ext" else "python/usucl"].add(here)
            if len(parents := source.relative_to(ROOT).parts[:-1]) > 3:
                graph.inside[here].add(parents[3])
            for imported in _imports(source):
                graph.add(here, _part(imported))
    for source in (path for path in CSRC.glob("**/*") if path.is_file()):
        here = _folder(source)
        graph.bands["csrc"].add(here)
        if len(parents := source.relative_to(CSRC).parts[:-1]) > 1:
            graph.inside[here].add(parents[1])
        for bracket, name in _includes(source):
            target = next((p for p in (source.parent / name, CSRC / name) if p.is_file()), None)
            if bracket == '"' and target is not None:
                graph.add(here, _folder(target))
        if LOADED.search(source.read_text()):
            graph.add("usucl_ext", here)
    return graph


def _part(module: str) -> str | None:
    """The folder of a module; None for the front door and what lies below every layer."""
    names = module.split(".")
    if names[0] == "usucl_ext":
        return "usucl_ext"
    known = {part for layer in LAYERS for part in layer}
    dotted = ".".join(names[:2])
    return f"usucl/{names[1]}" if dotted in known else None


def _folder(source: Path) -> str:
    parts = source.resolve().relative_to(CSRC).parts
    return "csrc/*" if len(parts) == 1 else f"csrc/{parts[0]}"


def circles(graph: Graph) -> set[Edge]:
    """Edges that lead back to where a walk along the others came from."""
    closing: set[Edge] = set()
    done: set[str] = set()

    def walk(node: str, way: tuple[str, ...]) -> None:
        for _, target in sorted(edge for edge in graph.edges if edge[0] == node):
            if target in (*way, node):
                closing.add((node, target))
            elif target not in done:
                walk(target, (*way, node))
        done.add(node)

    for node in sorted({source for source, _ in graph.edges}):
        if node not in done:
            walk(node, ())
    return closing


def reduced(edges: set[Edge]) -> set[Edge]:
    """The edges that no longer way stands for."""
    targets = defaultdict(set)
    for source, target in edges:
        targets[source].add(target)

    def reach(node: str) -> Iterator[str]:
        for target in targets[node]:
            yield target
            yield from reach(target)

    far = {(s, t) for s in list(targets) for middle in targets[s] for t in reach(middle)}
    return edges - far


def rows_of(graph: Graph, edges: set[Edge]) -> list[list[str]]:
    """Top to bottom; the Python package as its table says, csrc by the longest way down."""
    drawn = set.union(*graph.bands.values())
    rows: list[list[str]] = []
    for layer in reversed(LAYERS):
        row = sorted(drawn & {part.replace(".", "/") for part in layer})
        # Layers that do not import each other stand side by side.
        if rows and not any((above, node) in graph.edges for above in rows[-1] for node in row):
            rows[-1] += row
        else:
            rows.append(row)

    def depth(node: str) -> int:
        above = [s for s, t in edges if t == node and s in graph.bands["csrc"]]
        return max((depth(s) + 1 for s in above), default=0)

    native = defaultdict(list)
    for node in sorted(graph.bands["csrc"]):
        native[depth(node)].append(node)
    return rows + [native[number] for number in sorted(native)]


def width_of(node: str) -> int:
    return LANE if node.startswith("|") else WIDE if node in BANDS else BOX_WIDTH


def lay_out(
    rows: list[list[str]], edges: set[Edge]
) -> tuple[list[list[str]], dict[Edge, list[str]], dict[str, float]]:
    """The rows with lanes for what passes them, the way of each edge, and where each centre is.

    Edges to the same folder share a lane.
    """
    row_of = {node: number for number, row in enumerate(rows) for node in row}
    ways = {}
    for source, target in sorted(edges):
        passed = range(row_of[source] + 1, row_of[target])
        ways[source, target] = [source, *(f"|{target}|{row}" for row in passed), target]
    lanes = sorted({node for way in ways.values() for node in way if node.startswith("|")})
    rows = [row + [lane for lane in lanes if lane.endswith(f"|{n}")] for n, row in enumerate(rows)]
    pull: dict[str, dict[str, int]] = defaultdict(dict)  # neighbours; what passes goes straight
    for a, b in sorted({step for way in ways.values() for step in itertools.pairwise(way)}):
        pull[a][b] = pull[b][a] = (1, 2, 8)[a.startswith("|") + b.startswith("|")]
    x: dict[str, float] = {}
    for row in rows:
        _place(row, {node: 1000.0 * number for number, node in enumerate(row)}, pull, x)
    for sweep in range(300):  # each node towards its neighbours, in an order that changes at first
        for row in rows if sweep % 2 else reversed(rows):
            wanted = {
                node: sum(weight * x[other] for other, weight in pull[node].items())
                / max(sum(pull[node].values()), 1)
                for node in row
            }
            if sweep < 40:
                row.sort(key=lambda node: (wanted[node], node))
            _place(row, wanted, pull, x)
    left = min(x[node] - width_of(node) / 2 for node in x)
    return rows, ways, {node: round(place - left) for node, place in x.items()}


def _place(
    row: list[str],
    wanted: dict[str, float],
    pull: dict[str, dict[str, int]],
    x: dict[str, float],
) -> None:
    """As near to where they want to be as the order and the gaps allow: blocks move as one."""
    offsets = {row[0]: 0.0}
    for before, node in itertools.pairwise(row):
        offsets[node] = offsets[before] + (width_of(before) + width_of(node)) / 2 + GAP
    blocks: list[tuple[float, float, list[str]]] = []  # start, weight, nodes
    for node in row:
        start, weight = wanted[node] - offsets[node], max(sum(pull[node].values()), 1)
        nodes = [node]
        while blocks and blocks[-1][0] > start:
            other, heavy, before_it = blocks.pop()
            start = (other * heavy + start * weight) / (heavy + weight)
            weight, nodes = heavy + weight, before_it + nodes
        blocks.append((start, weight, nodes))
    x.update({node: start + offsets[node] for start, _, nodes in blocks for node in nodes})


def captions() -> dict[str, str]:
    """Folder -> what it is for, from the first table of architecture.md."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    pairs = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.MULTILINE)
    return {
        folder.removeprefix("python/").rstrip("/"): purpose.strip() for folder, purpose in pairs
    }


def draw(graph: Graph) -> str:
    back = circles(graph)
    edges = reduced(graph.edges - back)
    rows, ways, x = lay_out(rows_of(graph, edges), edges)
    band_of = {node: band for band, nodes in graph.bands.items() for node in nodes}
    told = captions()
    if missing := sorted(set(band_of) - set(told)):
        raise SystemExit(f"the table of architecture.md must have a row for {', '.join(missing)}")

    left = MARGIN + BAND_PADDING
    width = max(place + width_of(node) / 2 for node, place in x.items()) + 2 * left
    at: dict[str, tuple[float, float]] = {}
    bands: list[tuple[str, float, float]] = []
    y, current = float(MARGIN), ""
    for row in rows:
        band = next(band_of[node] for node in row if node in band_of)
        alone = graph.bands[band] == {band}
        if band != current:
            y += ROW_GAP if current else 0
            bands.append((band, y, y))
            y += 0 if alone else TITLE
        else:
            y += ROW_GAP - BAND_PADDING
        at.update({node: (x[node] + left, y) for node in row})
        y, current = y + BOX_HEIGHT + (0 if alone else BAND_PADDING), band
        bands[-1] = (*bands[-1][:2], y)
    height = y + MARGIN

    shapes = [_band(*band, width) for band in bands if band[0] not in at]
    steps = {step: edge for edge, way in ways.items() for step in itertools.pairwise(way)}
    shapes += [_step(*step, at, band_of[edge[0]]) for step, edge in sorted(steps.items())]
    shapes += [_step(*edge, at, "circle") for edge in sorted(back)]
    shapes += [_title(band, start) for band, start, _ in bands if band not in at]
    for node, band in sorted(band_of.items()):
        shapes.append(_box(node, *at[node], band, told[node], sorted(graph.inside[node])))
    heads = [
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0.6 L7.4 4 L0 7.4 Z" fill="{colour}"/></marker>'
        for name, colour in _heads().items()
    ]
    size = f'width="{width:g}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {size} '
            'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<defs>{''.join(heads)}</defs>",
            f'<rect {size} rx="14" fill="#ffffff"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _heads() -> dict[str, str]:
    return {
        **{name.replace("/", "-"): look[2] for name, look in BANDS.items()},
        "circle": "#c62828",
    }


def _band(band: str, start: float, end: float, width: float) -> str:
    return (
        f'<rect x="{MARGIN}" y="{start:g}" width="{width - 2 * MARGIN:g}" '
        f'height="{end - start:g}" rx="12" fill="{BANDS[band][1]}"/>'
    )


def _title(band: str, start: float) -> str:
    """In the upper left corner, over what passes there."""
    title, fill, colour = BANDS[band]
    return (
        f'<text x="{MARGIN + 16}" y="{start + 25:g}" font-size="14" fill="{colour}" '
        f'stroke="{fill}" stroke-width="6" paint-order="stroke">'
        f'<tspan font-weight="700">{band}</tspan><tspan dx="10">{title}</tspan></text>'
    )


def _box(node: str, x: float, y: float, band: str, purpose: str, inside: list[str]) -> str:
    fill, colour = BANDS[band][1:]
    width = width_of(node)
    lines = [(line, "#51606f") for line in textwrap.wrap(purpose, width // 6)]
    lines += [("  ".join(f"{name}/" for name in inside), colour)] if inside else []
    first = y + BOX_HEIGHT / 2 + 5 - 7 * len(lines)
    text = [
        f'<text x="{x:g}" y="{first + 3 + 14 * number:g}" font-size="11.5" fill="{ink}" '
        f'text-anchor="middle" xml:space="preserve">{escape(line)}</text>'
        for number, (line, ink) in enumerate(lines, 1)
    ]
    return (
        f'<rect x="{x - width / 2:g}" y="{y:g}" width="{width}" height="{BOX_HEIGHT}" rx="8" '
        f'fill="{fill if node == band else "#ffffff"}" stroke="{colour}" stroke-width="1.4"/>'
        f'<text x="{x:g}" y="{first:g}" font-size="14" font-weight="600" fill="#1c2733" '
        f'text-anchor="middle">{escape(node.split("/", 1)[-1])}</text>{"".join(text)}'
    )


def _step(source: str, target: str, at: dict[str, tuple[float, float]], kind: str) -> str:
    """From a box, or along a lane, to the next lane or with a head into the next box."""
    (x, y), (to_x, to_y) = at[source], at[target]
    bottom, head = y + BOX_HEIGHT, not target.startswith("|")
    end = to_y - 2 * head
    middle = (bottom + end) / 2
    name = kind.replace("/", "-")
    return (
        f'<path d="M{x:g} {y if source.startswith("|") else bottom:g} V{bottom:g} '
        f'C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {end:g}" fill="none" '
        f'stroke="{_heads()[name]}" stroke-width="1.4"'
        + (f' marker-end="url(#{name})"/>' if head else "/>")
    )


if __name__ == "__main__":
    DRAWING.write_text(draw(read_code()), encoding="utf-8")

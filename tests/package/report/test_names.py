"""Names and labels are text in the report, whatever characters they hold."""

from __future__ import annotations

import csv
import html
import re
import tracemalloc
import warnings
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from runs import make_data, make_run

from usucl import _style as style
from usucl._terminal import visible
from usucl.embedding import Embeddings
from usucl.evaluation import evaluate
from usucl.report import figures, write_report
from usucl.report.page import Html, escape, isolated, page, paragraph, table
from usucl.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = (
    "$\\frac$", "$x$ $", "_x", "a&b<c>\"d'", "=1+1", "</script><script>alert(1)</script>",
    "two\nlines", "\x1b[31mred", "\u202egpj.exe", "\N{GRINNING FACE} 心脏", "שלום 3", "الق",
    "{} %s {0.__class__} %", "x" * 3000, "e\u0301", "\x00", "a\u2028b", "\udcff.mp4", " ", "&lt;",
)  # fmt: skip


def embeddings_named(names: tuple[str, ...]) -> Embeddings:
    """Two frames of one video per name, which is its id, patient and label."""
    count = 2 * len(names)
    points = torch.nn.functional.normalize(
        torch.randn(count, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    video = torch.arange(count) // 2
    return Embeddings(
        points, points, video, torch.arange(count) % 2, torch.arange(count) % 2 / 2.0,
        (None,) * count, names, names, names, (True,) * len(names),
    )  # fmt: skip


def labelled(root: Path, labels: tuple[str, ...]) -> Path:
    """Writes small videos with these labels in turn, which are also patients and sources."""
    data = make_data(root, videos=2 * len(labels), frames=4)
    rows = [(f"video_{v}", label, f"{label} of {v}", label) for v, label in enumerate(2 * labels)]
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("video_id", "label", "patient", "source"), *rows])
    return data


def test_a_report_shows_every_name_as_it_is(tmp_path: Path) -> None:
    labels = ("$\\frac$", "_x", "</script><script>alert(1)</script>", "\u202eb\x1bc", "שלום")
    data = labelled(tmp_path / "a&b<i>$x$", labels)
    run = make_run(tmp_path / "run", data, held_out=3)
    RunFolder(run).skipped.write_text('path,reason\n"<b>\x1b[1m.mp4","<i>\u202e"\n', "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(run=run, data=data, frames_per_video=2, queries_per_video=1, resamples=5)
        text = write_report(run).read_text(encoding="utf-8")
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert not re.search(r"<(script|b>\\|i>)", text)
    assert "<h1>Pretraining on a&amp;b&lt;i&gt;$x$</h1>" in text
    shown = html.unescape(text)
    for label in ("$\\frac$", "_x", labels[2], "\\u202eb\\x1bc", "שלום"):
        assert f"<bdi>{label}</bdi>" in shown
    assert "<bdi><b>\\x1b[1m.mp4</bdi></th><td><i>\\u202e</td>" in shown


@pytest.mark.parametrize("start", range(0, len(NAMES), 7))
def test_maps_draw_every_name(tmp_path: Path, start: int) -> None:
    """By video and by label, with a legend entry for each, and no warning of a missing glyph."""
    names = NAMES[start : start + 7]
    drawn: list[Figure] = []
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        vector = style.vector
        patch.setattr(style, "vector", lambda figure: drawn.append(figure) or vector(figure))
        figures.embedding_map({"trained": embeddings_named(names)}, tmp_path / "map.png")
    assert len(drawn) == 2
    for figure in drawn:  # for screens and for phones
        legends = [axes for axes in figure.axes if axes.get_label() == "legend"]
        assert len(legends) == 2
        for axes in legends:
            text = "".join(text.get_text() for text in axes.texts)
            for name in names:  # whole, but for the spaces at which lines end
                assert style.drawable(name).replace(" ", "") in text.replace(" ", "")
            inside = axes.figure.bbox.padded(1)
            for text in axes.texts:
                box = text.get_window_extent()
                assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text


@pytest.mark.parametrize("name", NAMES)
def test_names_in_pictures_are_short_visible_and_different(name: str) -> None:
    shown = style.shortened(name, 18)
    assert shown.isprintable() and len(shown) <= 18
    assert style.shortened(name, 4000) not in {style.shortened(o, 4000) for o in NAMES if o != name}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_the_page_are_text(name: str) -> None:
    text = page(name, paragraph(name) + table(name, [name], [[name, isolated(name)]]))
    body = text[text.index("</style>") :]
    assert not re.search(r"<script|<c>|alert\(1\)<", body)
    assert not [c for c in body if not c.isprintable() and c != "\n"]
    assert html.unescape(body).count(visible(name)) >= 4
    text.encode("utf-8")


def test_html_is_escaped_once() -> None:
    assert escape("<td>") == "&lt;td&gt;" and escape(escape("&")) == "&amp;"
    assert "<td>&lt;td&gt;x</td>" in table("", [], [["", "<td>x"]])
    assert "</th><td>x</td></tr>" in table("", [], [["", Html("<td>x</td>")]])


def test_pictures_do_not_depend_on_the_settings_of_the_user(tmp_path: Path) -> None:
    e = embeddings_named(("a_b", "c"))
    plain = figures.embedding_map({"trained": e}, tmp_path / "plain.png")
    strange = {"text.usetex": True, "font.size": 30, "savefig.format": "pdf", "axes.grid": False}
    with matplotlib.rc_context(strange):
        same = figures.embedding_map({"trained": e}, tmp_path / "same.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert plain is not None and plain == same
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "same.png").read_bytes()


def test_a_picture_replaces_the_earlier_one_in_one_piece(tmp_path: Path) -> None:
    path = style.save(Figure((1, 1)), tmp_path / "new" / "figure.png")
    earlier = path.read_bytes()

    class Failing(Figure):
        def savefig(self, fname: Path, **_: object) -> None:
            Path(fname).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*/new/figure\.png"):
        style.save(Failing((1, 1)), path)
    assert path.read_bytes() == earlier and [p.name for p in path.parent.iterdir()] == [path.name]


def test_long_labels_do_not_multiply_in_memory(tmp_path: Path) -> None:
    """NumPy's arrays of text would have the width of the longest, once per frame."""
    e = embeddings_named(("x" * 5_000_000, "y"))
    tracemalloc.start()
    figures.embedding_map({"trained": e}, tmp_path / "map.png")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40e6

"""The page of every report: whole and readable on a phone, in the dark and by those who listen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import faults

from usucl.report.page import Drawing, Section, alert, code, folded, page, picture, table

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LONG = "a_very-long/name." * 12 + "x" * 200
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
WIDTHS = (390, 1280)

MEASURE = """
const luminance = rgb => rgb.map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const channels = text => text.match(/[\\d.]+/g).map(Number);
const ground = element => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const contrast = element => {
  const [x, y] = [channels(getComputedStyle(element).color).slice(0, 3), ground(element)]
    .map(luminance).sort();
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
};
const scrolls = element => element.closest('[tabindex="0"]');
const measure = frame => {
  const root = frame.contentDocument.documentElement;
  const seen = [...root.querySelectorAll("body *")].filter(e => e.checkVisibility());
  const written = seen.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const clipped = seen.filter(e => !e.closest(".unseen, .skip")).filter(e => !scrolls(e))
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
              || e.getBoundingClientRect().right > root.clientWidth + 1);
  return {
    ground: getComputedStyle(root.querySelector("body")).backgroundColor,
    clipped: clipped.map(e => e.outerHTML.slice(0, 80)),
    faint: written.filter(e => contrast(e) < 4.5).map(e => e.outerHTML.slice(0, 80)),
    written: written.length,
  };
};
onload = () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
};
"""


def made_up_page() -> str:
    """Returns a page with every part that a report has, with names that are long or hostile."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="300"></svg>'
    sections = [
        Section("Pictures", picture(Drawing(svg, svg), HOSTILE)),
        Section(
            "Tables",
            table(HOSTILE, ["", LONG, HOSTILE], [[LONG, HOSTILE, "1"], [HOSTILE, LONG, "2"]])
            + folded(LONG, table("Many columns", list("abcdefgh"), [[LONG, *"1234567"]])),
        ),
        Section(HOSTILE, code(f"{LONG}\n{HOSTILE}", HOSTILE, "columns")),
    ]
    return page(f"{LONG} {HOSTILE}", alert(LONG, [HOSTILE, LONG]), sections)


def test_a_page_is_read_by_everyone() -> None:
    text = made_up_page()
    assert faults(text) == []
    assert html.unescape(text).count(HOSTILE) > 5


@pytest.mark.parametrize(
    ("told", "old", "new"),
    [
        ("</main> closes another tag", "</section>", ""),
        ("no text in its place", 'alt="', 'title="'),
        ("the page names no language", ' lang="en"', ""),
        ("level 3 follows one of level 1", "h2", "h3"),
        ("a link leads to #tables", 'id="tables"', ""),
        ("<script> fetches", "<main", "<script></script><main"),
        ("runs onclick", "<main", '<main onclick="x()"'),
        ("fetches //x", "data:image/svg+xml", "//x"),
        ("<nav> has no name", ' aria-label="Contents"', ""),
        ("has scope None", 'scope="col"', ""),
        ("a row has no heading", '<th scope="row">', "<td>"),
        ("a table has no caption", "caption", "p"),
        ("two elements have the id", 'id="pictures"', 'id="tables"'),
    ],
)
def test_what_a_page_lacks_is_found(told: str, old: str, new: str) -> None:
    assert told in "\n".join(faults(made_up_page().replace(old, new)))


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_clipped_or_faint_in_a_browser(tmp_path: Path, scheme: str) -> None:
    text = html.escape(made_up_page())
    frames = "".join(
        f'<iframe srcdoc="{text}" style="width: {width}px; height: 800px"></iframe>'
        for width in WIDTHS
    )
    around = tmp_path / "around.html"
    around.write_text(f"<!doctype html><title></title>{frames}<script>{MEASURE}</script>", "utf-8")
    preferred = {"dark": 0, "light": 1}[scheme]
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--blink-settings=preferredColorScheme={preferred}",
         f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", around.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    measured = json.loads(html.unescape(title[1]))
    assert len(measured) == len(WIDTHS)
    for found in measured:
        is_light = found["ground"] == "rgb(255, 255, 255)"
        assert found["written"] > 10 and is_light == (scheme == "light")
        assert (found["clipped"], found["faint"]) == ([], [])

"""The page docs/configuration.md shows the options as they are."""

from __future__ import annotations

from draw_configuration import PAGE, page


def test_the_page_is_up_to_date() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "run: python docs/draw_configuration.py"

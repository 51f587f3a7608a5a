"""Builds the documentation: ``make docs`` writes it to ``build/docs``, and warnings are errors."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

import usucl_ext

project = "USUCL"
author = "the USUCL authors"
release = version = usucl_ext.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"USUCL {release}"
html_copy_source = False
html_show_copyright = False
html_static_path: list[str] = []

myst_heading_anchors = 4  # links to headings work as in any reader of Markdown

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _skip(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out fields of named tuples, which the docstring of the class has explained."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", _skip)

"""The report of a run, and sheets of pictures.

What draws a report is imported when it is first used; a sheet of a search does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usucl.report.report import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """Imports the report, and with it scikit-learn, once it is asked for."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from usucl.report.report import write_report

    globals()[name] = write_report
    return write_report

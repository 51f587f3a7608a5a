"""The report of a run, and sheets of pictures.

What draws a report is imported when it is first used; a sheet of a search does not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usucl.report.finetuning import write_finetuning_report
    from usucl.report.report import write_report

__all__ = ["write_finetuning_report", "write_report"]


def __getattr__(name: str) -> Any:
    """Imports the report, and with it scikit-learn, once it is asked for."""
    homes = {"write_finetuning_report": "finetuning", "write_report": "report"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"usucl.report.{homes[name]}"), name)
    globals()[name] = found
    return found

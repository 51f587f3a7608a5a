"""The report of a run, as one page."""

from usucl.report.report import write_report

__all__ = ["write_report"]

"""A run as one page to look at."""

from usucl.report.report import write_report

__all__ = ["write_report"]

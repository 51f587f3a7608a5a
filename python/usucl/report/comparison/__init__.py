"""The page of a comparison of methods."""

from usucl.report.comparison.report import write_comparison_report

__all__ = ["write_comparison_report"]

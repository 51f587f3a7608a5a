"""The plots of the report, each drawn twice: for screens and paper, and for phones."""

from usucl.report.figures.curves import curves_legend, training_curves
from usucl.report.figures.efficiency import label_efficiency
from usucl.report.figures.intervals import interval_chart
from usucl.report.figures.maps import embedding_map, project
from usucl.report.figures.mining import mining_curves, mining_legend

__all__ = [
    "curves_legend",
    "embedding_map",
    "interval_chart",
    "label_efficiency",
    "mining_curves",
    "mining_legend",
    "project",
    "training_curves",
]

"""Methods compared on the same videos: who gains what, with which certainty.

comparing.py is the whole of it in one call. config.py and arms.py say what is compared, subject.py
reads the videos and their labels, runs.py does one run after the other: pretraining.py trains it,
by a method of this package or an objective of others (objectives/), and measuring.py probes it.
predictions.py keeps what came out. experiment.py is all of it, from which conclusion.py draws what
can be said: measures.py and tallies.py have the figures, inference.py their intervals.
"""

from usucl.comparison.comparing import Comparison, compare
from usucl.comparison.config import ComparisonConfig

__all__ = ["Comparison", "ComparisonConfig", "compare"]

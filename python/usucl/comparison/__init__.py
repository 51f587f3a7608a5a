"""Methods compared on the same videos: who gains what, with which certainty.

comparing.py is the whole of it in one call, and runs.py does one run after the other. Each of the
folders uses those before it: objectives/ has the losses of others; design/ says what is compared
and asked; training/ makes the encoders of the arms; measurement/ probes them; analysis/ says what
can be concluded. folder.py and written.py are the files on disk.
"""

from usucl.comparison.comparing import Comparison, compare
from usucl.comparison.design.config import ComparisonConfig

__all__ = ["Comparison", "ComparisonConfig", "compare"]

"""USUCL's fused hard-negative contrastive loss for PyTorch."""

from . import _requirements as _requirements  # first: says what to install where torch is not
from . import reference
from ._library import build_info
from ._types import Frames, Selection
from .module import HardNegativeNCE
from .ops import hard_negative_nce, select_negatives, similarities

__all__ = [
    "Frames",
    "HardNegativeNCE",
    "Selection",
    "build_info",
    "hard_negative_nce",
    "reference",
    "select_negatives",
    "similarities",
]
__version__ = "0.1.0"

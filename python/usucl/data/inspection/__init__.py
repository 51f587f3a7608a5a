"""What is doubtful about videos and their pictures, and where in them the tissue is."""

from usucl.data.inspection.notes import KINDS, Inspection, inspect
from usucl.data.inspection.sector import Sector, find_sector, sector_of

__all__ = ["KINDS", "Inspection", "Sector", "find_sector", "inspect", "sector_of"]

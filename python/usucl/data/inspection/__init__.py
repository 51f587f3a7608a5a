"""What the pictures of videos show beside tissue, and where in them the tissue is."""

from usucl.data.inspection.sector import Sector, find_sector, sector_of

__all__ = ["Sector", "find_sector", "sector_of"]

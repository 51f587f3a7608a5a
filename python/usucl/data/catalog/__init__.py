"""What videos a folder holds: found, told apart, labelled, and parted by patient."""

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.search import Skipped

__all__ = ["Skipped", "VideoCatalog", "VideoEntry"]

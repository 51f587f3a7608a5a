"""What videos a folder holds: found, told apart, labelled, and parted by patient."""

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.search import Skipped
from usucl.data.catalog.summary import Note, Summary

__all__ = ["Note", "Skipped", "Summary", "VideoCatalog", "VideoEntry"]

"""What videos a folder holds: found, told apart, labelled, and parted by patient."""

from usucl.data.catalog.catalog import Skipped, VideoCatalog, VideoEntry

__all__ = ["Skipped", "VideoCatalog", "VideoEntry"]

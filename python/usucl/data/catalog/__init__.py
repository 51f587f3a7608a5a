"""What videos a folder holds: found, told apart, labelled, joined to sweeps, parted by patient.

Every scan reads the folder itself, and what earlier scans have found out from the cache.

    catalog, entry          all videos of a folder, and one of them
    scanning                finding and opening them, with a manifest of what earlier scans found
    tables                  labels.csv and frame_labels.csv as people write them; split.csv
    sweeps                  several clips of one examination as one video
    patients, folds         whose the videos are, and which are held out together
    summary, periodicity    what their thumbnails tell
    rescan                  other data, read with the options of a run
"""

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.scanning.search import Skipped
from usucl.data.catalog.summary import Note, Summary

__all__ = ["Note", "Skipped", "Summary", "VideoCatalog", "VideoEntry"]

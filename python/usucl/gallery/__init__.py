"""The embedded frames of a folder of videos, with what each frame is: built, searched, compared.

contents.py knows which frame of which video is in which slot of the bank; build.py embeds frames
and keeps its work in parts.py; query.py reads the query and search.py finds similar frames;
pairs.py finds near-identical frames. gallery.py combines them in one object, and events.py holds
the events that it reports to its caller.
"""

from usucl.gallery.contents import StoredFrame, StoredVideo
from usucl.gallery.events import Progress, Resumed
from usucl.gallery.gallery import Gallery
from usucl.gallery.pairs import Pair
from usucl.gallery.search import Found, Match

__all__ = [
    "Found",
    "Gallery",
    "Match",
    "Pair",
    "Progress",
    "Resumed",
    "StoredFrame",
    "StoredVideo",
]

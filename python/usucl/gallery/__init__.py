"""The embedded frames of a folder of videos, with what each frame is: built, searched, compared.

contents.py knows which frame of which video is in which slot of the bank; build.py embeds a folder
and keeps its work in parts.py; query.py reads what is looked for and search.py finds it; pairs.py
finds near-identical frames; gallery.py is all of it as one object.
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

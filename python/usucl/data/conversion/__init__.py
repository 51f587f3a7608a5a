"""Copies of a folder of videos: as folders of frames or stored videos, resized and cropped."""

from usucl.data.conversion.conversion import Conversion, Converted, convert, preview
from usucl.data.conversion.layout import Shard

__all__ = ["Conversion", "Converted", "Shard", "convert", "preview"]

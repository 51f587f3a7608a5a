"""DICOM files as videos: cine loops, and stills as videos of one frame.

From the header (``header``) and the places of the frames (``frames``) nothing large is allocated
before its cost is known. Single frames are then read (``codestream``, ``decoding``), turned into
what a screen shows (``display``) and timed (``timing``).
"""

from usucl.data.video.dicom.signature import DICOM_SUFFIXES, DIRECTORY, is_dicom
from usucl.data.video.dicom.video import DicomVideo

__all__ = ["DICOM_SUFFIXES", "DIRECTORY", "DicomVideo", "is_dicom"]

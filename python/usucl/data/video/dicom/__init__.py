"""DICOM files as videos: cine loops, and stills as videos of one frame.

From the header (``header``) and the places of the frames (``frames``) nothing large is allocated
before its cost is known. Single frames are then read (``codestream``, ``decoding``), turned into
what a screen shows (``display``) and timed (``timing``). ``video`` brings them together; pydicom is
imported with it, once a DICOM file is opened.
"""

from usucl.data.video.dicom.signature import DICOM_SUFFIXES, DIRECTORY, first_element, is_dicom

__all__ = ["DICOM_SUFFIXES", "DIRECTORY", "first_element", "is_dicom"]

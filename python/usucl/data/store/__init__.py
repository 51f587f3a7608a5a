"""Decoded frames at training size, in files that workers, processes and later runs share."""

from usucl.data.store.frames import load_frames
from usucl.data.store.plan import StorePlan
from usucl.data.store.store import FrameStore

__all__ = ["FrameStore", "StorePlan", "load_frames"]

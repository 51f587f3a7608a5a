"""Decoded frames at training size, in files that workers, processes and later runs share.

Reading a stored frame takes a core 10 to 26 microseconds, and decoding and resizing one of 640x480
pixels takes 2 to 13 milliseconds, whatever its format (``benchmarks/data_loading.py``). So storing
pays as soon as frames are asked for twice, and every video is stored that fits, except those that
are stored videos of the same size already.
"""

from usucl.data.store.frames import load_frames
from usucl.data.store.plan import StorePlan
from usucl.data.store.store import FrameStore

__all__ = ["FrameStore", "StorePlan", "load_frames"]

"""The small gallery, in every test of this folder."""

from small_gallery import bank, few_threads, run, videos

__all__ = ["bank", "few_threads", "run", "videos"]

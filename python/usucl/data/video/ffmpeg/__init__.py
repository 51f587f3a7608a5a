"""Video files, decoded by FFmpeg through PyAV.

Containers may lie about what they hold, so ``container`` and ``structure`` look for what is missing
before anything is decoded. ``stream`` decodes, from the start or from a key frame, and ``seeking``
tries which key frames can be relied on. ``video`` brings them together.
"""

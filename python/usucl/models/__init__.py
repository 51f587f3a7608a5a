"""Encoders of frames: networks, what they see of an image, their files, their use elsewhere."""

from usucl.models.encoder import (
    Backbone,
    EncoderConfig,
    FrameEncoder,
    Head,
    MomentumEncoder,
)
from usucl.models.files import load_encoder, save_encoder

__all__ = [
    "Backbone",
    "EncoderConfig",
    "FrameEncoder",
    "Head",
    "MomentumEncoder",
    "load_encoder",
    "save_encoder",
]

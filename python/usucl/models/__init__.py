"""Encoders of frames: networks, what they see of an image, their files, their use elsewhere."""

from usucl.models.card import card_path
from usucl.models.encoder import Backbone, EncoderConfig, FrameEncoder, Head
from usucl.models.exports import export, export_usage
from usucl.models.files import load_encoder, save_encoder
from usucl.models.importing import import_checkpoint
from usucl.models.momentum import MomentumEncoder
from usucl.models.usage import usage

__all__ = [
    "Backbone",
    "EncoderConfig",
    "FrameEncoder",
    "Head",
    "MomentumEncoder",
    "card_path",
    "export",
    "export_usage",
    "import_checkpoint",
    "load_encoder",
    "save_encoder",
    "usage",
]

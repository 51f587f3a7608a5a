"""Random views of frames for contrastive learning."""

from __future__ import annotations

from usucl.data.augmentation.augmentation import (
    Augment,
    Augmentation,
    AugmentationName,
    AugmentationOptions,
    check_augmentation,
)
from usucl.data.augmentation.options import RECIPES, UltrasoundAugmentation

__all__ = [
    "RECIPES",
    "Augment",
    "Augmentation",
    "AugmentationName",
    "AugmentationOptions",
    "UltrasoundAugmentation",
    "check_augmentation",
]

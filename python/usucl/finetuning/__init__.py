"""Fine-tuning of a pretrained encoder on labels, measured by cross-validation over patients."""

from usucl.finetuning.classifier import Classifier, load_classifier, save_classifier
from usucl.finetuning.config import FinetuningConfig, presets, read_config
from usucl.finetuning.finetune import finetune
from usucl.finetuning.record import Finetuning

__all__ = [
    "Classifier",
    "Finetuning",
    "FinetuningConfig",
    "finetune",
    "load_classifier",
    "presets",
    "read_config",
    "save_classifier",
]

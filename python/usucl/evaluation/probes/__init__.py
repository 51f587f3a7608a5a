"""kNN and linear probes of frozen features, never with a patient on both sides."""

from usucl.evaluation.probes.choice import INNER_FOLDS, choose_each, with_settings
from usucl.evaluation.probes.predictors import PROBES, Features, IntArray, Predictor, Probe
from usucl.evaluation.probes.splits import (
    FIGURES,
    Level,
    Predictions,
    Split,
    check_splits,
    fold_splits,
    held_out_split,
    patients_per_class,
    per_video,
    predict,
    statistics,
)

__all__ = [
    "FIGURES",
    "INNER_FOLDS",
    "PROBES",
    "Features",
    "IntArray",
    "Level",
    "Predictions",
    "Predictor",
    "Probe",
    "Split",
    "check_splits",
    "choose_each",
    "fold_splits",
    "held_out_split",
    "patients_per_class",
    "per_video",
    "predict",
    "statistics",
    "with_settings",
]

"""Evaluation of a pretrained encoder against baselines, with intervals over patients."""

from usucl.embedding import Embeddings
from usucl.evaluation.embed import embed
from usucl.evaluation.evaluate import evaluate
from usucl.evaluation.schema import Evaluation

__all__ = ["Embeddings", "Evaluation", "embed", "evaluate"]

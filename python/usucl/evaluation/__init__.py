"""What a pretrained encoder is worth, with intervals over patients and baselines beside it."""

from usucl.embedding import Embeddings
from usucl.evaluation.embed import embed
from usucl.evaluation.evaluate import evaluate

__all__ = ["Embeddings", "embed", "evaluate"]

"""What a pretrained encoder is worth, with intervals over patients and baselines beside it."""

from usucl.evaluation.embed import Embeddings, embed
from usucl.evaluation.evaluate import evaluate

__all__ = ["Embeddings", "embed", "evaluate"]

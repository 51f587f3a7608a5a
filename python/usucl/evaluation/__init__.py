"""What a pretrained encoder is worth, with intervals over patients and baselines beside it."""

from usucl.embedding import Embeddings
from usucl.evaluation.embed import embed
from usucl.evaluation.evaluate import evaluate
from usucl.evaluation.schema import Evaluation

__all__ = ["Embeddings", "Evaluation", "embed", "evaluate"]

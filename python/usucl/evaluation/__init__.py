"""Evaluation of a pretrained encoder against baselines, with intervals over patients."""

from usucl.embedding import Embeddings
from usucl.evaluation.embed import embed
from usucl.evaluation.evaluate import evaluate
from usucl.evaluation.schema import Evaluation
from usucl.evaluation.simultaneous import Verdict, verdict

__all__ = ["Embeddings", "Evaluation", "Verdict", "embed", "evaluate", "verdict"]

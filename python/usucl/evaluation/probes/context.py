"""What the context of a video tells of its class, without a look at a frame: a shortcut check.

Where the class goes with the machine, the hospital or the publisher, a probe can score by
recognising those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usucl.embedding import numbered
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes.predictors import Features, IntArray, Predictor


def context_baseline(context: Sequence[str], classes: int) -> Predictor:
    """Returns a predictor that sees only the context of a sample, one text such as its source.

    It answers with the shares of the classes among the fit samples of the same context, every class
    weighted as if all were equally frequent, as the linear probe does; with equal shares where no
    fit sample has the context. ``features`` holds the sample's number in ``context``, ``[n, 1]``.
    """
    _, number = numbered(context)

    def predictor(fit: Features, truth: IntArray, test: Features, _: int) -> FloatArray:
        fit_context, test_context = (number[x[:, 0].astype(np.int64)] for x in (fit, test))
        count = np.zeros((int(number.max()) + 1, classes))
        np.add.at(count, (fit_context, truth), 1.0)
        count /= np.maximum(count.sum(0), 1.0)  # of every class, the share with each context
        unseen = count.sum(1) == 0
        count[unseen] = np.isin(np.arange(classes), truth)
        return (count / count.sum(1, keepdims=True))[test_context]

    return predictor

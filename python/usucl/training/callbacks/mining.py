"""Figures of the negatives that one step has mined; each is NaN where there is nothing to tell."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from usucl.bank import NegativeBank
from usucl.bank.round_robin import RoundRobinBank
from usucl.losses import LossInputs, Selection, positive_similarities, share_above

NEAR_DUPLICATE = 0.98
"""Similarity from which a frame of another video is nearly that of the anchor."""

BINS = 40
"""Equal bins of a histogram of similarities from -1 to 1."""


def mining_figures(
    inputs: LossInputs,
    selection: Selection,
    *,
    soft_nn_temperature: float | None = None,
    max_similarity: float | None = None,
) -> dict[str, float]:
    """Returns what a step has mined.

    ``intra_share``: share of intra-video ones among the selected negatives. ``above_positive``:
    share of the anchors with a negative, of which the most similar one selected is above the most
    similar positive. ``near_duplicates``: share of the selected cross-video negatives with a
    similarity of :data:`NEAR_DUPLICATE` or more. ``soft_nn_weight``: greatest weight within the
    soft nearest neighbour, mean over the anchors that have one; 1 where a single frame is all of
    it. ``struck_by_max_similarity``: share of the possible negatives above that limit.
    """
    intra, cross = selection.intra_similarity, selection.cross_similarity
    found = [similarity > -math.inf for similarity in (intra, cross)]
    numbers = [int(mask.sum()) for mask in found]
    both = torch.cat([intra, cross], dim=1)
    has = torch.cat(found, dim=1).any(1)
    above, limit = math.nan, None
    if bool(has.any()):
        positive = positive_similarities(inputs).amax(1)[has]
        above = float((both[has].amax(1) > positive).float().mean())
    if max_similarity is not None:
        limit = positive_similarities(inputs).new_full((len(intra), 1), max_similarity)
    return {
        "intra_share": numbers[0] / sum(numbers) if sum(numbers) else math.nan,
        "above_positive": above,
        "near_duplicates": float((cross[found[1]] >= NEAR_DUPLICATE).float().mean()),
        "soft_nn_weight": _greatest_weight(cross[found[1].any(1)], soft_nn_temperature)
        if cross.shape[1]
        else math.nan,
        "struck_by_max_similarity": math.nan if limit is None else share_above(inputs, limit),
    }


def _greatest_weight(cross: Tensor, temperature: float | None) -> float:
    if temperature is None:
        return math.nan
    return float(torch.softmax(cross / temperature, dim=1).amax(1).mean())


def bank_ages(bank: NegativeBank | RoundRobinBank | None, steps: int) -> dict[str, float]:
    """Returns the mean and the greatest age of the bank's frames, in steps since they came.

    The frames of this step have age 0. A step counts as the mean number of frames that came in
    each. Frames beyond the greatest age that is used are left out.

    Args:
        bank: the bank, or this process's part of one.
        steps: how many steps have filled it.
    """
    if bank is None or bank.enqueued == 0 or steps == 0:
        return {"bank_age": math.nan, "bank_age_oldest": math.nan}
    ages = bank.ages()
    most = math.inf if bank.max_age is None else bank.max_age
    ages = ages[(ages >= 0) & (ages <= most)].double() * steps / bank.enqueued
    if not len(ages):
        return {"bank_age": math.nan, "bank_age_oldest": math.nan}
    return {"bank_age": float(ages.mean()), "bank_age_oldest": float(ages.max())}


def similarities_of(inputs: LossInputs, selection: Selection) -> dict[str, Tensor]:
    """Returns the similarities of the anchors to their positives and selected negatives."""
    groups = {
        "positive": positive_similarities(inputs).flatten(),
        "intra": selection.intra_similarity.flatten(),
        "cross": selection.cross_similarity.flatten(),
    }
    return {name: values[values.isfinite()].detach().float() for name, values in groups.items()}


def histogram(similarity: Tensor) -> list[int]:
    """Returns how many similarities are in each of :data:`BINS` equal parts of -1 to 1."""
    place = ((similarity.double() + 1) * (BINS / 2)).floor().long().clamp(0, BINS - 1)
    return torch.bincount(place, minlength=BINS).tolist()

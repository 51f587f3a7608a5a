"""Cross-validation folds in which no patient is on both sides."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def assign_folds(
    groups: Sequence[str],
    labels: Sequence[str | None],
    given: Sequence[int | None],
    *,
    n: int,
    seed: int,
) -> list[int]:
    """Returns one fold per video, all videos of a group in the same fold, labels balanced.

    Given folds keep their numbers, which replace [0, n). The other groups are dealt out, the
    largest first (ties by ``seed``), each to the fold in which its labels are rarest: the one with
    the smallest sum over labels l of f_l g_l / a_l^2, where f_l, g_l and a_l count the videos of l
    in the fold, in the group and in all. Given folds that are all the same are ignored.

    Args:
        groups, labels, given: group, label and given fold (or None) of every video.
        n: number of folds.
        seed: decides ties between groups of the same size.

    Raises:
        ValueError: a group has two given folds, or there are fewer groups than folds.

    Warns:
        UserWarning: the given folds are ignored.
    """
    members = _members(groups)
    column = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    counts = {
        group: np.bincount([column[labels[v]] for v in videos], minlength=len(column))
        for group, videos in members.items()
    }
    fold_of = _given_folds(members, given)
    folds = sorted(set(fold_of.values()))
    if len(folds) == 1 < len(members):
        n = min(n, len(members))
        warnings.warn(
            f"folds: every fold given is {folds[0]}, so they are ignored and {n} folds are made",
            stacklevel=3,
        )
        fold_of = {}
    if fold_of:
        n = folds[-1] + 1
    elif not 2 <= n <= len(members):
        raise ValueError(f"n must be 2 to {len(members)}, the number of groups, got {n}")
    else:
        folds = list(range(n))
    total = sum(counts.values())
    filled = np.zeros((n, len(column)))
    for group, fold in fold_of.items():
        filled[fold] += counts[group]
    rank = np.random.default_rng(seed).permutation(len(members))
    open_groups = [
        (-len(members[group]), rank[i], group)
        for i, group in enumerate(members)
        if group not in fold_of
    ]
    for _, _, group in sorted(open_groups):
        crowding = filled @ (counts[group] / total**2)
        fold = min(folds, key=lambda f: (crowding[f], filled[f].sum(), f))
        fold_of[group] = fold
        filled[fold] += counts[group]
    return [fold_of[group] for group in groups]


def check_folds(groups: Sequence[str], given: Sequence[int | None]) -> None:
    """Raises ValueError if a group has two given folds; both arguments have one per video."""
    _given_folds(_members(groups), given)


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for video, group in enumerate(groups):
        members[group].append(video)
    return members


def _given_folds(members: dict[str, list[int]], given: Sequence[int | None]) -> dict[str, int]:
    fold_of: dict[str, int] = {}
    for group, videos in members.items():
        folds = sorted({fold for v in videos if (fold := given[v]) is not None})
        if len(folds) > 1:
            raise ValueError(
                "folds must be one per patient, "
                f"the videos of group {group!r} are in folds {', '.join(map(str, folds))}"
            )
        if folds:
            fold_of[group] = folds[0]
    return fold_of

"""Which cases of a test with several parameters the usual run has: a pytest plugin.

The tests of the kernels, in ``tests/ext`` and ``tests/emulation``, have grids of parameters. Of
such a grid the usual run has cases that together have every value of each parameter and every
pair of values of two; a fault that takes three values at once is left to ``make check-all``, which
runs the whole grids (``USUCL_HYPOTHESIS_PROFILE=long``). So does a machine with a GPU, where the
device is one parameter more.

In a test marked ``schedules_in_turn`` the emulator's schedule makes no pairs: such a test is about
sizes, which do not depend on the schedule, and the race check finds missing barriers under any.

A test marked ``at_length`` takes long and has a shorter kin among the others: it is left out whole.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = (TESTS / "ext", TESTS / "emulation")


def covering(cases: Sequence[Mapping[str, str]], unpaired: str = "") -> set[int]:
    """Returns the indices of cases that have all pairs of values which the cases have.

    Args:
        cases: the value of each parameter.
        unpaired: a parameter whose values are distributed over these cases, and make no pairs.
    """
    pairs = [{*combinations_with_replacement(sorted(case.items()), 2)} for case in cases]
    wanted = [{pair for pair in of if unpaired not in dict(pair)} for of in pairs]
    chosen = set[int]()
    while True:
        gains = [(len(of), len(more)) for of, more in zip(wanted, pairs, strict=True)]
        best = max(range(len(cases)), key=gains.__getitem__)
        if not wanted[best]:
            return chosen
        chosen.add(best)
        pairs, wanted = ([of - found[best] for of in found] for found in (pairs, wanted))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what the usual run does not need."""
    if os.environ.get("USUCL_HYPOTHESIS_PROFILE") == "long" or torch.cuda.is_available():
        return
    grids = defaultdict[tuple[Path, str], list[pytest.Function]](list)
    for item in items:
        is_case = isinstance(item, pytest.Function) and hasattr(item, "callspec")
        if is_case and any(item.path.is_relative_to(folder) for folder in FOLDERS):
            grids[item.path, item.originalname].append(item)
    left_out = {item for item in items if item.get_closest_marker("at_length") is not None}
    for grid in grids.values():
        in_turn = grid[0].get_closest_marker("schedules_in_turn") is not None
        chosen = covering([*map(_case, grid)], unpaired="emulator" if in_turn else "")
        left_out |= {item for number, item in enumerate(grid) if number not in chosen}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


def _case(item: pytest.Function) -> dict[str, str]:
    """Returns the value of each parameter; names that are given together are one parameter."""
    values = dict(item.callspec.params)
    case = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0]
        names = names.replace(",", " ").split() if isinstance(names, str) else names
        case[",".join(names)] = repr([values.pop(name, None) for name in names])
    return case | {name: repr(value) for name, value in values.items()}

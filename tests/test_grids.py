"""Tests the choice of cases that the usual run has of a grid of parameters."""

from __future__ import annotations

from itertools import combinations, product

from grids import covering

GRID = [
    {"dtype": dtype, "emulator": emulator, "keys": keys}
    for dtype, emulator, keys in product("abc", "wxyz", "12")
]


def test_every_pair_of_values_stays_with_a_half_of_the_cases() -> None:
    chosen = [GRID[number] for number in covering(GRID)]
    assert len(chosen) == 12
    for one, other in combinations(GRID[0], 2):
        assert {(c[one], c[other]) for c in chosen} == {(c[one], c[other]) for c in GRID}


def test_an_unpaired_parameter_keeps_its_values() -> None:
    chosen = [GRID[number] for number in covering(GRID, unpaired="emulator")]
    assert len(chosen) == 6
    assert {(c["dtype"], c["keys"]) for c in chosen} == set(product("abc", "12"))
    assert {c["emulator"] for c in chosen} == set("wxyz")


def test_grids_of_two_parameters_and_single_cases_stay_whole() -> None:
    for grid in ([{"dtype": c["dtype"], "keys": c["keys"]} for c in GRID[::4]], GRID[:1]):
        assert len(covering(grid)) == len({tuple(case.values()) for case in grid})

"""Tests the check that a session with all tests runs every kernel emulated."""

from __future__ import annotations

from kernel_list import gaps, kernels_in_source

RUN = {"{anonymous}::one<float, 2>": {"test"}, "usucl::two": {"test"}}
ALL = {**RUN, "{anonymous}::one<double, 2>": {"test"}}


def test_kernels_are_found_in_the_sources() -> None:
    assert len(kernels_in_source()) > 10, "the pattern no longer finds kernels"


def test_a_whole_session_has_no_gaps() -> None:
    assert gaps(ALL, {"one", "two"}) == []


def test_a_kernel_that_no_test_runs_is_named() -> None:
    assert gaps(ALL, {"one", "two", "three"}) == ["no emulated test runs three"]


def test_what_runs_for_float_must_run_for_double() -> None:
    assert gaps(RUN, {"one", "two"}) == ["no emulated test runs {anonymous}::one<double, 2>"]


def test_a_kernel_that_the_pattern_misses_is_named() -> None:
    assert gaps(ALL, {"two"}) == ["one ran, but is not found in the sources"]

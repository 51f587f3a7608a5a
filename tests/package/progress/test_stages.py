"""Stages and jobs: what is done, and the remaining time of the whole, by a fake clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from progress import Heard

from usucl._progress import job, listen, listening, stage, track
from usucl._progress.stages import SILENT, Stage


def test_without_a_listener_there_is_nothing_but_the_items() -> None:
    items = [1, 2]
    assert track(items, "Counting") is items
    assert stage("Counting", 2) is SILENT
    with stage("Counting", 2) as bar:
        bar.advance(2)
        bar.update(note="much", parts={"Reading": 1})
        bar.restart(1, 2)
    assert vars(SILENT)["done"] == 0 and not SILENT.note and not SILENT.parts
    assert not listening()


def test_the_remaining_time_of_items_follows_their_rate(heard: Heard) -> None:
    for number in track(range(10), "Counting"):
        heard.later(2.0)
        left = (9 - number) * 2 if number else None  # the item at hand is nearly finished
        assert heard.last == ("Counting", number, left, None if left is None else True)
    with stage("Waiting"):
        heard.later(1.0)
        assert heard.last[2] is None
    with stage("Counting", 10) as bar:
        assert heard.last[2] is None  # before the first item
        heard.finish(bar, 2, 4.0)
        heard.finish(bar, 2, 4.0)
        assert heard.last == ("Counting", 4, 12.0, True)
        heard.later(3.0)
        assert heard.last[2] == 9.0
        heard.later(3.0)  # the next two take longer than those before: the rate falls
        assert heard.last[2] == pytest.approx(4 * 14 / 6)
        heard.later(14.0)
        assert heard.last[2] == pytest.approx(4 * 28 / 6)
        for _ in range(100):  # not one in the last minute: all time counts
            heard.later(1.0)
        assert heard.last[2] == pytest.approx(4 * 128 / 6)


def test_measured_times_replace_the_expected_ones(heard: Heard) -> None:
    with stage("All", parts={"Reading": 10, "Thinking": 30, "Writing": 5}):
        heard.later(1.0)
        assert heard.last[2] is None  # nothing is measured
        with stage("Reading", 10) as bar:
            heard.finish(bar, 5, 10.0)  # twice as slow as expected
            assert heard.last == ("Reading", 5, 10 + 2 * 35, True)
            heard.finish(bar, 5, 10.0)
        assert heard.last[2] == 2 * 35
        with stage("Thinking"):  # without a count, its expectation runs down
            heard.later(20.0)
            assert heard.last[2] == 2 * 35 - 20
            heard.later(10.0)
        took, expected = 20 + 30, 10 + 30
        heard.later(0.0)
        assert heard.last[2] == pytest.approx(took / expected * 5)
        with stage("Writing", 2) as bar:
            heard.finish(bar, 1, 3.0)
            assert heard.last == ("Writing", 1, 3.0, True)


def test_what_is_not_known_beforehand_is_said(heard: Heard) -> None:
    with stage("All", parts={"Reading": 1, "Training": None}) as whole:
        with stage("Reading", 4) as bar:
            heard.finish(bar, 1, 1.0)
            assert heard.last == ("Reading", 1, 3.0, False)
            whole.update(parts={"Training": 4.0})
            heard.later(0.0)
            assert heard.last == ("Reading", 1, 3.0 + 16.0, True)
        with stage("Training", 10) as bar:
            bar.restart(4, 10)  # a run is resumed
            heard.finish(bar, 2, 2.0)
            assert heard.last == ("Training", 6, 4.0, True)


def test_jobs_within_jobs_are_parts_of_the_whole(heard: Heard) -> None:
    @job("Training", {"Reading": 1, "Steps": 9})
    def training() -> None:
        for _ in track([0], "Reading"):
            heard.later(2.0)
        with stage("Steps", 9) as bar:
            heard.finish(bar, 3, 6.0)
            assert heard.last == ("Steps", 3, 12.0 + 2 * 10, True)

    with stage("Demo", parts={"Training": 10, "Reporting": 10}):
        training()
    assert heard.display.ended == ["Reading", "Steps"]
    assert heard.display.opened == 0


def test_threads_count_on_one_bar_and_their_stages_are_within_it(heard: Heard) -> None:
    with stage("Reading", 400) as bar:
        inner: list[Stage] = []

        def count() -> None:
            with stage("Decoding") as one:
                inner.append(one)
                for _ in range(100):
                    bar.advance()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bar.done == 400
        assert [one.parent for one in inner] == [bar] * 4
    assert heard.display.opened == 0


def test_an_error_closes_everything(heard: Heard) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError), stage("All", parts={"Reading": 1}):
        for _ in track(broken(), "Reading"):
            stage("Left open").__enter__()
    assert heard.display.opened == 0 and heard.display.ended == []
    with stage("Afterwards"):
        assert heard.last[0] == "Afterwards"


def test_the_outermost_caller_decides_and_an_inner_one_may_hide(heard: Heard) -> None:
    @job("Working")
    def work(progress: bool = True) -> bool:
        return listening()

    assert work() and not work(progress=False)
    with listen() as inner:
        assert inner is heard.listener
    with listen(None) as inner:
        assert inner is heard.listener
    with listen(False):
        assert not listening() and not work() and stage("Hidden") is SILENT
    assert listening()


def test_a_function_shows_its_progress_if_asked() -> None:
    @job("Working")
    def work(progress: bool = False) -> bool:
        return listening()

    assert not work() and work(progress=True) and not listening()

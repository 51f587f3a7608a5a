"""The runs of a comparison, and their execution in several processes."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from usucl.comparison.design.config import ComparisonConfig
    from usucl.comparison.design.subject import Subject
    from usucl.comparison.measurement.predictions import Predictions
    from usucl.comparison.training.supervised import Truth
    from usucl.data import VideoCatalog
    from usucl.models import FrameEncoder


@dataclass(frozen=True, order=True)
class Run:
    """One arm with one seed, tested on the patients of one fold."""

    seed: int
    fold: int
    arm: str


class Failure(NamedTuple):
    """A run that could not be done, and why."""

    run: Run
    reason: str


def planned(config: ComparisonConfig, folds: Sequence[int]) -> list[Run]:
    """Returns all runs, seed by seed, so that a comparison that is stopped is even."""
    runs = []
    for number in range(config.seeds):
        of_seed = folds if config.hold_out == "all" else [folds[number % len(folds)]]
        for fold in of_seed:
            runs += [Run(config.seed + number, fold, arm.name) for arm in config.arms]
    return runs


class Bench:
    """What does runs, one after the other: the frames of the probes are read once.

    Args:
        config: the options.
        subject: the videos.
    """

    def __init__(self, config: ComparisonConfig, subject: Subject) -> None:
        from usucl.comparison.design.subject import without_labels
        from usucl.comparison.measurement.probing import Probed

        self.config = config
        self.subject = subject
        self.probed = Probed(subject, config)
        self._videos = without_labels(subject.catalog)
        self._arms = {arm.name: arm for arm in config.arms}

    def do(self, run: Run, folder: Path) -> None:
        """Trains, measures and writes one run.

        Raises:
            RuntimeError: it cannot be done; says why.
        """
        from usucl.comparison.measurement.predictions import SUPERVISED, RunResult
        from usucl.comparison.training.fitting import Trained
        from usucl.comparison.training.pretraining import pretrain
        from usucl.evaluation.embed import PixelEncoder

        arm, config = self._arms[run.arm], self.config
        done: Trained | None = None
        if arm.weights == "pixels":
            encoder: nn.Module = PixelEncoder()
        else:
            done = pretrain(arm, config, *self._part(~self.subject.held_out(run.fold)), run.seed)
            encoder = done.encoder
        features = self.probed.features(encoder)
        predictions = self.probed.predictions(features, run.fold, run.seed)
        if done is not None and done.classifier is not None:
            tested = features[self.probed.tested(run.fold)]
            predictions += self.probed.answers(done.classifier, tested, run.fold, SUPERVISED)
        elif done is not None and config.finetune:
            predictions += self._finetuned(done.encoder, run)
        RunResult(
            arm=arm.name,
            seed=run.seed,
            fold=run.fold,
            predictions=predictions,
            retrieval=(
                self.probed.retrieval(encoder, run.fold, run.seed) if config.retrieval else {}
            ),
            spread=self.probed.spread(features, run.fold),
            curve=() if done is None else done.curve,
            seconds=0.0 if done is None else done.seconds,
            images_per_second=0.0 if done is None else done.images_per_second,
            neighbours=self.probed.neighbours(features, run.fold),
        ).save(folder)
        del done, encoder
        gc.collect()  # a trainer and its module refer to each other, and hold the optimiser's state

    def _finetuned(self, encoder: FrameEncoder, run: Run) -> tuple[Predictions, ...]:
        """Returns what the encoder says after training with the labels of each share."""
        from usucl.comparison.measurement.predictions import FINETUNED
        from usucl.comparison.training.finetuning import finetune

        made: tuple[Predictions, ...] = ()
        for share in self.config.shares:
            videos, truth = self._part(self.subject.share_of_patients(run.fold, share, run.seed))
            truth = {
                column: (classes, of_videos)
                for column, (classes, of_videos) in truth.items()
                if any((of_video >= 0).any() for of_video in of_videos)
            }
            if not truth:
                continue
            trained = finetune(encoder, self.config, videos, truth, run.seed)
            assert trained.classifier is not None
            features = self.probed.features(trained.encoder, run.fold)
            made += self.probed.answers(trained.classifier, features, run.fold, FINETUNED, share)
        return made

    def _part(self, chosen: NDArray[np.bool_]) -> tuple[VideoCatalog, Truth]:
        """Returns some of the videos, and their labels apart from them."""
        entries = itertools.compress(self._videos.entries, chosen)
        truth = {
            task.name: (len(task.classes), tuple(itertools.compress(task.truth, chosen)))
            for task in self.subject.tasks
        }
        return replace(self._videos, entries=tuple(entries)), truth


_bench: Bench | None = None  # of a process that does runs


def _begin(config: ComparisonConfig, subject: Subject, threads: int) -> None:
    global _bench
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # what is to be said of the data has been said
    _bench = Bench(config, subject)


def _end_with_parent() -> None:
    """Ends this process once the one that started it has ended, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(run: Run, folder: Path) -> None:
    assert _bench is not None
    _bench.do(run, folder)


def do_all(
    config: ComparisonConfig,
    subject: Subject,
    folders: Mapping[Run, Path],
    processes: int,
) -> Iterator[tuple[Run, Failure | None]]:
    """Does runs in several processes, and yields each when it has ended.

    Args:
        config: the options.
        subject: the videos.
        folders: where each run is written.
        processes: number of processes, which share the cores.

    Yields:
        The run, and what went wrong, None if nothing did.
    """
    if processes == 1:
        bench = Bench(config, subject)
        for run, folder in folders.items():
            yield run, _failure(run, bench.do, run, folder)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(config, subject, threads),
    )
    try:
        with without_main():
            pending: dict[Future[None], Run] = {
                pool.submit(_do, run, folder): run for run, folder in folders.items()
            }
        for future in as_completed(pending):
            yield pending[future], _failure(pending[future], future.result)
    except BaseException:  # whoever stops it does not want to wait for the runs that go on
        for process in set(multiprocessing.active_children()) - others:
            process.kill()  # on SIGTERM, Lightning only ends the training, and the next run begins
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def without_main() -> Iterator[None]:
    """Starts processes that do not run the caller's script, which then needs no guard.

    They would import it, to find in it what is sent to them; nothing of it is.
    """
    main: Any = sys.modules["__main__"]
    kept = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)


def _failure(run: Run, call: Callable[..., None], *arguments: object) -> Failure | None:
    """Calls what does a run, and returns what went wrong if that concerns this run alone."""
    try:
        call(*arguments)
    except (RuntimeError, ValueError, ImportError) as error:
        if isinstance(error, BrokenExecutor):
            raise
        return Failure(run, str(error).split("\n", 1)[0])
    return None

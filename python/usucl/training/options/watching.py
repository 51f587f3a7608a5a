"""Options of what is watched during training; none of them changes the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from usucl._ranges import check_range

LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow", "none"]
ProbeName = Literal["knn", "linear"]
MOST_FRAMES = 1_000_000
MOST_ROWS = 100


@dataclass(frozen=True)
class WatchingConfig:
    """What is measured and shown during training. The encoder is the same to the bit without it.

    Attributes:
        logger: where the metrics go besides ``metrics.csv`` and the other tables of the run folder,
            which every run has: ``"tensorboard"``, ``"wandb"`` (Weights & Biases), ``"mlflow"``, or
            a list of these; ``"csv"`` for these tables alone, as does ``"none"``. Weights & Biases
            and MLflow are packages to be installed, and find their servers in the environment
            (``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``).
        project: project of Weights & Biases and experiment of MLflow; the run there has the name of
            the run folder.
        histograms: whether each row of metrics has histograms of the similarities of the anchors to
            positives and selected negatives, in ``hardness.csv`` and TensorBoard.
        probe_every: epochs between two probes of the encoder on the labelled videos among those
            that are trained on, with its value before the first epoch and after the last; 0 for no
            probes. The folds are by patient. Held-out videos stay unseen, so whatever is chosen by
            a probe is not chosen by the figures of ``usucl evaluate``. Results are in
            ``probe.csv``.
        probes: which ones, ``"knn"`` (20 neighbours), ``"linear"`` (logistic regression), or both.
        probe_frames: greatest number of frames that they see, evenly spaced in evenly many videos
            of every label; their pictures stay in memory.
        images_every: epochs between two sheets of mined negatives, ``negatives/*.png`` and in the
            loggers: a few anchors of the epoch's last batch with their positives and their hardest
            negatives; 0 for no sheets.
        images: number of anchors on a sheet, of different videos while there are any.
    """

    logger: LoggerName | tuple[LoggerName, ...] = "tensorboard"
    project: str = "usucl"
    histograms: bool = True
    probe_every: int = 0
    probes: tuple[ProbeName, ...] = ("knn",)
    probe_frames: int = 1000
    images_every: int = 0
    images: int = 6

    def __post_init__(self) -> None:
        for name in self.loggers:
            if name not in get_args(LoggerName):
                known = ", ".join(get_args(LoggerName))
                raise ValueError(f"watching.logger must be of {known}, got {name!r}")
        if not self.loggers or ("none" in self.loggers and len(self.loggers) > 1):
            raise ValueError(
                f"watching.logger must be 'none' alone or some others, got {list(self.loggers)}"
            )
        if not self.project.strip():
            raise ValueError(f"watching.project must be a name, got {self.project!r}")
        if not self.probes or set(self.probes) - set(get_args(ProbeName)):
            known = ", ".join(get_args(ProbeName))
            raise ValueError(f"watching.probes must be some of {known}, got {list(self.probes)}")
        check_range("watching.probe_every", self.probe_every, 0)
        check_range("watching.probe_frames", self.probe_frames, 2, MOST_FRAMES)
        check_range("watching.images_every", self.images_every, 0)
        check_range("watching.images", self.images, 1, MOST_ROWS)

    @property
    def loggers(self) -> tuple[str, ...]:
        """The names in ``logger``, each once."""
        names = (self.logger,) if isinstance(self.logger, str) else self.logger
        return tuple(dict.fromkeys(names))

"""What an arm's encoder is worth: probes of its features on the patients that were held out."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from usucl._spread import effective_rank, uniformity
from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.design.subject import Subject, Task, share_of_patients
from usucl.comparison.measurement.predictions import Predictions
from usucl.data import normalise
from usucl.data.store import FrameStore
from usucl.embedding import default_device, evenly_spaced, numbered
from usucl.evaluation import probes
from usucl.evaluation.retrieval import temporal_retrieval

BATCH = 128


class Probed:
    """The frames of all videos that the probes see, which are the same for every arm.

    Attributes:
        video, frame: number of the video and of the frame in it, int64 ``[n]``.
    """

    def __init__(self, subject: Subject, config: ComparisonConfig) -> None:
        self.subject = subject
        self.config = config
        frames = [evenly_spaced(e.num_frames, config.probe_frames) for e in subject.catalog]
        self.video = np.repeat(np.arange(len(frames)), [len(f) for f in frames])
        self.frame = np.concatenate([np.array(f, dtype=np.int64) for f in frames])
        self._frames = frames
        self._store: FrameStore | None = None

    def features(self, encoder: nn.Module) -> Tensor:
        """Returns the features of all frames, float32 ``[n, F]``, on the CPU."""
        from torchvision.transforms.v2 import functional as F

        size = self.config.image_size
        if self._store is None:
            limit = int(self.config.cache_gb * 1e9)
            self._store = FrameStore(self.subject.catalog.entries, size, limit)
        device, found = default_device(), []
        encoder = encoder.to(device).eval()
        with torch.no_grad():
            for number, frames in enumerate(self._frames):
                images = F.center_crop(self._store.frames(number, frames), [size, size])
                if images.shape[1] == 1:
                    images = images.expand(-1, 3, -1, -1)
                for part in normalise(images).split(BATCH):
                    found.append(encoder.features(part.to(device)).float().cpu())  # type: ignore[operator]
        features = torch.cat(found)
        if not features.isfinite().all():
            raise RuntimeError("the features of the trained encoder are not finite")
        return features

    def predictions(
        self,
        features: Tensor,
        fold: int,
        seed: int,
        supervised: tuple[Collection[str], Callable[[str, Tensor], Tensor]] | None = None,
    ) -> tuple[Predictions, ...]:
        """Returns what the probes say of the patients of a fold.

        Args:
            features: of all frames.
            fold: the patients that are tested; the probes are fitted on others.
            seed: chooses the patients of the smaller shares.
            supervised: tasks of a supervised arm, and its own probabilities by task and features.
        """
        held_out = self.subject.held_out(fold)
        made = []
        for task in self.subject.tasks:
            for share in self.config.shares:
                fitted = share_of_patients(self.subject.catalog, ~held_out, share, seed)
                for name in self.config.probes:
                    predictor = probes.PROBES[name].predictor
                    parts = (fitted, held_out, features, predictor)
                    made.append(self._predicted(task, name, share, *parts))
            if supervised is not None and task.name in supervised[0]:
                own = _Own(task.name, supervised[1])
                parts = (~held_out, held_out, features, own)
                made.append(self._predicted(task, "supervised", 1.0, *parts))
        return tuple(p for p in made if p is not None)

    def _predicted(
        self,
        task: Task,
        name: str,
        share: float,
        fitted: np.ndarray,
        held_out: np.ndarray,
        features: Tensor,
        predictor: probes.Predictor,
    ) -> Predictions | None:
        truth = np.array(
            [task.truth[v][f] for v, f in zip(self.video, self.frame, strict=True)], dtype=np.int64
        )
        fit = np.flatnonzero(fitted[self.video] & (truth >= 0))
        test = np.flatnonzero(held_out[self.video] & (truth >= 0))
        if not len(fit) or not len(test):
            return None
        values = features.numpy()
        probability = predictor(values[fit], truth[fit], values[test], len(task.classes))
        names, group = numbered(entry.group for entry in self.subject.catalog)
        video, every = self.video[test], np.ones(len(task.classes), dtype=bool)
        found = probes.Predictions(truth[test], probability, group[video], every)
        if task.level == "video":
            found = probes.per_video(found, video)
        return Predictions(
            task=task.name,
            probe=name,
            level=task.level,
            share=share,
            classes=task.classes,
            truth=found.truth,
            probability=found.probability.astype(np.float32),
            patient=tuple(names[g] for g in found.group),
        )

    def spread(self, features: Tensor, fold: int) -> dict[str, float]:
        """Returns how the features of the tested patients' frames are spread."""
        tested = self.subject.held_out(fold)[self.video]
        unit = nn.functional.normalize(features[torch.from_numpy(tested)], dim=1)
        video = torch.from_numpy(self.video[tested])
        return {"effective_rank": effective_rank(unit), "uniformity": uniformity(unit, video)}

    def retrieval(self, encoder: nn.Module, fold: int, seed: int) -> dict[str, dict[str, float]]:
        """Returns the AUROC of temporal retrieval by features, by task and tested patient."""
        held_out = self.subject.held_out(fold)
        entries = [e for e, kept in zip(self.subject.catalog, held_out, strict=True) if kept]
        return temporal_retrieval(
            entries,
            {"arm": _ByFeatures(encoder)},
            image_size=self.config.image_size,
            frames_per_video=self.config.probe_frames,
            queries_per_video=8,
            seed=seed,
        )["arm"]


class _ByFeatures(nn.Module):
    """An encoder whose embedding is its features."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        return self.encoder.features(images)  # type: ignore[operator]


class _Own:
    """The classifier of a supervised arm, in the place of a probe."""

    def __init__(self, task: str, predict: Callable[[str, Tensor], Tensor]) -> None:
        self.task = task
        self.predict = predict

    def __call__(
        self, fit: probes.Features, truth: probes.IntArray, test: probes.Features, classes: int
    ) -> NDArray[np.float64]:
        return self.predict(self.task, torch.from_numpy(test)).numpy().astype(np.float64)

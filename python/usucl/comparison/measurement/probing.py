"""What an arm's encoder is worth: probes of its features on the patients that were held out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from usucl._spread import effective_rank, uniformity
from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.design.subject import Subject, Task
from usucl.comparison.measurement.neighbours import Neighbours, neighbours
from usucl.comparison.measurement.predictions import Predictions
from usucl.comparison.training.supervised import Supervised
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

    def tested(self, fold: int) -> NDArray[np.bool_]:
        """Returns which of the frames are of the tested patients ``[n]``."""
        return self.subject.held_out(fold)[self.video]

    def features(self, encoder: nn.Module, fold: int | None = None) -> Tensor:
        """Returns the features of all frames, float32 ``[n, F]``, on the CPU.

        Args:
            encoder: the network, which is moved to the default device.
            fold: only the frames of its tested patients are wanted.
        """
        from torchvision.transforms.v2 import functional as F

        size = self.config.image_size
        if self._store is None:
            limit = int(self.config.cache_gb * 1e9)
            self._store = FrameStore(self.subject.catalog.entries, size, limit)
        device, found = default_device(), []
        wanted = None if fold is None else self.subject.held_out(fold)
        encoder = encoder.to(device).eval()
        with torch.no_grad():
            for number, frames in enumerate(self._frames):
                if wanted is not None and not wanted[number]:
                    continue
                images = F.center_crop(self._store.frames(number, frames), [size, size])
                if images.shape[1] == 1:
                    images = images.expand(-1, 3, -1, -1)
                for part in normalise(images).split(BATCH):
                    found.append(encoder.features(part.to(device)).float().cpu())  # type: ignore[operator]
        features = torch.cat(found)
        if not features.isfinite().all():
            raise RuntimeError("the features of the trained encoder are not finite")
        return features

    def predictions(self, features: Tensor, fold: int, seed: int) -> tuple[Predictions, ...]:
        """Returns what the probes say of the patients of a fold.

        Args:
            features: of all frames.
            fold: the patients that are tested; the probes are fitted on others.
            seed: chooses the patients of the smaller shares.
        """
        tested, values, made = self.tested(fold), features.numpy(), []
        for task in self.subject.tasks:
            truth = self._truth(task)
            test = np.flatnonzero(tested & (truth >= 0))
            for share in self.config.shares:
                kept = self.subject.share_of_patients(fold, share, seed)
                fit = np.flatnonzero(kept[self.video] & (truth >= 0))
                if not len(fit) or not len(test):
                    continue
                for name in self.config.probes:
                    predictor, classes = probes.PROBES[name].predictor, len(task.classes)
                    probability = predictor(values[fit], truth[fit], values[test], classes)
                    of = (truth[test], probability)
                    made.append(self._predicted(task, name, share, test, *of))
        return tuple(made)

    def answers(
        self,
        classifier: Supervised,
        features: Tensor,
        fold: int,
        probe: str,
        share: float = 1.0,
    ) -> tuple[Predictions, ...]:
        """Returns what a network that was trained with labels says itself.

        Args:
            classifier: what was trained besides the network.
            features: of the frames of the tested patients, in the order of all frames.
            fold: the patients that are tested.
            probe, share: as in :class:`Predictions`.
        """
        tested, made = np.flatnonzero(self.tested(fold)), []
        for task in self.subject.tasks:
            truth = self._truth(task)[tested]
            labelled = truth >= 0
            if task.name in classifier.columns and labelled.any():
                of_labelled = features[torch.from_numpy(labelled)]
                probability = classifier.predict(task.name, of_labelled).numpy().astype(np.float64)
                test = tested[labelled]
                of = (truth[labelled], probability)
                made.append(self._predicted(task, probe, share, test, *of))
        return tuple(made)

    def _truth(self, task: Task) -> NDArray[np.int64]:
        """Returns the class of every frame, -1 without one."""
        classes = [task.truth[v][f] for v, f in zip(self.video, self.frame, strict=True)]
        return np.array(classes, dtype=np.int64)

    def _predicted(
        self,
        task: Task,
        probe: str,
        share: float,
        test: NDArray[np.int64],
        truth: NDArray[np.int64],
        probability: NDArray[np.float64],
    ) -> Predictions:
        """Returns what was said of the frames ``test``, by video where a video has one label."""
        names, group = numbered(entry.group for entry in self.subject.catalog)
        video, every = self.video[test], np.ones(len(task.classes), dtype=bool)
        found = probes.Predictions(truth, probability, group[video], every)
        if task.level == "video":
            found = probes.per_video(found, video)
        return Predictions(
            task=task.name,
            probe=probe,
            level=task.level,
            share=share,
            classes=task.classes,
            truth=found.truth,
            probability=found.probability.astype(np.float32),
            patient=tuple(names[g] for g in found.group),
        )

    def spread(self, features: Tensor, fold: int) -> dict[str, float]:
        """Returns how the features of the tested patients' frames are spread."""
        tested = self.tested(fold)
        unit = nn.functional.normalize(features[torch.from_numpy(tested)], dim=1)
        video = torch.from_numpy(self.video[tested])
        return {"effective_rank": effective_rank(unit), "uniformity": uniformity(unit, video)}

    def neighbours(self, features: Tensor, fold: int) -> tuple[Neighbours, ...]:
        """Returns the frames most like a few of the tested ones, by the features of all frames."""
        tested = self.subject.held_out(fold)
        return neighbours(self.subject.catalog, tested, self.video, self.frame, features)

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

"""The interface of a training method, and the options that all methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from usucl._ranges import check_range
from usucl.data import FrameBatch, Sampler, UltrasoundAugmentation
from usucl.data.augmentation import AugmentationName, check_augmentation
from usucl.data.sampling.balance import Balance
from usucl.data.sampling.clock import TimeUnit
from usucl.losses import Frames, LossInputs

Encode = Callable[[Tensor], Tensor]
"""Maps normalised images ``[B, channels, S, S]`` to embeddings ``[B, dim]``."""

MOST_WORKERS = 1024
MOST_POSITIVES = 1024


@dataclass(frozen=True)
class SamplingConfig:
    """The choice of a batch's frames, and their storage. A method may add options of its sampler.

    Attributes:
        videos: videos per batch.
        balance: what is drawn equally often: every ``"video"``, every ``"patient"`` (a video of an
            unknown patient counts as one), or every ``"frame"`` (so videos in proportion to their
            length). A batch has a video, or balanced by patient a patient, at most once.
        positive_radius: greatest distance of a positive from its anchor, in frames.
        positives: positives per anchor; the loss is the mean of the losses with each.
        augmentation: ``"crop"``, ``"crop-flip-jitter"`` (also brightness and contrast), for
            ultrasound ``"global"`` (keeps the whole picture) or ``"local"`` (crops), or options of
            :class:`usucl.data.UltrasoundAugmentation` by name, in which ``recipe`` may be one of
            the last two.
        time_unit: unit of times and windows.
        min_gap: least time, in ``time_unit``, from the farthest possible positive of an anchor to
            its nearest intra-video negative; one frame at least.
        guard: greatest Pearson correlation of the thumbnails (16 x 16, grey) of an anchor and its
            intra-video negatives, such as 0.98; frames that are more alike, as those of a frozen
            clip or of the same phase of a heartbeat, are no negatives of each other. None for no
            limit. ``guard.csv`` in the run folder says how many pairs of each video that refuses.
        cache_gb: greatest size of the stored decoded frames, in 10^9 bytes; others are decoded
            each time.
        num_workers: processes that make batches; 0 makes them in the training process.
        multiprocessing_context: how those are started, ``"fork"``, ``"spawn"`` or ``"forkserver"``;
            None for Python's default. The batches are the same.
    """

    videos: int = 8
    balance: Balance = "video"
    positive_radius: int = 3
    positives: int = 1
    augmentation: AugmentationName | dict[str, Any] = "crop-flip-jitter"
    time_unit: TimeUnit = "fraction"
    min_gap: float = 0.0
    guard: float | None = None
    cache_gb: float = 4.0
    num_workers: int = 0
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None

    def __post_init__(self) -> None:
        check_range("sampling.videos", self.videos, 1)
        if isinstance(self.augmentation, UltrasoundAugmentation):  # a file holds options by name
            object.__setattr__(self, "augmentation", self.augmentation.options())
        check_augmentation(self.augmentation)
        check_range("sampling.positive_radius", self.positive_radius, 0)
        check_range("sampling.positives", self.positives, 1, MOST_POSITIVES)
        check_range("sampling.min_gap", self.min_gap, 0)
        check_range("sampling.guard", self.guard, -1, 1)
        check_range("sampling.cache_gb", self.cache_gb, 0)
        check_range("sampling.num_workers", self.num_workers, 0, MOST_WORKERS)


@dataclass(frozen=True)
class KeyConfig:
    """The negative bank. A method may add options of its other keys.

    Attributes:
        bank: number of frames in the negative bank; 0 for no bank. Several processes have each
            the whole bank, with the same content.
        search: search of the bank: ``"exact"``, ``"Flat"`` or a string of FAISS's index factory.
            This and the next four are as in :class:`usucl.bank.NegativeBank`. With any other than
            ``"exact"``, the loss gets the bank's hardest candidates instead of the bank.
        max_age: greatest age of a frame that is used, in frames enqueued since; null for all in
            the bank. A limit of a few steps' frames is for an encoder that moves fast, without a
            momentum encoder.
        nprobe: cells of an inverted file that each query searches.
        ef_search: candidates that a graph search keeps.
        rebuild_after: number of changed frames after which an index is rebuilt.
        sharded: whether several processes have each a part of the bank instead of all of it, which
            takes less memory and exchanges candidates. The content is the same.
    """

    bank: int = 0
    search: str = "exact"
    max_age: int | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    rebuild_after: int | None = None
    sharded: bool = False

    def __post_init__(self) -> None:
        check_range("key.bank", self.bank, 0)
        check_range("key.max_age", self.max_age, 0)
        for name in ("nprobe", "ef_search", "rebuild_after"):
            check_range(f"key.{name}", getattr(self, name), 1)
        for option in fields(KeyConfig):
            value = getattr(self, option.name)
            if self.bank == 0 and value != option.default:
                raise ValueError(f"key.{option.name} is for a bank, got {value!r} and key.bank 0")


@dataclass(frozen=True)
class MomentumKeys(KeyConfig):
    """The bank, and the momentum encoder of a method that has one.

    Attributes:
        batch_norm: statistics by which batch normalisation of the momentum encoder works:
            ``"own"``, of the images that each process encodes together; ``"shuffled"``, the same
            with the keys of all processes dealt out at random, so that they cannot tell the
            anchors of a process its own keys (He et al., CVPR 2020), which differs for several
            processes only; or ``"frozen"``, the running statistics of the encoder that is trained,
            which take some hundred steps to settle where it starts from random weights.
    """

    batch_norm: Literal["own", "shuffled", "frozen"] = "own"


def text_of(preset: str) -> str:
    """Returns the YAML text of a preset that comes with the package."""
    return Path(__file__).with_name(f"{preset}.yaml").read_text(encoding="utf-8")


Sampling = TypeVar("Sampling", bound=SamplingConfig)
Key = TypeVar("Key", bound=KeyConfig)


class Method(ABC, Generic[Sampling, Key]):
    """A way to train: a subclass in a file of its own, listed in :data:`usucl.methods.METHODS`.

    Attributes:
        name: name of the method and of its preset.
        preset: YAML text of a :class:`usucl.training.TrainingConfig`; what it leaves out keeps its
            default.
        sampling_options, key_options: the types of the config's ``sampling`` and ``key``.
        sampling, key: the options of this run.
    """

    name: ClassVar[str]
    preset: ClassVar[str]
    sampling_options: type[Sampling]
    key_options: type[Key]

    def __init__(self, sampling: Sampling, key: Key) -> None:
        self.sampling = sampling
        self.key = key

    @property
    def momentum(self) -> float | None:
        """Momentum of the momentum encoder; None for a method without one."""
        return None

    @property
    def bank_has_times(self) -> bool:
        """Whether frames enter the bank with their times, and so can be intra-video negatives."""
        return False

    @abstractmethod
    def sampler(self) -> Sampler:
        """Returns the sampler that draws the frames of each batch."""

    @abstractmethod
    def images(self, videos: int) -> int:
        """Returns the number of images in a batch, if there are ``videos`` to draw from."""

    @abstractmethod
    def inputs(
        self, batch: FrameBatch, encode: Encode, encode_keys: Encode, window: Tensor
    ) -> LossInputs:
        """Encodes a batch and arranges it for the loss; the bank's frames are added to the keys.

        Args:
            batch: batch of the sampler's frames.
            encode: the encoder that is trained, with gradient.
            encode_keys: the momentum encoder, without gradient; without one, ``encode``.
            window: ``[N, 2]`` float32, the curriculum's temporal window for each anchor.
        """

    def bank_before(self, inputs: LossInputs) -> Frames | None:
        """Returns frames to enqueue before the loss, which may select them; None for none."""
        return None

    def bank_after(self, inputs: LossInputs) -> Frames | None:
        """Returns frames to enqueue after the loss, for later steps; None for none."""
        return None

"""What a run takes, found out by doing a few of its steps: time, memory, and the sizes of files."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from usucl._progress import Stage, stage
from usucl.bank import NegativeBank
from usucl.data import FrameBatch, FrameBatches, VideoCatalog, VideoEntry
from usucl.data.store import FrameStore
from usucl.data.store.frames import resized
from usucl.losses import Frames
from usucl.models import save_encoder
from usucl.run_folder import RunFolder
from usucl.training.config import TrainingConfig
from usucl.training.fitting import make_datamodule, quiet
from usucl.training.module import ContrastiveTraining
from usucl.training.trainer import make_trainer

STEPS = 3
WARM_UP = 2  # steps before, which are slower: memory is found, and kernels are chosen
PATIENCE = 60.0  # seconds after which no further step is begun, if one has been measured
SAMPLED = 3, 32  # videos, and frames of each, that are decoded to find out what decoding takes
AT_ONCE = 4096  # frames that are put into the bank


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds at once, part by part; a float32 number has 4.

    Attributes:
        weights, gradients, optimiser: those of the encoder.
        momentum_encoder, bank: 0 without one.
        activations: what a step keeps for its backward pass, beside the weights.
        batch: the images of a batch.
        peak: greatest size of the process, or what was greatest on the GPU.
    """

    weights: int
    gradients: int
    optimiser: int
    momentum_encoder: int
    bank: int
    activations: int
    batch: int
    peak: int


@dataclass(frozen=True)
class Measurement:
    """A few steps of a run on this machine.

    Attributes:
        device: where the steps were done.
        steps: seconds of each, without waiting for its batch.
        batches: seconds to make each batch from stored frames, in one process.
        frame: seconds to decode a frame of a whole video, in one thread; 0 if nothing has to be.
        drawn: seconds to decode a single frame that is asked for.
        save: seconds to write everything that is written after an epoch.
        memory: what was in use.
        encoder, checkpoint, bank: bytes of their files; of an encoder there are two, its own and
            the backbone's.
    """

    device: str
    steps: tuple[float, ...]
    batches: tuple[float, ...]
    frame: float
    drawn: float
    save: float
    memory: Memory
    encoder: int
    checkpoint: int
    bank: int


def measure(config: TrainingConfig, training: VideoCatalog) -> Measurement:
    """Does a few steps of a run and throws them away.

    Only the frames of these steps are decoded, and a few more. The encoder starts from random
    weights whatever the options say, the bank is full, and the pixel guard is left out, which would
    have to decode everything. Files are written to a temporary folder.
    """
    own = replace(config, sampling=replace(config.sampling, guard=None, cache_gb=0.0))
    accumulate = config.optimiser.accumulate
    number = -(-(WARM_UP + STEPS) // accumulate) * accumulate
    datamodule = make_datamodule(training, own)
    store = _RememberedFrames(training.entries, datamodule.batches.augmentation.short_side)
    datamodule.batches.decode(store)
    with (
        stage("Measuring", number + 1, unit="steps") as bar,
        tempfile.TemporaryDirectory(prefix="usucl-dry-run-") as folder,
        torch.random.fork_rng(devices=[]),
        quiet(),
    ):
        batches = _time_batches(datamodule.batches, number)
        frame = _time_decoding(training, datamodule.batches.augmentation.short_side)
        bar.advance()
        torch.manual_seed(config.seed)
        module = ContrastiveTraining(own, restored=True)
        steps = _TimedSteps(bar, number)
        run = RunFolder(folder)
        trainer = make_trainer(run, own, [steps], steps=number)
        trainer.fit(module, datamodule=datamodule)
        memory = _memory(trainer, module, steps)
        save = time.perf_counter()
        trainer.save_checkpoint(run.checkpoint)
        save_encoder(module.encoder, run.path)
        if module.bank is not None:
            module.bank.save(run.bank)
        save = time.perf_counter() - save
        return Measurement(
            device=str(trainer.strategy.root_device),
            steps=tuple(steps.seconds[min(WARM_UP, len(steps.seconds) - 1) :]),
            batches=batches,
            frame=frame,
            drawn=store.seconds / max(len(store.kept), 1),
            save=save,
            memory=memory,
            encoder=sum(file.stat().st_size for file in run.path.glob("*.safetensors")),
            checkpoint=run.checkpoint.stat().st_size,
            bank=sum(file.stat().st_size for file in run.bank.glob("*")),
        )


class _RememberedFrames(FrameStore):
    """A store that decodes what it is asked for, once, and keeps it in memory.

    Attributes:
        kept: the frames, by video and number.
        seconds: time that was spent on decoding.
    """

    def __init__(self, entries: Sequence[VideoEntry], short_side: int) -> None:
        super().__init__(entries, short_side, 0)
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.seconds = 0.0

    def frames(self, index: int, frames: Sequence[int] | np.ndarray) -> Tensor:
        wanted = [int(frame) for frame in frames]
        if missing := sorted({frame for frame in wanted if (index, frame) not in self.kept}):
            since = time.perf_counter()
            found = super().frames(index, missing)
            self.seconds += time.perf_counter() - since
            self.kept |= {(index, n): image for n, image in zip(missing, found, strict=True)}
        images = [self.kept[index, frame] for frame in wanted]
        channels = max(len(image) for image in images)
        return torch.stack([image.expand(channels, -1, -1) for image in images])


class _TimedSteps(Callback):
    """Times ``number`` steps, and counts in the first what it keeps for its backward pass."""

    def __init__(self, bar: Stage, number: int) -> None:
        self.bar = bar
        self.number = number
        self.seconds: list[float] = []
        self.batch = 0
        self.saved: dict[int, int] = {}  # bytes, by storage
        self._weights: set[int] = set()
        self._hooks = ExitStack()
        self._since = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: FrameBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ContrastiveTraining)
        if not self.seconds:
            _fill(pl_module)
            self.batch = sum(_bytes(part) for part in batch if isinstance(part, Tensor))
            self._weights = {_storage(weight) for weight in pl_module.parameters()}
            self._hooks.enter_context(saved_tensors_hooks(self._count, lambda tensor: tensor))
        self._since = _now()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self._hooks.close()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        self.seconds.append(_now() - self._since)
        self.bar.advance()
        late = len(self.seconds) > 1 and sum(self.seconds) > PATIENCE
        trainer.should_stop = late or len(self.seconds) == self.number

    def _count(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._weights:
            self.saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor


def _fill(module: ContrastiveTraining) -> None:
    """Fills the bank with frames of videos that do not exist, so that its search is a whole one."""
    bank = module.bank
    if not isinstance(bank, NegativeBank):
        return
    dim = module.config.encoder.dim
    for begin in range(0, bank.capacity, AT_ONCE):
        n = min(AT_ONCE, bank.capacity - begin)
        embedding = torch.nn.functional.normalize(torch.randn(n, dim, device=bank.device), dim=1)
        none = torch.full((n,), -1, device=bank.device)
        bank.enqueue(
            Frames(embedding, 10**9 + torch.arange(n, device=bank.device), none.float(), none)
        )


def _time_batches(batches: FrameBatches, number: int) -> tuple[float, ...]:
    """Returns the seconds that each batch of the measured steps takes once it is decoded."""
    seconds = []
    for step in range(number):
        key = divmod(step, len(batches))
        batches[key]
        since = time.perf_counter()
        batches[key]
        seconds.append(time.perf_counter() - since)
    return tuple(seconds[1:])


def _time_decoding(training: VideoCatalog, short_side: int) -> float:
    """Returns the seconds that a frame of a video takes that is decoded from its beginning."""
    videos, most = SAMPLED
    places = np.linspace(0, len(training) - 1, min(videos, len(training))).round().astype(int)
    seconds, frames = 0.0, 0
    for place in places.tolist():
        entry = training.entries[place]
        n = min(most, entry.num_frames)
        video = entry.open()
        since = time.perf_counter()
        resized(video, range(n), short_side)
        seconds, frames = seconds + time.perf_counter() - since, frames + n
    return seconds / frames


def _memory(trainer: Trainer, module: ContrastiveTraining, steps: _TimedSteps) -> Memory:
    weights = [p for p in module.encoder.parameters()]
    states = [v for o in trainer.optimizers for s in o.state.values() for v in s.values()]
    bank = module.bank.state_dict() if isinstance(module.bank, NegativeBank) else {}
    if trainer.strategy.root_device.type == "cuda":
        peak = torch.cuda.max_memory_reserved()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    momentum = module.momentum_encoder
    return Memory(
        weights=sum(map(_bytes, module.encoder.state_dict().values())),
        gradients=sum(map(_bytes, weights)),
        optimiser=sum(_bytes(state) for state in states if isinstance(state, Tensor)),
        momentum_encoder=0
        if momentum is None
        else sum(map(_bytes, momentum.state_dict().values())),
        bank=sum(map(_bytes, bank.values())),
        activations=sum(steps.saved.values()),
        batch=steps.batch,
        peak=peak,
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

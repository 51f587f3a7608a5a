"""A training run whose parts are timed, and which takes turns with other ways to do a step."""

from __future__ import annotations

import contextlib
import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

import usucl.training.module as of_training
from usucl.bank import NegativeBank
from usucl.data import FrameBatch, FrameBatches
from usucl.losses import Frames
from usucl.training.optimisation.optimiser import make_optimiser

PARTS = (
    "data",
    "encoder, forward",
    "encoder, backward",
    "momentum encoder",
    "momentum update",
    "loss",
    "bank",
    "optimiser",
    "monitors",
    "rest",
)
CHUNK, OTHER_VIDEOS = 65536, 10**6
BEFORE = 3  # steps that are not counted: memory is allocated, and algorithms chosen
_HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step")

Step = Callable[[FrameBatch], None]


class Clock:
    """What measures: the time that passes, or that of the processor, in ``seconds``."""

    seconds = staticmethod(time.perf_counter)


def now() -> float:
    """Returns seconds, when all that was started on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Clock.seconds()


def fill(bank: NegativeBank) -> None:
    """Fills a bank with random directions, each of another video than those of the run."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, bank.capacity, CHUNK):
        count = min(CHUNK, bank.capacity - start)
        embedding = torch.randn(count, bank.dim, generator=generator)
        video = OTHER_VIDEOS + torch.arange(start, start + count)
        frames = Frames(F.normalize(embedding, dim=1), video, torch.full((count,), torch.nan))
        device = bank.device
        bank.enqueue(Frames(*(column.to(device) for column in frames[:3])))


class Profile:
    """The seconds of each part of the current step, none counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within: list[float] = []  # of the timed calls that are open: what others took

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Returns the function, whose time counts for a part, without timed calls inside it."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = now()
            self._within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = now() - start
                self.seconds[part] += took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return call

    def move(self, seconds: float, part: str) -> None:
        """Counts some of the innermost open call's time for another part."""
        self.seconds[part] += seconds
        if self._within:
            self._within[-1] += seconds

    def taken(self) -> dict[str, float]:
        """Returns the seconds by part, and begins anew."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


class Turns(Callback):
    """Times the steps of a run by part. Every second one has a stub for its loss, if ``stubs``.

    Args:
        steps: number of steps to count, after ``BEFORE`` that are not; then the run ends.
        stubs: whether steps with the loss and with a stub take turns: loss, stub, stub, loss.
        other: makes, from the run's module, steps by name that are done after each of the run's,
            with the same batch.

    Attributes:
        whole: seconds of each counted step with the loss, by part.
        stubbed: the same of each with a stub.
        others: seconds of each counted step of the others, by name.
    """

    def __init__(
        self,
        steps: int,
        *,
        stubs: bool = False,
        other: Callable[[LightningModule], dict[str, Step]] | None = None,
    ) -> None:
        self.steps, self.stubs, self._make_others = steps, stubs, other
        self.whole: list[dict[str, float]] = []
        self.stubbed: list[dict[str, float]] = []
        self.others: dict[str, list[float]] = defaultdict(list)
        self.profile = Profile()
        self._done = -BEFORE
        self._since = self._backward_since = 0.0
        self._selection: Any = None
        self._in_loss = False

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Joins every run that is started in the block."""
        fit, loss, item = Trainer.fit, of_training.contrastive_loss, FrameBatches.__getitem__

        def joined(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
            trainer.callbacks.append(self)  # type: ignore[attr-defined]
            return fit(trainer, *args, **kwargs)

        of_training.contrastive_loss = self.profile.timed(self._loss_or_stub(loss), "loss")
        Trainer.fit = joined  # type: ignore[method-assign,assignment]
        FrameBatches.__getitem__ = self.profile.timed(item, "data")  # type: ignore[method-assign]
        try:
            yield
        finally:
            Trainer.fit = fit  # type: ignore[method-assign]
            FrameBatches.__getitem__ = item  # type: ignore[method-assign]
            of_training.contrastive_loss = loss

    @property
    def _is_stub(self) -> bool:
        return self.stubs and self._done >= 0 and self._done % 4 in (1, 2)

    def _loss_or_stub(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        def call(inputs: Any, **options: Any) -> Any:
            keys = (frames.embedding for frames in inputs.negatives)
            given = (inputs.anchors.embedding, inputs.positives, *keys)
            embeddings = [embedding for embedding in given if embedding.requires_grad]
            self._in_loss = True
            for embedding in embeddings:
                embedding.register_hook(self._end_of_loss)
            if self._is_stub:
                return torch.stack([e.sum() for e in embeddings]).sum(), self._selection
            value, self._selection = loss(inputs, **options)
            return value, self._selection

        return call

    def _end_of_loss(self, _: Tensor) -> None:
        if self._in_loss:  # the gradient of the first embedding, whose encoder comes next
            self._in_loss = False
            self.profile.move(now() - self._backward_since, "loss")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the parts timed."""
        timed, module = self.profile.timed, pl_module
        backward = module.backward

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            self._backward_since = now()
            backward(*args, **kwargs)

        if self._make_others is not None:
            self._others = self._make_others(module)
        averages, bank = module.momentum_encoder, module.bank
        places: list[tuple[Any, str, str]] = [(module.encoder, "forward", "encoder, forward")]
        if averages is not None:
            assert isinstance(averages, nn.Module)
            places += [(averages, "forward", "momentum encoder")]
            places += [(averages, "update", "momentum update")]
        if bank is not None:
            assert isinstance(bank, NegativeBank)
            fill(bank)
            places += [(bank, name, "bank") for name in ("enqueue", "frames", "candidates")]
        places += [(module, "log", "monitors"), (trainer.optimizers[0], "step", "optimiser")]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if callback is not self:
                places += [(callback, name, "monitors") for name in _HOOKS]
        for owner, name, part in places:
            setattr(owner, name, timed(getattr(owner, name), part))
        module.backward = timed(timed_backward, "encoder, backward")  # type: ignore[method-assign]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the time between epochs, in which the run is saved."""
        self.profile.taken()
        self._since = now()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Ends a step, which begins where the others' turn was over."""
        end, parts = now(), self.profile.taken()
        took, self._since = end - self._since, end
        if self._done >= 0:
            parts["rest"] = took - sum(parts.values())
            (self.stubbed if self._is_stub else self.whole).append(parts)
        for name, step in self._others.items() if self._make_others is not None else ():
            start = now()
            step(batch)
            if self._done >= 0:
                self.others[name].append(now() - start)
        self._done += 1
        if self._done == self.steps:
            trainer.should_stop = True
        self.profile.taken()
        self._since = now()


def lightly_steps(kind: str, bank: int, temperature: float) -> Callable[[Any], dict[str, Step]]:
    """Returns what makes steps of lightly's MoCo or SimCLR with a run's own encoder and optimiser.

    They are a plain loop, without a trainer, monitors or checks.

    Raises:
        AssertionError: the encoder does not give the embeddings of the run's.
    """
    from lightly.loss import NTXentLoss
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    def make(module: Any) -> dict[str, Step]:
        encoder = copy.deepcopy(module.encoder)
        images = torch.randn(4, 3, *2 * [encoder.config.image_size], device=module.device)
        with torch.no_grad():
            modes = [network.training for network in (encoder, module.encoder)]
            ours, theirs = module.encoder.eval()(images), encoder.eval()(images)
            assert torch.equal(ours, theirs), "the encoders differ"
            encoder.train(modes[0]), module.encoder.train(modes[1])
        optimiser = make_optimiser(encoder, module.config.optimiser)
        device = module.device.type
        autocast = torch.autocast(device, torch.bfloat16, module.trainer.precision != "32-true")
        average = copy.deepcopy(encoder)
        deactivate_requires_grad(average)
        size = (bank, encoder.config.dim) if kind == "MoCo" else 0
        criterion = NTXentLoss(temperature, memory_bank_size=size).to(module.device)

        def moco(batch: FrameBatch) -> None:
            update_momentum(encoder, average, m=0.999)
            with autocast:
                query = encoder(batch.anchor_view)
                with torch.no_grad():
                    key = average(batch.positive_view)
            _finish(criterion(query, key))

        def simclr(batch: FrameBatch) -> None:
            with autocast:
                both = encoder(torch.cat([batch.anchor_view, batch.positive_view]))
            _finish(criterion(*both.chunk(2)))

        def _finish(loss: Tensor) -> None:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return {f"lightly, {kind}": moco if kind == "MoCo" else simclr}

    return make

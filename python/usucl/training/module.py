"""The training step: encodes the views, computes the loss and fills the bank."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from usucl.bank import NegativeBank
from usucl.bank.exchange import Exchange
from usucl.bank.round_robin import RoundRobinBank
from usucl.data import BatchPart, FrameBatch, FrameBatches, VideoDataModule
from usucl.losses import Frames, LossInputs, Selection, contrastive_loss
from usucl.methods.method import Encode
from usucl.models import FrameEncoder, MomentumEncoder
from usucl.models.encoder import untrained
from usucl.models.normalisation import synchronise
from usucl.training.computing import compile_encoder
from usucl.training.config import TrainingConfig
from usucl.training.optimisation.accumulation import batches_in_step, begins_step
from usucl.training.optimisation.optimiser import make_optimiser
from usucl.training.optimisation.schedule import HalfCosines
from usucl.training.processes.step import SharedEncoder, SharedLoss

SHUFFLE = 6  # makes the seed of the order of keys another than those of batches
NUM_FRAMES, RUN = "num_frames", "run"
"""Keys in a checkpoint of the videos' lengths, by id, and of the run's identity and folder."""


class NotFiniteError(ValueError):
    """The embeddings of a step are not finite, so its loss would not be, either."""


class StepOutput(TypedDict):
    """The results of a step, for the monitor."""

    loss: Tensor
    inputs: LossInputs
    selection: Selection


def batches_of(trainer: Trainer) -> FrameBatches:
    """Returns the batches that a run is trained on."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, VideoDataModule)
    return data.batches


class Stopwatch:
    """Times the parts of one step. It waits for the GPU, and costs nothing when it is stopped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.running = False

    def start(self) -> None:
        """Forgets the last step and begins."""
        self.seconds, self.running = {}, True
        self._last = _now()

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to ``part``."""
        if self.running:
            now = _now()
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
            self._last = now


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class ContrastiveTraining(LightningModule):
    """The query encoder, the method's momentum encoder and bank (if any), and their step.

    The bank is not a submodule (see :class:`NegativeBank`), so the checkpoint hooks save it.

    Several processes compute each step together: each encodes its share of the batch, all get the
    embeddings of the whole batch, and each computes the loss of a share of the anchors. So all
    enqueue the same frames, and have banks with the same content or, with ``key.sharded``, each a
    part of one. Checkpoints are the same for any number of processes.

    Args:
        config: the options of the run.
        restored: whether a checkpoint replaces the first weights, which then are not looked for.

    Attributes:
        run: identity and folder of the run, for its checkpoints; None outside of a run.
        start: which weights the encoder starts from; None for random ones and ImageNet's.
    """

    def __init__(self, config: TrainingConfig, *, restored: bool = False) -> None:
        super().__init__()
        self.config = config
        self.run: dict[str, str | None] | None = None
        self.encoder = FrameEncoder(untrained(config.encoder) if restored else config.encoder)
        self.encoder.config = config.encoder
        if not config.computing.channels_last:
            self.encoder.use_layout(torch.contiguous_format)
        self.start = self.encoder.start
        self.method = config.make_method()
        self.momentum_encoder: MomentumEncoder | None = None
        if self.method.momentum is not None:
            self.momentum_encoder = MomentumEncoder(self.encoder, self.method.momentum)
        self.bank: NegativeBank | RoundRobinBank | None = None
        self.exchange: Exchange | None = None  # with the other processes, where there are any
        self.stopwatch = Stopwatch()

    def setup(self, stage: str) -> None:
        """Makes the bank on the training device, and has the encoders compiled."""
        config, key = self.config, self.config.key
        device = self.trainer.strategy.root_device
        if self.trainer.world_size > 1 and self.exchange is None:
            self.exchange = Exchange(None, timedelta(seconds=config.running.timeout), device)
            if config.encoder.norm == "sync":
                synchronise(self.encoder)
                if self.momentum_encoder is not None:
                    synchronise(self.momentum_encoder)
        if config.computing.compile:
            compile_encoder(self.encoder)
            if self.momentum_encoder is not None:
                compile_encoder(self.momentum_encoder.encoder)
        if key.bank > 0 and self.bank is None:
            options: dict[str, Any] = {
                "search": key.search,
                "device": device,
                "dtype": torch.float64 if config.precision == "64-true" else torch.float32,
                "max_age": key.max_age,
                "nprobe": key.nprobe,
                "ef_search": key.ef_search,
                "rebuild_after": key.rebuild_after,
            }
            dim = config.encoder.dim
            if key.sharded and self.exchange is not None:
                self.bank = RoundRobinBank(key.bank, dim, self.exchange, **options)
            else:
                self.bank = NegativeBank(key.bank, dim, **options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the bank, the run, and the lengths of the videos, which must stay the same."""
        catalog = batches_of(self.trainer).catalog
        checkpoint[NUM_FRAMES] = {entry.id: entry.num_frames for entry in catalog}
        if self.run is not None:
            checkpoint[RUN] = self.run
        if self.bank is not None:
            checkpoint["bank"] = self.bank.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the bank; the weights are loaded next."""
        if self.config.precision == "64-true":
            self.double()  # Lightning does it after they are loaded, which would round them
        if self.bank is not None:
            self.bank.load_state_dict(checkpoint["bank"])

    def training_step(self, batch: FrameBatch | BatchPart, batch_idx: int) -> StepOutput:
        """Returns the loss of one batch, with the inputs and selection for the monitor."""
        if self.momentum_encoder is not None and begins_step(self.trainer, batch_idx):
            # Once per step of the optimiser: in between, the encoder stays the same.
            self.momentum_encoder.update(self.encoder)
        inputs = self._inputs(batch)
        self._enqueue(self.method.bank_before(inputs))
        share = None if self.exchange is None else SharedLoss(inputs, self.exchange)
        own = inputs if share is None else share.inputs
        if self.bank is not None:
            keys = self._bank_keys(own)
            own = own._replace(negatives=(*own.negatives, keys))
            inputs = inputs._replace(negatives=own.negatives)
        self.stopwatch.lap("encoder")
        options = replace(self.config.loss, intra_k=self._intra_k())
        if share is None:
            loss, selection = contrastive_loss(own, **vars(options))
        else:
            losses, found = contrastive_loss(own, reduction="none", **vars(options))
            loss, selection = share.together(losses, found, own.negatives)
        self._enqueue(self.method.bank_after(inputs))
        self.log("loss", loss, logger=False)
        self.stopwatch.lap("loss")
        self._lap_in_backward(loss, inputs)
        self._batches = batches_in_step(self.trainer, batch_idx)
        if self.trainer.accumulate_grad_batches > 1:
            # Lightning divides by this number, even in the last step of an epoch, which may have
            # fewer batches, and hands the quotient to the callbacks: `backward` divides instead.
            loss = loss * self.trainer.accumulate_grad_batches
        return {"loss": loss, "inputs": inputs, "selection": selection}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Adds a batch's share of the gradient of its step, which is the mean of its batches'."""
        super().backward(loss / self._batches if self._batches > 1 else loss, *args, **kwargs)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns the optimiser and its half cosines over all steps."""
        optimiser = make_optimiser(self.encoder, self.config.optimiser)
        steps = int(self.trainer.estimated_stepping_batches)
        ends = [steps * end // self.config.epochs for end in self.config.ends]
        warmup = round(steps * self.config.optimiser.warmup / self.config.epochs)
        self.schedule = HalfCosines(optimiser, ends, min(warmup, ends[0] - 1))
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": self.schedule, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Begins the learning rate of epochs that were added; the checkpoint is loaded by now."""
        self.schedule.resume()

    @property
    def _keys_normalised(self) -> str:
        """How batch normalisation of the momentum encoder works."""
        return getattr(self.config.key, "batch_norm", "own")

    def _inputs(self, part: FrameBatch | BatchPart) -> LossInputs:
        batch = part.whole if isinstance(part, BatchPart) else part
        batches = batches_of(self.trainer)
        window = batches.windows(batch.video, self.current_epoch, batch.frame)
        momentum = self.momentum_encoder
        if momentum is not None and self._keys_normalised == "frozen":
            momentum.freeze_statistics(self.encoder)
        encode: Encode = self.encoder
        encode_keys: Encode = self.encoder if momentum is None else momentum
        if isinstance(part, BatchPart):
            assert self.exchange is not None
            shared = SharedEncoder(part, self.exchange)
            encode = shared.by(encode)
            if momentum is not None and self._keys_normalised == "shuffled":
                seed = (self.config.seed, self.trainer.global_step, SHUFFLE)
                encode_keys = shared.shuffled(momentum, seed)
            else:
                encode_keys = shared.by(encode_keys)
        return self.method.inputs(batch, encode, encode_keys, window)

    def _enqueue(self, frames: Frames | None) -> None:
        if self.bank is None or frames is None:
            return
        try:
            self.bank.enqueue(frames)
        except ValueError as error:
            if "must be finite" in str(error):
                raise NotFiniteError(str(error)) from error
            raise

    def _intra_k(self) -> int:
        intra = self.config.curriculum.intra(self.current_epoch)
        return self.config.loss.intra_k if intra else 0

    def _bank_keys(self, inputs: LossInputs) -> Frames:
        """Returns the bank as a key block: all of it, or its ``candidates``."""
        assert self.bank is not None
        if isinstance(self.bank, NegativeBank) and self.bank.search == "exact":
            return self.bank.frames()  # the loss searches them itself, in one pass
        options, intra_k = self.config.loss, self._intra_k()
        depth = options.cross_k + options.cross_skip
        window = None
        if intra_k > 0 and self.method.bank_has_times:
            depth, window = max(depth, intra_k + options.intra_skip), inputs.window
        with torch.no_grad():
            anchors = inputs.anchors._replace(embedding=inputs.anchors.embedding.detach())
            return self.bank.candidates(
                anchors, depth, window=window, max_similarity=options.max_similarity
            )

    def _lap_in_backward(self, loss: Tensor, inputs: LossInputs) -> None:
        """Ends the loss's share of the backward pass when it has the gradient of an embedding.

        The encoder then goes on with the embeddings that were made last, before the anchors'.
        """
        if self.stopwatch.running:
            loss.register_hook(lambda _: self.stopwatch.lap("other"))
            parts = ["loss"]  # until the first embedding's gradient
            keys = [frames.embedding for frames in inputs.negatives]
            for embedding in (inputs.anchors.embedding, inputs.positives, *keys):
                if embedding.requires_grad:
                    embedding.register_hook(
                        lambda _: self.stopwatch.lap(parts.pop()) if parts else None
                    )

"""One classifier, trained by Lightning on the patients of some folds."""

from __future__ import annotations

import contextlib
import copy
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from usucl._progress import Stage
from usucl._terminal import say
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes import IntArray
from usucl.finetuning.batches import Frames
from usucl.finetuning.classifier import Classifier, HeadConfig
from usucl.finetuning.config import FinetuningConfig
from usucl.finetuning.labels import Parts, class_weights
from usucl.models import FrameEncoder, load_encoder
from usucl.models.encoder import EncoderConfig
from usucl.run_folder import RunFolder


@dataclass(frozen=True)
class Epoch:
    """What was measured in one epoch; validation figures are None without validation patients.

    Losses are cross-entropies per frame, weighted by class as in training.
    """

    epoch: int
    learning_rate: float
    training_loss: float
    training_accuracy: float
    validation_loss: float | None
    validation_balanced_accuracy: float | None


@dataclass(frozen=True)
class Fitted:
    """A trained classifier.

    Attributes:
        classifier: with the weights of the best epoch.
        epochs: every epoch of the training.
        best_epoch: that with the lowest validation loss, from 1; the last one without validation.
    """

    classifier: Classifier
    epochs: tuple[Epoch, ...]
    best_epoch: int


def first_encoder(config: FinetuningConfig) -> FrameEncoder:
    """Returns the encoder that fine-tuning starts from.

    Raises:
        FileNotFoundError: the folder holds no encoder, or with ``start="random"`` none from before
            training.
        ValueError: the network has no ImageNet weights, or the files are damaged.
        RuntimeError: the ImageNet weights cannot be fetched.
    """
    run = RunFolder(config.run)
    if config.start == "random":
        if not RunFolder(run.initial).encoder_config.is_file():
            raise FileNotFoundError(
                f"start must not be 'random' for a folder without {run.initial.name}/, the encoder "
                f"before training, got {config.run}"
            )
        run = RunFolder(run.initial)
    encoder = load_encoder(run.path)
    if config.image_size is not None:
        encoder.config = _sized(encoder.config, config.image_size)
    if config.start in ("trained", "random"):
        return encoder
    fresh = replace(encoder.config, weights=None, pretrained=False)
    if config.start == "imagenet":
        try:
            fresh = replace(fresh, pretrained=True)
        except ValueError as error:
            raise ValueError(
                f"start must not be 'imagenet' for {encoder.config.backbone}: {error}"
            ) from error
    with _random(config.seed):
        return FrameEncoder(fresh)


def _sized(config: EncoderConfig, size: int) -> EncoderConfig:
    return replace(config, image_size=size)


@contextlib.contextmanager
def _random(*seed: int) -> Iterator[None]:
    """Seeds PyTorch within it, and gives the state back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))
        yield


def fit(
    frames: Frames,
    encoder: FrameEncoder,
    parts: Parts,
    fold: int,
    *,
    epochs: int,
    bar: Stage,
    what: str,
) -> Fitted:
    """Trains a copy of ``encoder`` with a new head.

    Args:
        frames: the frames, with the options.
        encoder: the first weights of the backbone, which stay as they are.
        parts: videos to train and to validate on.
        fold: decides the random draws, with the seed.
        epochs: greatest number of epochs.
        bar: counts the steps.
        what: name of this training on the bar.

    Raises:
        RuntimeError: the loss is not finite.
        SystemExit: SIGTERM; the code is 143.
        KeyboardInterrupt: Ctrl-C.
    """
    config, found = frames.config, frames.found
    weights = [1.0] * len(found.classes)
    if config.class_weights == "balanced":
        weights = class_weights(found, parts.train, config.frames_per_video)
    head = HeadConfig(found.classes, config.head, config.hidden, config.dropout)
    with _random(config.seed, fold):
        classifier = Classifier(copy.deepcopy(encoder), head).train()
        if config.head_std is not None:
            for layer in classifier.head:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=config.head_std)
                    nn.init.zeros_(layer.bias)
        module = _Training(
            classifier, frames, parts, fold, torch.tensor(weights), epochs, bar, what
        )
        with _quiet(), _ends():
            trainer = Trainer(
                devices=1,
                max_epochs=epochs,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=None if len(parts.validation) else 0,
                reload_dataloaders_every_n_epochs=1,
            )
            trainer.fit(module)
    classifier.load_state_dict(module.best_weights)
    return Fitted(classifier.cpu().eval(), tuple(module.epochs), module.best_epoch)


def probabilities(classifier: Classifier, loader: DataLoader[tuple[Tensor, ...]]) -> FloatArray:
    """Returns the probabilities of the classes, ``[n, C]``, of frames in order."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = classifier.to(device).eval()
    with torch.no_grad():
        logits = [classifier(images.to(device)).double().cpu() for images, _ in loader]
    classifier.cpu()
    return torch.cat(logits).softmax(1).numpy()


class _Training(LightningModule):
    """Steps, validation and the best weights so far."""

    weights: Tensor

    def __init__(
        self,
        classifier: Classifier,
        frames: Frames,
        parts: Parts,
        fold: int,
        weights: Tensor,
        most: int,
        bar: Stage,
        what: str,
    ) -> None:
        super().__init__()
        self.bar, self.what = bar, what
        self.classifier = classifier
        self.frames, self.parts, self.fold, self.most = frames, parts, fold, most
        self.samples: IntArray = frames.tested(parts.validation)
        self.register_buffer("weights", weights, persistent=False)
        self.frozen = _freeze(classifier, frames.config.trainable)
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_loss = float("inf")
        self.best_weights: dict[str, Tensor] = {}
        self._sums = torch.zeros(3, dtype=torch.float64)  # weighted loss, weights; right
        self._seen = 0
        self._rate = 0.0
        self._validated: list[Tensor] = []

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self.frames.training(self.parts.train, self.fold, self.current_epoch)

    def val_dataloader(self) -> Any:
        return self.frames.test(self.samples) if len(self.samples) else []

    def configure_optimizers(self) -> Any:
        config = self.frames.config
        trained = [p for p in self.classifier.parameters() if p.requires_grad]
        optimiser: torch.optim.Optimizer
        if config.optimiser == "sgd":
            optimiser = torch.optim.SGD(
                trained, config.lr, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
            optimiser = kind(trained, config.lr, weight_decay=config.weight_decay)
        if config.schedule == "constant":
            return optimiser
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, config.cosine_epochs or self.most, config.least_lr
        )
        return [optimiser], [{"scheduler": schedule, "interval": "epoch"}]

    def on_train_epoch_start(self) -> None:
        self.bar.update(what=f"{self.what}, epoch {self.current_epoch + 1}/{self.most}")
        self._rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._sums.zero_()
        self._seen = 0
        for part in self.frozen:
            part.eval()

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        images, target = batch
        logits = self.classifier(images)
        smoothing = self.frames.config.label_smoothing
        loss = F.cross_entropy(logits, target, self.weights, label_smoothing=smoothing)
        if not bool(loss.isfinite()):
            raise RuntimeError(
                f"the loss is {float(loss)} in epoch {self.current_epoch + 1} of fold {self.fold}: "
                f"set a lower lr than {self.frames.config.lr:g}"
            )
        weight = self.weights[target].sum()
        right = (logits.argmax(1) == target).sum()
        values = torch.stack([loss.detach() * weight, weight, right.to(loss.dtype)])
        self._sums += values.double().cpu()
        self._seen += len(target)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.bar.advance()

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self._validated.append(self.classifier(batch[0]).double().cpu())

    def on_train_epoch_end(self) -> None:
        loss = accuracy = None
        if self._validated:
            loss, accuracy = self._measured(torch.cat(self._validated))
        total, weight, right = self._sums.tolist()
        epoch = Epoch(
            epoch=self.current_epoch + 1,
            learning_rate=self._rate,
            training_loss=total / weight,
            training_accuracy=right / self._seen,
            validation_loss=loss,
            validation_balanced_accuracy=accuracy,
        )
        self.epochs.append(epoch)
        note = f"loss {epoch.training_loss:.3f}"
        self.bar.update(note=note if loss is None else f"{note}, validation {loss:.3f}")
        if loss is None or loss < self.best_loss:
            self.best_loss = self.best_loss if loss is None else loss
            self.best_epoch = epoch.epoch
            state = self.classifier.state_dict()
            self.best_weights = {name: value.detach().clone() for name, value in state.items()}
        patience = self.frames.config.patience
        if patience is not None and loss is not None:
            self.trainer.should_stop = epoch.epoch - self.best_epoch >= patience

    def _measured(self, logits: Tensor) -> tuple[float, float]:
        target = torch.from_numpy(self.samples[:, 2].copy())
        weights = self.weights.double().cpu()
        present = target.unique()
        if not bool(weights[target].sum() > 0):
            weights = torch.ones_like(weights)  # classes that are not trained on
        loss = F.cross_entropy(logits, target, weights)
        right = (logits.argmax(1) == target).double()
        recall = torch.stack([right[target == c].mean() for c in present])
        return float(loss), float(recall.mean())


def _freeze(classifier: Classifier, trainable: str) -> list[nn.Module]:
    """Freezes what is not trained, and returns the modules whose statistics must not move."""
    backbone = classifier.encoder.backbone
    classifier.encoder.head.requires_grad_(False)  # it takes no part
    if trainable == "all":
        return []
    kept = last_block(backbone) if trainable == "last-block" else []
    backbone.requires_grad_(False)
    for part in kept:
        part.requires_grad_(True)
    within = {module for part in kept for module in part.modules()}
    return [m for m in backbone.modules() if m not in within and not list(m.children())]


def last_block(backbone: nn.Module) -> list[nn.Module]:
    """Returns the last block of a network and what comes after it.

    That is the last element of the last sequence of blocks: ``layer4[-1]`` of a ResNet, or the last
    block of a transformer with the normalisation behind it.
    """
    parts: list[nn.Module] = []
    for child in reversed(list(backbone.children())):
        if not any(True for _ in child.parameters()):
            continue
        block = child
        while True:
            inner = getattr(block, "blocks", getattr(block, "layers", None))
            if isinstance(block, nn.Sequential | nn.ModuleList) and len(block):
                block = block[-1]
            elif isinstance(inner, nn.Sequential | nn.ModuleList):
                block = inner
            else:
                break
        parts.append(block)
        if block is not child:
            break
    return parts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's advice on what this package has already decided."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for told in (
                ".*does not have many workers.*",
                ".*smaller than the logging interval.*",
                ".*isinstance.treespec, LeafSpec.*",
                ".*no `val_dataloader`.*",
                ".*Total length of `.*DataLoader` across ranks is zero.*",
                ".*in eval mode at the start of training.*",
            ):
                warnings.filterwarnings("ignore", told)
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _ends() -> Iterator[None]:
    """Ends the program as Ctrl-C and SIGTERM should, which Lightning catches."""
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:  # an exit of the whole program, with the code of success
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):  # that of the shell command, which says what was kept
            handler(signal.SIGTERM, None)
        say("usucl: terminated (SIGTERM)", stderr=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of the whole program, and ignores it afterwards.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)

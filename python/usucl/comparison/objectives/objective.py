"""The interface of a published pretraining loss, and what these losses share."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from usucl._ranges import check_range
from usucl._spelling import did_you_mean
from usucl.data import FrameBatch, FrameSampler, Sampler
from usucl.data.sampling.clock import TimeUnit

WHOLE_VIDEO = 2**31 - 1
"""A ``positive_radius``, in frames, that no video exceeds."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """The constants of a method; defaults are those of its paper unless the text says otherwise.

    Attributes:
        dim: length of the vectors that the loss compares.
    """

    dim: int = 128

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 1)


Options = TypeVar("Options", bound=ObjectiveOptions)


class Objective(nn.Module, ABC, Generic[Options]):
    """A published pretraining loss on frames of videos.

    ``parameters()`` are those of the features and of the heads; parameters of momentum copies among
    them need no gradient. Heads start from, and random draws of a loss come from, PyTorch's global
    generator. One step of a training loop::

        objective.loss(batch).backward()
        optimiser.step()
        objective.after_step(step)

    Args:
        features: maps normalised images ``[B, channels, S, S]`` to features ``[B, width]``; it is
            trained in place.
        width: length of the features.
        steps: steps of the whole run, over which constants may change.
        options: constants of the method; by default its ``options_type()``.

    Attributes:
        name: name in a configuration.
        title: name in tables.
        source: paper in which the loss is defined, and where in it.
        options_type: type of the options.
        time_unit: unit in which the loss takes the times of a batch.
        encoder: features and projection head.

    Raises:
        ValueError: ``width`` or ``steps`` is less than 1.
        ImportError: lightly, which has the heads, is not installed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    options_type: type[Options]
    time_unit: ClassVar[TimeUnit] = "fraction"

    def __init__(
        self, features: nn.Module, width: int, steps: int, options: Options | None = None
    ) -> None:
        super().__init__()
        check_range("width", width, 1)
        check_range("steps", steps, 1)
        self.options = self.options_type() if options is None else options
        self.steps = steps
        self.encoder = nn.Sequential(features, self.make_head(width))

    @classmethod
    def options_from(cls, given: Mapping[str, Any]) -> Options:
        """Returns checked options, of which those that are not given keep their default.

        Raises:
            ValueError: an option is unknown or out of its range; the message names it.
            TypeError: an option has another type.
        """
        hints = get_type_hints(cls.options_type)
        names = [field.name for field in fields(cls.options_type)]
        for name, value in given.items():
            if name not in names:
                near = did_you_mean(name, names)
                raise ValueError(
                    f"options of {cls.name} must be among {', '.join(names)}, got {name!r}{near}"
                )
            if not _fits(value, hints[name]):
                kind = getattr(hints[name], "__name__", str(hints[name]))
                raise TypeError(f"{name} of {cls.name} must be {kind}, got {value!r}")
        try:
            return cls.options_type(**given)
        except ValueError as error:
            raise ValueError(f"options of {cls.name}: {error}") from error

    @classmethod
    @abstractmethod
    def sampler(cls, frames: int, options: Options) -> Sampler:
        """Returns the sampler of the method as published, of at most ``frames`` anchors."""

    @abstractmethod
    def make_head(self, width: int) -> nn.Module:
        """Returns the projection head on features of this width."""

    @abstractmethod
    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns the vectors of a batch that :meth:`compare` takes."""

    @abstractmethod
    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the loss of embedded frames, a scalar.

        Args:
            embedded: what :meth:`embed` returned, in float32 at least.
            batch: the batch, which says of what videos the frames are.
        """

    def loss(self, batch: FrameBatch) -> Tensor:
        """Returns the loss of a batch with its gradient, a scalar.

        Under autocast the networks follow it, and the loss is computed in float32.
        """
        wide = [z.to(torch.promote_types(z.dtype, torch.float32)) for z in self.embed(batch)]
        with torch.autocast(batch.anchor_view.device.type, enabled=False):
            return self.compare(wide, batch)

    def after_step(self, step: int) -> None:
        """Follows a step of the optimiser: momentum encoders and queues.

        Args:
            step: number of the step, from 0.
        """


def views_of(batch: FrameBatch) -> list[Tensor]:
    """Returns the views of every anchor, its own first: each ``[N, channels, S, S]``."""
    several = batch.positive_view.dim() == 5
    further = batch.positive_view.unbind(1) if several else (batch.positive_view,)
    return [batch.anchor_view, *further]


def encode_together(encoder: nn.Module, views: Sequence[Tensor]) -> Sequence[Tensor]:
    """Encodes views in one pass, so that batch normalisation sees all of them."""
    together: Tensor = encoder(torch.cat(list(views)))
    return together.chunk(len(views))


def pairs_of_videos(frames: int, radius: int = WHOLE_VIDEO, positives: int = 1) -> FrameSampler:
    """Returns a sampler of one anchor per video, anywhere in it, and of positives near it."""
    return FrameSampler(frames, 0, radius, (0.0, 1.0), positives)


def lightly(module: str) -> Any:
    """Returns a module of lightly.

    Raises:
        ImportError: lightly is not installed.
    """
    if importlib.util.find_spec("lightly") is None:
        raise ImportError(
            "the comparison with other methods needs lightly, which is not installed: "
            "pip install 'usucl[compare]'"
        )
    return importlib.import_module(f"lightly.{module}")


def heads() -> Any:
    """Returns lightly's module of projection and prediction heads."""
    return lightly("models.modules.heads")


def _fits(value: Any, kind: Any) -> bool:
    """Returns whether a value read from a file is of the type of its option."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)

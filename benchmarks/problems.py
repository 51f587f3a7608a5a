"""The problems that are measured: random unit embeddings, and hard orders of the keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from usucl_ext import Frames

WINDOW = (0.2, 0.8)  # for times that are uniform in [0, 1)
TEMPERATURE = 0.07
ANCHOR_VIDEOS, KEY_VIDEOS = 64, 640
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """What defines a problem: N anchors, M keys, D, wanted negatives, dtype, order of the keys."""

    n: int
    m: int
    d: int = 128
    intra_k: int = 3
    cross_k: int = 32
    dtype: str = "float32"
    order: str = "random"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.n, self.m, self.d

    @property
    def k(self) -> tuple[int, int]:
        return self.intra_k, self.cross_k


@dataclass(frozen=True)
class Problem:
    """N anchors with gradient, their positives ``[N, D]``, and M keys without.

    A positive has a similarity of about 0.5 to its anchor, more than any random key, so that the
    loss is neither 0 nor far from what it is in training.
    """

    setting: Setting
    anchors: Frames
    positives: Tensor
    keys: Frames

    @classmethod
    def make(cls, setting: Setting, seed: int = 0) -> Problem:
        """Returns a problem, always the same for a setting and a seed."""
        generator = torch.Generator().manual_seed(seed)
        anchors, keys = ORDERS[setting.order](setting, generator)
        noise = unit(setting.n, setting.d, generator)
        positives = normalize(anchors.embedding + 3**0.5 * noise, dim=1)
        dtype = DTYPES[setting.dtype]
        leaf = anchors.embedding.to(dtype).requires_grad_()
        keys = keys._replace(embedding=keys.embedding.to(dtype).contiguous())
        return cls(setting, anchors._replace(embedding=leaf), positives.to(dtype), keys)

    def to(self, device: torch.device) -> Problem:
        """Returns the same problem on a device, where its anchors are a leaf."""
        anchors, keys = (_frames(f, lambda x: x.to(device)) for f in (self.anchors, self.keys))
        return self._with(anchors, self.positives.to(device), keys)

    def of_anchors(self, rows: Tensor) -> Problem:
        """Returns the problem of these anchors alone, as a new leaf, with the same keys."""
        anchors = _frames(self.anchors, lambda x: x[rows])
        return self._with(anchors, self.positives[rows], self.keys)

    def _with(self, anchors: Frames, positives: Tensor, keys: Frames) -> Problem:
        leaf = anchors.embedding.detach().requires_grad_()
        setting = replace(self.setting, n=len(leaf))
        return Problem(setting, anchors._replace(embedding=leaf), positives, keys)


def _frames(frames: Frames, change: Callable[[Tensor], Tensor]) -> Frames:
    embedding, video, time, patient = frames
    changed = None if patient is None else change(patient)
    return Frames(change(embedding), change(video), change(time), changed)


def unit(rows: int, dim: int, generator: torch.Generator) -> Tensor:
    """Returns directions drawn evenly from the sphere, ``[rows, dim]``."""
    return normalize(torch.randn(rows, dim, generator=generator), dim=1)


def _ids(rows: int, videos: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns videos in turn, and times that are uniform in [0, 1)."""
    return torch.arange(rows) % videos, torch.rand(rows, generator=generator)


def _random(setting: Setting, generator: torch.Generator) -> tuple[Frames, Frames]:
    n, m, d = setting.shape
    anchors = Frames(unit(n, d, generator), *_ids(n, ANCHOR_VIDEOS, generator))
    return anchors, Frames(unit(m, d, generator), *_ids(m, KEY_VIDEOS, generator))


def _ascending(setting: Setting, generator: torch.Generator) -> tuple[Frames, Frames]:
    """Returns keys each more similar to every anchor than all before: no threshold holds for long.

    Keys k_j = c_j u + sqrt(1 - c_j^2) v with rising c_j, anchors without a part along v: then
    q_i . k_j = c_j (q_i . u).
    """
    anchors, keys = _random(setting, generator)
    u, v = torch.eye(setting.d)[:2]
    rest = normalize(anchors.embedding * (1 - u - v), dim=1)
    cosine = torch.linspace(-1, 1, setting.m)[:, None]
    along_v = (1 - cosine**2).sqrt() * v
    return (
        anchors._replace(embedding=normalize(u + rest, dim=1)),
        keys._replace(embedding=cosine * u + along_v),
    )


def _equal(setting: Setting, generator: torch.Generator) -> tuple[Frames, Frames]:
    """Returns equal keys: every one ties with the threshold."""
    anchors, keys = _random(setting, generator)
    return anchors, keys._replace(embedding=keys.embedding[:1].repeat(setting.m, 1))


def _one_video(setting: Setting, generator: torch.Generator) -> tuple[Frames, Frames]:
    """Returns keys of one video: none is cross-video, so that group's threshold never rises."""
    anchors, keys = _random(setting, generator)
    return anchors._replace(video=anchors.video * 0), keys._replace(video=keys.video * 0)


def _correlated(setting: Setting, generator: torch.Generator) -> tuple[Frames, Frames]:
    """Returns keys as in a filled bank: whole videos, in order of time, neighbours nearly alike.

    There are eight views of organs; a video is a variation of one of them, and its frames are a
    slow walk from there. Anchors are frames of other walks through the same videos.
    """
    (n, m, d), views = setting.shape, unit(8, setting.d, generator)
    length = -(-m // KEY_VIDEOS)
    videos = -(-m // length)
    scene = views[torch.arange(videos) % 8] + unit(videos, d, generator)

    def walk(start: Tensor, steps: int) -> Tensor:
        """Returns ``[len(start), steps, d]``."""
        noise = torch.randn(len(start), steps, d, generator=generator) * (0.1 / d**0.5)
        return normalize(start[:, None] + noise.cumsum(1), dim=2)

    frames = walk(scene, length).reshape(-1, d)[:m]
    place = torch.arange(m)
    keys = Frames(frames, place // length, place % length / length)
    video = torch.arange(n) % min(ANCHOR_VIDEOS, videos)
    time = torch.rand(n, generator=generator)
    return Frames(walk(scene[video], 1)[:, 0], video, time), keys


Order = Callable[[Setting, torch.Generator], tuple[Frames, Frames]]
ORDERS: dict[str, Order] = {
    "random": _random,
    "ascending": _ascending,
    "all equal": _equal,
    "one video": _one_video,
    "correlated": _correlated,
}

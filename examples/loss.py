"""A training loop of one's own with the fused loss, on points instead of images.

Every video is a curve through a space of features. Most of what a feature holds tells which video
it is from, and a little tells the place along the sweep, which is the same in all videos. Trained
against other videos alone, a network has no reason to look at the place; trained against distant
frames of the same video as well, it has.

    python examples/loss.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from usucl_ext import Frames, hard_negative_nce

VIDEOS, FRAMES = 64, 32
FEATURES, DIM = 32, 16


def make_features() -> Tensor:
    """Returns features ``[V, T, FEATURES]``: a strong code of the video, a weak one of place."""
    place = torch.linspace(0, 1, FRAMES)[:, None]
    waves = torch.cat([torch.cos(torch.pi * k * place) for k in range(1, 5)], dim=1)  # [T, 4]
    video, mixing = torch.randn(VIDEOS, 1, FEATURES), torch.randn(4, FEATURES)
    return 2.0 * video + 0.5 * (waves @ mixing)


def train(features: Tensor, intra_k: int, steps: int) -> nn.Module:
    """Trains a small network with so many intra-video negatives per anchor."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, DIM))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(steps):
        video = torch.randperm(VIDEOS)[:16].repeat_interleave(8)  # 8 frames of 16 videos
        frame = torch.randint(1, FRAMES - 1, video.shape)
        near = frame + torch.randint(-1, 2, video.shape)  # the positive: at most a frame away
        anchors, positives = (
            F.normalize(network(features[video, f] + 0.3 * torch.randn(len(f), FEATURES)), dim=1)
            for f in (frame, near)
        )
        frames = Frames(anchors, video, frame / FRAMES)
        loss = hard_negative_nce(
            frames,
            positives,
            frames,
            window=(0.15, 1.0),  # distances in time, as a share of the video
            intra_k=intra_k,
            cross_k=16,
            temperature=0.1,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


@torch.no_grad()
def error_of_place(network: nn.Module, features: Tensor) -> float:
    """Returns the mean error of the place that the most similar frame of another video tells."""
    embedding = F.normalize(network(features), dim=-1)  # [V, T, DIM]
    similarity = torch.einsum("vtd,wsd->vtws", embedding, embedding)
    similarity[torch.arange(VIDEOS), :, torch.arange(VIDEOS)] = -2.0  # not the own video
    found = similarity.flatten(2).argmax(2) % FRAMES
    return float((found - torch.arange(FRAMES)).abs().float().mean() / FRAMES)


def main() -> None:
    """Trains with and without intra-video negatives, and prints the errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps per training (200)")
    steps = parser.parse_args().steps
    torch.manual_seed(1)
    features = make_features()
    print("mean error of the place along the sweep, found by the nearest frame of another video")
    for title, intra_k in (("cross-video negatives", 0), ("and intra-video negatives", 4)):
        network = train(features, intra_k, steps)
        print(f"  {title:28s}{error_of_place(network, features):.3f} of the video")


if __name__ == "__main__":
    main()

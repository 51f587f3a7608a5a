"""Draws images/mask.svg: which frames are negatives of an anchor, and which of them are taken.

The embeddings are made up (points that move smoothly along each video); who is a negative, and who
is selected, is what the operator returns for them.

    python docs/draw_mask.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional as F

from usucl_ext import Frames, select_negatives

IMAGE = Path(__file__).resolve().parent / "images" / "mask.svg"
VIDEOS = ("own video", "same patient", "video 3", "video 4", "video 5")
PATIENTS = (0, 0, 1, 2, 3)
LENGTH, DIM, ANCHOR = 41, 16, 16  # frames per video, of the embedding, the anchor's frame
WINDOW, INTRA_K, CROSS_K = (0.2, 0.4), 3, 8
IGNORED, ADMITTED, TAKEN = "#c9ced6", "#7fb2e5", "#d1495b"


def made_up_frames() -> Frames:
    """Frames of each video in turn, at equal steps of time from 0 to 1."""
    generator = np.random.default_rng(3)
    time = np.linspace(0, 1, LENGTH)
    waves = np.stack([np.cos(np.pi * k * time) for k in range(4)])  # [4, T]
    embedding = np.einsum("kt,vkd->vtd", waves, generator.normal(size=(len(VIDEOS), 4, DIM)))
    return Frames(
        F.normalize(torch.from_numpy(embedding.reshape(-1, DIM)).float(), dim=1),
        torch.arange(len(VIDEOS)).repeat_interleave(LENGTH),
        torch.from_numpy(np.tile(time, len(VIDEOS))).float(),
        torch.tensor(PATIENTS).repeat_interleave(LENGTH),
    )


def selected(frames: Frames, intra_k: int, cross_k: int) -> set[int]:
    anchor = Frames(*(part[ANCHOR : ANCHOR + 1] for part in frames))
    found = select_negatives(anchor, frames, window=WINDOW, intra_k=intra_k, cross_k=cross_k)
    indices = torch.cat([found.intra_index[0], found.cross_index[0]])
    return set(indices[indices >= 0].tolist())


def draw(axes: Axes, frames: Frames) -> None:
    time = frames.time.numpy()
    everyone = len(time)
    admitted, taken = selected(frames, everyone, everyone), selected(frames, INTRA_K, CROSS_K)
    similarity = (frames.embedding @ frames.embedding[ANCHOR]).numpy()
    for video, title in enumerate(VIDEOS):
        own = range(video * LENGTH, (video + 1) * LENGTH)
        foot = -video
        axes.text(-0.02, foot, title, ha="right", va="center")
        for i in own:
            colour = TAKEN if i in taken else ADMITTED if i in admitted else IGNORED
            height = 0.1 + 0.6 * max(0.0, float(similarity[i]))
            axes.plot([time[i]] * 2, [foot - 0.3, foot - 0.3 + height], color=colour, linewidth=3)
    axes.plot([time[ANCHOR]] * 2, [-0.3, 0.4], color="black", linewidth=3)
    axes.annotate("anchor", (time[ANCHOR], 0.42), (time[ANCHOR], 0.75), ha="center")
    for sign in (-1, 1):
        lo, hi = (float(time[ANCHOR]) + sign * bound for bound in WINDOW)
        axes.plot([lo, hi], [-0.42, -0.42], color="black", linewidth=1)
        axes.text((lo + hi) / 2, -0.58, "window", ha="center", va="center", fontsize=8)
    for row, (colour, words) in enumerate(
        (
            (TAKEN, f"selected: the {INTRA_K} and {CROSS_K} most similar"),
            (ADMITTED, "negative, not selected"),
            (IGNORED, "not a negative"),
        )
    ):
        axes.plot([0.02 + 0.36 * row] * 2, [-5.2, -4.9], color=colour, linewidth=4)
        axes.text(0.04 + 0.36 * row, -5.05, words, va="center", fontsize=8)
    height = "height: similarity to the anchor; from left to right: time in the video"
    axes.text(0.5, -4.6, height, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-5.4, 1.0))
    axes.axis("off")


if __name__ == "__main__":
    matplotlib.rcParams.update({"svg.hashsalt": "usucl", "svg.fonttype": "none"})
    figure = Figure(figsize=(8, 3.8))
    draw(figure.add_axes((0.13, 0.0, 0.87, 1.0)), made_up_frames())
    figure.savefig(IMAGE, metadata={"Date": None}, facecolor="white")

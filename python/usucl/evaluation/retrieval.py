"""Temporal retrieval: does an altered frame find its neighbours in time?

A query is an augmented frame of a held-out video; the gallery holds clean frames. Similarity is
the cosine of embeddings. Per query, the AUROC of

    temporal        frames within 3 of the query     against  frames farther than 0.2 of the length
    temporal_hard   frames within 3 of the query     against  other frames within 0.15 of the length
    same_video      other frames of the same video   against  frames of other patients' videos

is averaged over the queries of a video, the videos of a patient, and the patients. The query's own
clean frame never counts: finding it needs only invariance to the augmentation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from usucl._progress import track
from usucl.data import VideoEntry, VideoError, load_frames, normalise
from usucl.data.augmentation import Augmentation
from usucl.embedding import default_device, encode, evenly_spaced
from usucl.evaluation.metrics import auroc

logger = logging.getLogger(__name__)

NEAR_FRAMES = 3
FAR_FRACTION = 0.2
HARD_FRACTION = 0.15
TASKS = ("temporal", "temporal_hard", "same_video")


@dataclass(frozen=True)
class _Video:
    entry: VideoEntry
    frames: NDArray[np.int64]  # [n], ascending
    is_query: NDArray[np.bool_]  # [n]
    is_spread: NDArray[np.bool_]  # [n], the evenly spaced frames, seen by other videos' queries
    clean: dict[str, Tensor]  # embeddings [n, D] by encoder
    queries: dict[str, Tensor]  # embeddings of the augmented queries [q, D] by encoder


def gallery_frames(
    num_frames: int, queries: int, spread: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Selects an even spread of frames, evenly spaced queries, and the queries' neighbours.

    Returns:
        Ascending frame numbers ``[n]``, which of them are queries, and which are the spread.
    """
    centre = np.array(evenly_spaced(num_frames, queries), dtype=np.int64)
    even = np.array(evenly_spaced(num_frames, spread), dtype=np.int64)
    near = (centre[:, None] + np.arange(-NEAR_FRAMES, NEAR_FRAMES + 1)).ravel()
    frames = np.unique(np.concatenate([even, near[(near >= 0) & (near < num_frames)]]))
    return frames, np.isin(frames, centre), np.isin(frames, even)


def query_auroc(
    similarity: NDArray[np.floating],
    query_frame: int,
    frames: NDArray[np.int64],
    num_frames: int,
    elsewhere: NDArray[np.floating],
    same_part: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Returns the three AUROCs of one query; NaN where one side is empty (short videos).

    Args:
        similarity: similarity of the query to the clean frames of its own video ``[n]``.
        frames: frame numbers of the clean frames ``[n]``.
        elsewhere: similarity of the query to frames of other patients' videos ``[m]``.
        same_part: whether the frames are of the query's part of a sweep ``[n]``; those of other
            parts are not near, whatever their distance.
    """
    distance = np.abs(frames - query_frame)
    other = distance > 0
    near = other & (distance <= NEAR_FRAMES)
    if same_part is not None:
        near &= same_part
    beyond = distance > NEAR_FRAMES  # in a short video 0.2 of the length is less than 3 frames
    far = beyond & (distance > FAR_FRACTION * num_frames)
    hard = beyond & (distance <= HARD_FRACTION * num_frames)
    return {
        "temporal": auroc(similarity[near], similarity[far]),
        "temporal_hard": auroc(similarity[near], similarity[hard]),
        "same_video": auroc(similarity[other], elsewhere),
    }


def temporal_retrieval(
    entries: Sequence[VideoEntry],
    encoders: Mapping[str, nn.Module],
    *,
    image_size: int,
    frames_per_video: int = 20,
    queries_per_video: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the mean AUROC of every patient, by encoder, task and patient.

    All encoders see the same queries. Patients without a valid query for a task are absent there.
    """
    device = default_device()
    encoders = {name: encoder.to(device) for name, encoder in encoders.items()}
    augment = Augmentation("crop-flip-jitter", image_size)
    videos = []
    measured = track(entries, "Measuring retrieval", unit="videos")
    for number, entry in enumerate(measured):
        frames, is_query, is_spread = gallery_frames(
            entry.num_frames, queries_per_video, frames_per_video
        )
        try:
            images = normalise(load_frames(entry, frames.tolist(), image_size))
            larger = load_frames(entry, frames[is_query].tolist(), augment.short_side)
        except VideoError as error:
            logger.warning("left out: %s", error)
            continue
        seeds = np.random.default_rng((seed, number)).integers(2**31, size=len(larger))
        altered = augment(list(larger), seeds.tolist())
        clean = {n: encode(e, images, batch_size, device).embedding for n, e in encoders.items()}
        queries = {n: encode(e, altered, batch_size, device).embedding for n, e in encoders.items()}
        videos.append(_Video(entry, frames, is_query, is_spread, clean, queries))
    return {name: _patient_means(videos, name) for name in encoders}


def _patient_means(videos: Sequence[_Video], encoder: str) -> dict[str, dict[str, float]]:
    means: dict[str, dict[str, list[float]]] = {task: {} for task in TASKS}
    for video in videos:
        others = [
            v.clean[encoder][torch.from_numpy(v.is_spread)]
            for v in videos
            if v.entry.group != video.entry.group
        ]
        queries = video.queries[encoder]
        within = (queries @ video.clean[encoder].T).numpy()  # [q, n]
        elsewhere = (queries @ torch.cat(others).T).numpy() if others else within[:, :0]
        part = video.entry.part_numbers(video.frames)
        scores = [
            query_auroc(
                within[q],
                frame,
                video.frames,
                video.entry.num_frames,
                elsewhere[q],
                part == video.entry.part_numbers([frame]),
            )
            for q, frame in enumerate(video.frames[video.is_query].tolist())
        ]
        for task in TASKS:
            values = np.array([score[task] for score in scores])
            if np.isfinite(values).any():
                of_patient = means[task].setdefault(video.entry.group, [])
                of_patient.append(float(np.nanmean(values)))
    return {
        task: {group: float(np.mean(values)) for group, values in sorted(groups.items())}
        for task, groups in means.items()
    }

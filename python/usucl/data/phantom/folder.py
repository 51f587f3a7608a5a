"""A folder of synthetic videos with their labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from usucl._progress import track
from usucl._ranges import check_range
from usucl.data.phantom.anatomy import CLASSES, make_organ
from usucl.data.phantom.imaging import make_sweep, render
from usucl.data.phantom.machine import PLAIN, make_machine

MARK = "SYNTHETIC.txt"  # a file in a folder of synthetic videos
FRAME_COLUMNS = ("video_id", "frame", "label", "lesion", "vessel")


def write_phantom(
    out: str | Path,
    *,
    videos: int = 24,
    frames: int = 48,
    image_size: int = 128,
    machines: int = 1,
    variation: float = 1.0,
    seed: int = 0,
) -> Path:
    """Writes synthetic ultrasound videos as folders of PNG frames with their labels.

    Two videos show the same patient, with different gain, depth, speed and direction. The class of
    a video (cyst, nodule or stone) is the kind of lesion in the organ. The label of a frame is what
    is in view, and its columns ``lesion`` and ``vessel`` say the same one by one. Only the content
    tells either: the recording settings are drawn independently.

    Args:
        out: folder to make, with a folder per video, labels.csv, frame_labels.csv, README.txt and
            SYNTHETIC.txt, by which :func:`is_synthetic` knows the videos.
        videos: number of videos.
        frames: mean number of frames per video; each has 0.75 to 1.25 times as many, at least 2.
        image_size: side of the square frames in pixels.
        machines: number of machines that the videos are recorded with, each with its own speckle,
            noise, grey map, persistence and marks on the screen. Every video has one of them, drawn
            at random and named in the column ``machine``; one machine is without such a look.
        variation: how far tissue and walls change along the sweep, in [0, 1]. With 0 every slice of
            an organ has the same tissue and walls, so that besides speckle and the hand's movement
            only lesions and vessels tell one part of a sweep from another.
        seed: the same seed gives the same files.

    Returns:
        The folder.

    Raises:
        ValueError: ``out`` already holds something, or an argument is out of its range.
    """
    out = Path(out)
    for name, value, least in (
        ("videos", videos, 1),
        ("frames", frames, 2),
        ("image_size", image_size, 32),
        ("machines", machines, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    check_range("variation", variation, 0, 1)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    looks = [PLAIN]
    if machines > 1:
        looks = [make_machine(np.random.default_rng([seed, 0, 0, m])) for m in range(machines)]
    video_rows, frame_rows = [], []
    for number in track(range(videos), "Making videos", unit="videos"):
        patient, take = divmod(number, 2)
        label = CLASSES[patient % len(CLASSES)]
        organ = make_organ(np.random.default_rng([seed, patient]), label, variation)
        machine = int(np.random.default_rng([seed, patient, 1 + take, 1]).integers(machines))
        rng = np.random.default_rng([seed, patient, 1 + take])
        sweep = make_sweep(rng, frames)
        name = f"patient{patient:02d}_{'ab'[take]}"
        (out / name).mkdir()
        for index, image in enumerate(render(organ, sweep, looks[machine], rng, image_size)):
            Image.fromarray(image).save(out / name / f"{index:05d}.png", compress_level=1)
        fold = patient // len(CLASSES) % 4
        video_rows.append((name, label, f"patient{patient:02d}", fold, f"machine{machine:02d}"))
        frame_rows += [(name, i, *organ.in_view(float(x))) for i, x in enumerate(sweep.x)]
    columns = ("video_id", "label", "patient", "fold", "machine")
    _write_table(out / "labels.csv", columns, video_rows)
    _write_table(out / "frame_labels.csv", FRAME_COLUMNS, frame_rows)
    (out / "README.txt").write_text(
        f"Synthetic ultrasound: {videos} videos of {-(-videos // 2)} patients, seed {seed}.\n"
        "Made by usucl.data.write_phantom; not images of a patient.\n"
        "labels.csv: class of the lesion, patient, fold and machine of every video.\n"
        "frame_labels.csv: the structures in view in every frame, joined by +, or none; and by\n"
        "themselves the lesion and the vessel in view.\n",
        encoding="utf-8",
    )
    mark_synthetic(out)
    return out


def mark_synthetic(folder: Path) -> None:
    """Marks the videos of a folder as synthetic, for :func:`is_synthetic`."""
    text = "The videos in this folder are synthetic: they show no patient.\n"
    (folder / MARK).write_text(text, encoding="utf-8")


def is_synthetic(folder: str | Path) -> bool:
    """Returns whether :func:`write_phantom` made the videos of a folder."""
    folder = Path(folder)
    if (folder / MARK).is_file():
        return True
    about = folder / "README.txt"  # earlier versions wrote this file only
    if not about.is_file():
        return False
    with about.open("rb") as file:
        return b"Made by usucl.data.write_phantom" in file.read(500)


def _write_table(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)

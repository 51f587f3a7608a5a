"""``usucl bank``: the embedded frames of a data set as a searchable bank."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usucl.cli.console import say, table

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("slot", "video_id", "frame", "time", "patient", "label", "path")


@dataclass(frozen=True)
class Neighbour:
    """A frame of the bank; ``rank`` from 1, ``similarity`` the cosine with the query."""

    rank: int
    similarity: float
    video: str
    frame: int
    label: str
    path: str


def build(
    run: Path,
    data: Path,
    *,
    out: Path,
    frames_per_video: int | None = None,
    batch_size: int = 64,
    overwrite: bool = False,
) -> None:
    """Embed every frame of a folder with a run's encoder, and keep them in a bank.

    Beside the bank stand frames.csv, which says what is in each slot, and source.json.

    Args:
        run: run folder, of which only the encoder is used.
        data: folder of videos.
        out: folder of the bank.
        frames_per_video: at most so many frames of each video, evenly spaced; all by default.
        batch_size: frames encoded at once.
        overwrite: replace an earlier bank in this folder.
    """
    import torch

    from usucl.bank import NegativeBank
    from usucl.data import VideoCatalog
    from usucl.evaluation.embed import embed_entries
    from usucl.losses import Frames
    from usucl.models import load_encoder

    if (out / "bank.json").exists() and not overwrite:
        raise FileExistsError(f"{out} holds a bank: give --overwrite to replace it")
    encoder = load_encoder(run)
    catalog = VideoCatalog.scan(data)
    embeddings = embed_entries(
        catalog.entries,
        {"trained": encoder},
        image_size=encoder.config.image_size,
        held_out=[False] * len(catalog),
        frames_per_video=frames_per_video,
        batch_size=batch_size,
    )["trained"]
    entries = {entry.id: entry for entry in catalog}
    known = sorted({entry.group for entry in catalog if entry.patient_known})
    patient = [
        known.index(entries[name].group) if entries[name].patient_known else -1
        for name in embeddings.video_id
    ]
    bank = NegativeBank(len(embeddings), embeddings.embedding.shape[1])
    video = embeddings.video
    bank.enqueue(Frames(embeddings.embedding, video, embeddings.time, torch.tensor(patient)[video]))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for slot, (v, frame) in enumerate(
            zip(video.tolist(), embeddings.frame.tolist(), strict=True)
        ):
            entry = entries[embeddings.video_id[v]]
            group = entry.group if entry.patient_known else ""
            time = f"{embeddings.time[slot].item():.6g}"
            path = entry.path.absolute()
            writer.writerow((slot, entry.id, frame, time, group, entry.label or "", path))
    source = {"run": str(run.absolute()), "encoder": _fingerprint(run)}
    (out / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    bank.save(out)
    say(f"{len(bank)} frames of {len(embeddings.video_id)} videos, {bank.dim} numbers each")
    say(f"Bank: {out}")
    say(f"Next: usucl bank search {out} --query IMAGE --out neighbours.png")


def search(
    bank: Path,
    *,
    query: str,
    k: int = 8,
    run: Path | None = None,
    exclude_video: str | None = None,
    one_per_video: bool = False,
    out: Path | None = None,
    json_: bool = False,
) -> None:
    """Find the frames of a bank that are most similar to a frame.

    Args:
        bank: folder of the bank.
        query: an image, or a video file or folder of frames with @ and a frame number (from 0);
            without a number, the middle frame.
        k: frames to find.
        run: run folder of the encoder; the one that made the bank by default.
        exclude_video: a video that is not to be found, such as the query's own.
        one_per_video: only the most similar frame of each video.
        out: PNG file for a sheet of the frames found.
        json_: as JSON instead of a table.
    """
    import torch

    from usucl.bank import NegativeBank
    from usucl.data import normalise
    from usucl.losses import Frames
    from usucl.models import load_encoder

    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    stored = NegativeBank.load(bank)
    frames = _read_frames(bank)
    encoder = load_encoder(_encoder_folder(bank, run))
    image, name = _query_image(query)
    with torch.no_grad():
        embedding = encoder(normalise(_square(image, encoder.config.image_size)[None]))
    # a video of its own, so that every other frame counts; that of a stored one excludes it
    slots = {row["video_id"]: slot for slot, row in reversed(list(enumerate(frames)))}
    video = int(stored.frames().video.max()) + 1
    if exclude_video is not None:
        if exclude_video not in slots:
            raise ValueError(f"exclude-video: the bank has no video {exclude_video!r}")
        video = int(stored.frames().video[slots[exclude_video]])
    anchor = Frames(embedding, torch.tensor([video]), torch.zeros(1))
    found = stored.hardest(anchor, len(stored) if one_per_video else min(k, len(stored)))
    neighbours: list[Neighbour] = []
    seen: set[str] = set()
    pairs = zip(found.cross_index[0].tolist(), found.cross_similarity[0].tolist(), strict=True)
    for slot, similarity in pairs:
        row = frames[slot]
        if slot < 0 or len(neighbours) == k or (one_per_video and row["video_id"] in seen):
            continue
        seen.add(row["video_id"])
        rank = len(neighbours) + 1
        found_at = (row["video_id"], int(row["frame"]), row["label"], row["path"])
        neighbours.append(Neighbour(rank, similarity, *found_at))
    if json_:
        print(json.dumps({"query": name, "neighbours": [asdict(n) for n in neighbours]}, indent=2))
    else:
        rows = [
            (n.rank, f"{n.similarity:.4f}", n.video, n.frame, n.label or None) for n in neighbours
        ]
        columns = ["rank", "similarity", "video", "frame", "label"]
        table(columns, rows, title=f"Nearest to {name}", numbers=["rank", "similarity", "frame"])
    if out is not None:
        _sheet(image, name, neighbours, out)
        if not json_:
            say(f"Sheet: {out}")


def _fingerprint(run: Path) -> str:
    return hashlib.sha256((run / "encoder.safetensors").read_bytes()).hexdigest()


def _encoder_folder(bank: Path, run: Path | None) -> Path:
    """The run whose encoder made the bank: similarities with another's mean nothing."""
    source = json.loads((bank / "source.json").read_text(encoding="utf-8"))
    folder = Path(source["run"]) if run is None else run
    if not (folder / "encoder.safetensors").is_file():
        hint = "; name it with --run" if run is None else ""
        raise FileNotFoundError(f"{folder} holds no encoder{hint}")
    if _fingerprint(folder) != source["encoder"]:
        raise ValueError(f"the encoder in {folder} is not the one that made the bank in {bank}")
    return folder


def _read_frames(bank: Path) -> list[dict[str, str]]:
    path = bank / "frames.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{bank} has no frames.csv: make the bank with 'usucl bank build'")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _query_image(query: str) -> tuple[Tensor, str]:
    """The frame meant, uint8 [3, H, W], and its name."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    from usucl.data import open_video
    from usucl.data.video import IMAGE_SUFFIXES

    path, at, number = query.rpartition("@")
    if not at or not number.isdecimal():
        path, number = query, ""
    if Path(path).suffix.lower() in IMAGE_SUFFIXES and Path(path).is_file():
        try:
            with Image.open(path) as image:
                array = np.array(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"query: {path} cannot be read ({error})") from error
        return torch.from_numpy(array).permute(2, 0, 1), Path(path).name
    video = open_video(path)
    frame = int(number) if number else len(video) // 2
    if frame >= len(video):
        raise ValueError(f"query: {path} has {len(video)} frames, got @{frame}")
    return video.frames([frame])[0], f"{Path(path).name} @{frame}"


def _square(image: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    from usucl.data.transforms import resize_short_side

    return F.center_crop(resize_short_side(image.contiguous(), size), [size, size])


def _sheet(image: Tensor, name: str, neighbours: Sequence[Neighbour], path: Path) -> None:
    from matplotlib.figure import Figure

    from usucl.data import open_video
    from usucl.report import style

    columns = min(len(neighbours) + 1, 5)
    rows = -(-(len(neighbours) + 1) // columns)
    tiles = [(image, "query", name)]
    for n in neighbours:
        frame = open_video(n.path).frames([n.frame])[0]
        tiles.append((frame, f"{n.similarity:.3f}", f"{n.video} · {n.frame}"))
    with style.styled():
        figure = Figure(figsize=(1.9 * columns, 2.35 * rows))
        for i, (picture, first, second) in enumerate(tiles):
            axes = figure.add_subplot(rows, columns, i + 1)
            style.bare(axes)
            axes.imshow(_square(picture, 192).permute(1, 2, 0).numpy(), interpolation="lanczos")
            colour = style.ANCHOR if i == 0 else style.CROSS
            below: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
            axes.text(0, -0.03, first, fontsize=8, weight="bold", color=colour, **below)
            axes.text(0, -0.13, _short(second, 26), fontsize=7, color=style.MUTED, **below)
        figure.subplots_adjust(0.02, 0.1 / rows, 0.98, 0.98, wspace=0.08, hspace=0.3)
        style.save(figure, path)


def _short(text: str, length: int) -> str:
    """The end of a long name: there is what tells one frame from another."""
    return text if len(text) <= length else "…" + text[1 - length :]

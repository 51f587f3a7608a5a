"""From videos to embeddings: the choice of frames, and their encoding."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from usucl._files import DamagedFileError, read_tensors, replacing, write_tensors
from usucl._progress import stage
from usucl._tables import read_table, table_line, write_table
from usucl.data import VideoEntry, VideoError, load_frames, normalise

logger = logging.getLogger(__name__)

_TENSORS = ("features", "embedding", "video", "frame", "time")
_COLUMNS = ("video", "video_id", "frame", "time", "group", "label", "frame_label", "part")
_DIGEST = "sha256 of the table"

EmbeddingFormat = Literal["safetensors", "npz", "csv"]
"""Kinds of files that :meth:`Embeddings.save` writes."""


class Encoded(NamedTuple):
    """Features and embeddings of n frames by one encoder, on the CPU.

    Attributes:
        features: backbone output, float32 ``[n, F]``, which the probes see.
        embedding: L2-normalised output of the head, float32 ``[n, D]``, which the loss has shaped.
    """

    features: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Embeddings:
    """Features and embeddings of n frames of V videos by one encoder.

    Attributes:
        features, embedding: as in :class:`Encoded`.
        video: index into the fields with one value per video below, int64 ``[n]``.
        frame: frame number in its video, int64 ``[n]``.
        time: ``frame`` as a fraction of the video's length, float32 ``[n]``.
        frame_label: label of each frame, or None, length n.
        video_id, group, label, held_out: one value per video. ``held_out`` is true if pretraining
            saw neither the video nor its patient.
    """

    features: Tensor
    embedding: Tensor
    video: Tensor
    frame: Tensor
    time: Tensor
    frame_label: tuple[str | None, ...]
    video_id: tuple[str, ...]
    group: tuple[str, ...]
    label: tuple[str | None, ...]
    held_out: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.video)

    def select(self, frames: NDArray[np.bool_]) -> Embeddings:
        """Returns the frames of a boolean mask ``[n]``; the videos stay as they are."""
        mask = torch.from_numpy(frames)
        return replace(
            self,
            frame_label=tuple(self.frame_label[i] for i in np.flatnonzero(frames)),
            **{name: getattr(self, name)[mask] for name in _TENSORS},
        )

    @property
    def frame_held_out(self) -> NDArray[np.bool_]:
        """``held_out`` of each frame's video, ``[n]``."""
        return np.array(self.held_out, dtype=bool)[self.video.numpy()]

    def __repr__(self) -> str:
        sizes = f"{self.features.shape[1]} features, {self.embedding.shape[1]} dimensions"
        return f"Embeddings({len(self)} frames of {len(self.video_id)} videos, {sizes})"

    def save(self, folder: str | Path, name: str, format: EmbeddingFormat = "safetensors") -> Path:
        """Writes the embeddings; earlier ones of that name and any format stay until then.

        ``"safetensors"``: ``<name>.safetensors`` with the tensors and ``<name>.csv`` with one row
        per frame, which :meth:`load` reads; the first holds checksums of both.
        ``"npz"``: ``<name>.npz`` with all fields as arrays, for ``numpy.load``; unknown labels are
        empty texts.
        ``"csv"``: ``<name>.csv`` with one row per frame and the numbers in it. Its columns are
        video (number of the video, from 0), video_id, frame (from 0), time (share of the video's
        length), group (patient, or video_id where unknown), label, frame_label, part (train or
        held_out), then embedding_0 ... and feature_0 ..., with the digits that give the same
        float32 again.

        Returns:
            The file with the numbers.

        Raises:
            ValueError: the format is another.
            OSError: a file cannot be written.
        """
        check_format(format)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write = {"safetensors": self._save_tensors, "npz": self._save_npz, "csv": self._save_csv}
        path = write[format](folder, name)
        kept = {path.name, f"{name}.csv"} if format == "safetensors" else {path.name}
        for other in {f"{name}.{suffix}" for suffix in get_args(EmbeddingFormat)} - kept:
            (folder / other).unlink(missing_ok=True)
        return path

    def _save_tensors(self, folder: Path, name: str) -> Path:
        table, path = folder / f"{name}.csv", folder / f"{name}.safetensors"
        with replacing(table) as new_table, replacing(path) as new_tensors:
            write_table(new_table, _COLUMNS, self._rows())
            digest = hashlib.sha256(new_table.read_bytes()).hexdigest()
            tensors = {key: getattr(self, key) for key in _TENSORS}
            write_tensors(new_tensors, tensors, {_DIGEST: digest})
        return path

    def _save_npz(self, folder: Path, name: str) -> Path:
        arrays: dict[str, Any] = {}
        for column, values in ((field.name, getattr(self, field.name)) for field in fields(self)):
            texts = ("" if value is None else value for value in values)
            arrays[column] = values.numpy() if isinstance(values, Tensor) else np.array([*texts])
        path = folder / f"{name}.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        return path

    def _save_csv(self, folder: Path, name: str) -> Path:
        path = folder / f"{name}.csv"
        numbers = torch.cat([self.embedding, self.features], dim=1)
        names = [f"embedding_{i}" for i in range(self.embedding.shape[1])]
        names += [f"feature_{i}" for i in range(self.features.shape[1])]
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(table_line([*_COLUMNS, *names]).encode())
            for row, values in zip(self._rows(), numbers, strict=True):
                line = table_line(row).removesuffix("\n")
                cells = ",".join(f"{value:.9g}" for value in values.tolist())
                file.write(f"{line},{cells}\n".encode("utf-8", "surrogateescape"))
        return path

    def _rows(self) -> Iterator[tuple[object, ...]]:
        """Yields the cells of each frame under ``_COLUMNS``."""
        numbers = (self.video.tolist(), self.frame.tolist(), self.time.tolist())
        for v, f, t, frame_label in zip(*numbers, self.frame_label, strict=True):
            about = self.group[v], self.label[v], frame_label
            part = "held_out" if self.held_out[v] else "train"
            yield v, self.video_id[v], f, f"{t:.6g}", *about, part

    @classmethod
    def load(cls, folder: str | Path, name: str) -> Embeddings:
        """Reads what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there are no embeddings of that name.
            DamagedFileError: a file is damaged; the message names it.
        """
        path, table = Path(folder) / f"{name}.safetensors", Path(folder) / f"{name}.csv"
        tensors, about = read_tensors(path)
        if _DIGEST in about and hashlib.sha256(table.read_bytes()).hexdigest() != about[_DIGEST]:
            raise DamagedFileError(table, f"its checksum is not that in {path.name}")
        rows = read_table(table, _COLUMNS)
        forms = {key: (t.is_floating_point(), t.shape[:1], t.dim()) for key, t in tensors.items()}
        if forms != {
            key: (key not in ("video", "frame"), (len(rows),), 1 + (key in Encoded._fields))
            for key in _TENSORS
        }:
            shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
            raise DamagedFileError(path, f"{table.name} has {len(rows)} frames, got {shapes}")
        if [row["video"] for row in rows] != [str(v) for v in tensors["video"].tolist()]:
            raise DamagedFileError(table, f"its videos are not those of {path.name}")
        videos = {int(row["video"]): row for row in rows}
        if videos.keys() != set(range(len(videos))):
            raise DamagedFileError(table, f"its videos must be 0 .. {len(videos) - 1}")
        ordered = [videos[v] for v in range(len(videos))]
        return cls(
            **tensors,
            frame_label=tuple(row["frame_label"] or None for row in rows),
            video_id=tuple(row["video_id"] for row in ordered),
            group=tuple(row["group"] for row in ordered),
            label=tuple(row["label"] or None for row in ordered),
            held_out=tuple(row["part"] == "held_out" for row in ordered),
        )


def check_format(format: str) -> None:
    """Raises ValueError if ``format`` is no :data:`EmbeddingFormat`."""
    if format not in get_args(EmbeddingFormat):
        known = ", ".join(get_args(EmbeddingFormat))
        raise ValueError(f"format must be one of {known}, got {format!r}")


def numbered(names: Iterable[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the distinct names in order, and the number of each name among them, ``[n]``.

    NumPy's own arrays of text have the width of the longest name, and lose zeros at the end.
    """
    names = list(names)
    distinct = sorted(set(names))
    number = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([number[name] for name in names], dtype=np.int64)


def default_device() -> torch.device:
    """Returns a GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def evenly_spaced(count: int, limit: int | None, *, ends: bool = False) -> list[int]:
    """Returns at most ``limit`` of the positions 0 .. count - 1; None returns all of them.

    They are the centres of equal parts, or with ``ends`` the first, the last, and some between.
    """
    if limit is None or limit >= count:
        return list(range(count))
    if ends:
        return np.linspace(0, count - 1, limit).astype(int).tolist()
    return [int((i + 0.5) * count / limit) for i in range(limit)]


def encode(encoder: nn.Module, images: Tensor, batch_size: int, device: torch.device) -> Encoded:
    """Encodes normalised images ``[n, 3, S, S]``, ``batch_size`` of them at once.

    ``encoder`` is anything with ``features`` and ``head``; one pass of the backbone gives both.
    """
    features, embeddings = [], []
    with torch.no_grad():
        for batch in images.split(batch_size):
            feature = encoder.features(batch.to(device))  # type: ignore[operator]
            embedding = F.normalize(encoder.head(feature).float(), dim=1)  # type: ignore[operator]
            features.append(feature.float().cpu())
            embeddings.append(embedding.cpu())
    return Encoded(torch.cat(features), torch.cat(embeddings))


def embed_videos(
    wanted: Iterable[tuple[VideoEntry, Sequence[int]]],
    encoders: Mapping[str, nn.Module],
    *,
    image_size: int,
    left_out: Callable[[VideoError], None],
    batch_size: int = 64,
    device: torch.device | None = None,
) -> Iterator[tuple[VideoEntry, Sequence[int], dict[str, Encoded]]]:
    """Embeds frames of one video after the other; each video is read once.

    Args:
        wanted: videos, and which frames of each.
        encoders: encoders by name; all see the same frames.
        image_size: side S of the images that the encoders see, in pixels.
        left_out: called with the reason for each video that cannot be read.
        batch_size: frames encoded at once.
        device: device of the encoders; by default :func:`default_device`.

    Yields:
        The video, its frames, and their encodings by encoder.

    Raises:
        ValueError: an encoder gives values that are not finite.
    """
    device = device or default_device()
    encoders = {name: encoder.to(device) for name, encoder in encoders.items()}
    for entry, frames in wanted:
        try:
            images = normalise(load_frames(entry, frames, image_size))
        except VideoError as error:
            left_out(error)
            continue
        encoded = {n: encode(e, images, batch_size, device) for n, e in encoders.items()}
        for name, values in encoded.items():
            if not all(column.isfinite().all() for column in values):
                raise ValueError(f"the {name} encoder's values for {entry.id} are not finite")
        yield entry, frames, encoded


def embed_entries(
    entries: Sequence[VideoEntry],
    encoders: Mapping[str, nn.Module],
    *,
    image_size: int,
    held_out: Sequence[bool],
    frames_per_video: int | None = None,
    prefer_labelled: bool = False,
    batch_size: int = 64,
    device: torch.device | None = None,
) -> dict[str, Embeddings]:
    """Embeds the same evenly spaced frames with every encoder.

    Videos that cannot be read are named in the log and left out. ``held_out`` ``[V]`` is as in
    :class:`Embeddings`; ``prefer_labelled`` takes frames that have a label first, evenly spaced
    among them; the other arguments are those of :func:`embed_videos`.

    Raises:
        ValueError: no video is left, or an encoder gives values that are not finite.
    """
    part = {entry.id: is_held_out for entry, is_held_out in zip(entries, held_out, strict=True)}
    choose = _labelled_first if prefer_labelled else _evenly
    wanted = [(e, choose(e, frames_per_video)) for e in entries]
    embedded = []
    with stage("Embedding frames", sum(len(f) for _, f in wanted), unit="frames") as bar:
        for one in embed_videos(
            wanted,
            encoders,
            image_size=image_size,
            left_out=lambda error: logger.warning("left out: %s", error),
            batch_size=batch_size,
            device=device,
        ):
            embedded.append(one)
            bar.advance(len(one[1]))
    if not embedded:
        raise ValueError("data must hold at least one readable video, got none")
    kept = [entry for entry, *_ in embedded]
    rows = [(v, entry, i) for v, (entry, frames, _) in enumerate(embedded) for i in frames]
    return {
        name: Embeddings(
            features=torch.cat([encoded[name].features for *_, encoded in embedded]),
            embedding=torch.cat([encoded[name].embedding for *_, encoded in embedded]),
            video=torch.tensor([v for v, _, _ in rows]),
            frame=torch.tensor([i for _, _, i in rows]),
            time=torch.tensor([i / e.num_frames for _, e, i in rows], dtype=torch.float32),
            frame_label=tuple(e.frame_labels[i] if e.frame_labels else None for _, e, i in rows),
            video_id=tuple(e.id for e in kept),
            group=tuple(e.group for e in kept),
            label=tuple(e.label for e in kept),
            held_out=tuple(part[e.id] for e in kept),
        )
        for name in encoders
    }


def _evenly(entry: VideoEntry, most: int | None) -> list[int]:
    return evenly_spaced(entry.num_frames, most)


def _labelled_first(entry: VideoEntry, most: int | None) -> list[int]:
    """Returns frames, ascending, of which as many as possible have a label."""
    has_label = [label is not None for label in entry.frame_labels or ()]
    if most is None or all(has_label) or not any(has_label):
        return _evenly(entry, most)
    labelled = [i for i, has in enumerate(has_label) if has]
    others = [i for i, has in enumerate(has_label) if not has]
    taken = [labelled[i] for i in evenly_spaced(len(labelled), most)]
    if most > len(taken):
        taken += [others[i] for i in evenly_spaced(len(others), most - len(taken))]
    return sorted(taken)

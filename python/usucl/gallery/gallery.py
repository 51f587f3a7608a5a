"""Embedded frames and what is known about them, as one object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from usucl._progress import job
from usucl.bank import NegativeBank
from usucl.data.catalog.tables.columns import LABEL
from usucl.embedding import evenly_spaced
from usucl.gallery import contents
from usucl.gallery.build import DType, clean, embed, fill, new_bank
from usucl.gallery.contents import UNFINISHED, Contents, StoredFrame, StoredVideo
from usucl.gallery.events import Callback, Resumed, log_skipped
from usucl.gallery.pairs import Across, Pair, compare, find_pairs
from usucl.gallery.parts import Parts, encoder_fingerprint
from usucl.gallery.query import query_of_file, query_of_slot
from usucl.gallery.search import Filters, Found, nearest
from usucl.run_folder import RunFolder

if TYPE_CHECKING:
    from usucl.models import FrameEncoder


@dataclass(frozen=True)
class Gallery:
    """The embedded frames of a folder of videos, with what is known about each.

    Example::

        gallery = usucl.Gallery.build(run="runs/first", data="my/videos", out="runs/first-gallery")
        found = gallery.search("my/videos/case7.mp4@12", k=5, exclude_video=["case7"])
        for match in found.matches:
            print(match.similarity, gallery.describe(match.slot))
        leaks = gallery.duplicates(across="patient")

    Attributes:
        folder: folder of the gallery.
        bank: the embeddings of M frames, one per slot.
        contents: which frame of which video is in which slot.
    """

    folder: Path
    bank: NegativeBank
    contents: Contents

    def __repr__(self) -> str:
        return f"Gallery({str(self.folder)!r}, {len(self.contents.videos)} videos, {self.bank!r})"

    @classmethod
    @job("Building the bank", {"Reading videos": 1, "Embedding frames": 5, "Filling the bank": 0.1})
    def build(
        cls,
        *,
        run: str | Path,
        data: str | Path,
        out: str | Path,
        label: str | None = None,
        sweep: str | None = None,
        frames_per_video: int | None = None,
        search: str = "exact",
        dtype: DType = "float32",
        batch_size: int = 64,
        overwrite: bool = False,
        progress: Callback | bool | None = None,
    ) -> Gallery:
        """Embeds every frame of a folder with a run's encoder, and keeps them in a gallery.

        A build may be interrupted and started again with the same arguments: it continues after the
        last finished video. An earlier gallery stays until the new one is complete.

        Args:
            run: run folder, whose encoder is used.
            data: folder of videos; patients, labels and folds are those of its ``labels.csv``.
            out: folder of the gallery.
            label: column of ``labels.csv`` that holds the labels; by default that of the run.
            sweep: makes one video of several clips, see
                :meth:`usucl.data.VideoCatalog.with_sweeps`; by default as in the run.
            frames_per_video: greatest number of frames per video, evenly spaced; None takes all.
            search: search of the bank, see :class:`usucl.NegativeBank`.
            dtype: dtype of the stored embeddings: "float32", "bfloat16" or "float16".
            batch_size: frames encoded at once.
            overwrite: replace an earlier gallery in this folder.
            progress: True shows the progress on standard error. Or a function, called with
                :class:`~usucl.gallery.Progress` after each video, and with
                :class:`~usucl.gallery.Resumed` and :class:`~usucl.data.Skipped` when they apply;
                without it, videos that cannot be read are named in the log.

        Raises:
            FileNotFoundError: ``run`` holds no encoder.
            FileExistsError: ``out`` already holds a gallery, and ``overwrite`` is not given.
            ValueError: ``data`` holds no readable video, ``search`` is not possible, a number is
                below 1, or the encoder gives values that are not finite.
            OSError: ``out`` cannot be written.
        """
        for name, value in (("frames_per_video", frames_per_video), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        tell = progress if callable(progress) else log_skipped
        run, data, out = Path(run), Path(data), Path(out)
        refused = FileExistsError(f"{out} holds a bank: give overwrite=True to replace it")
        keep = (out / "bank.json").exists() and not overwrite
        if keep and not (out / UNFINISHED).exists():
            raise refused
        from usucl.models import load_encoder  # with torchvision, which a search does without

        encoder = load_encoder(run)
        parts = Parts(out / UNFINISHED, encoder_fingerprint(run))
        catalog = RunFolder(run).scan(data, label=label, sweep=sweep)
        tasks = [parts.task(e, evenly_spaced(e.num_frames, frames_per_video)) for e in catalog]
        asked = [[task.part for task in tasks], search, dtype]
        asked += [] if catalog.label == LABEL else [catalog.label]
        request = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        if keep:
            gallery = cls.open(out)
            if gallery.contents.source.get("request") != request:
                raise refused
            clean(out, parts)  # the earlier build was killed when only this was left
            tell(Resumed(len(tasks), len(tasks), complete=True))
            return gallery
        new_bank(tasks, encoder, search, dtype)  # a bad search fails now, not after the work
        for skipped in catalog.skipped:
            tell(skipped)
        done = embed(tasks, encoder, parts, batch_size, tell)
        if not done:
            raise ValueError(f"data must hold at least one readable video, got none in {data}")
        bank = new_bank(done, encoder, search, dtype)
        fill(bank, done, parts)
        source = {
            "run": str(run.absolute()),
            "encoder": parts.encoder,
            "data": str(data.absolute()),
            "label": catalog.label,
            "search": search,
            "request": request,
        }
        videos = tuple(StoredVideo.of(task.entry, task.frames) for task in done)
        gallery = cls(out, bank, Contents(videos, source))
        gallery.save()
        clean(out, parts)
        return gallery

    @classmethod
    @job("Opening the bank")
    def open(cls, folder: str | Path) -> Gallery:
        """Reads what :meth:`build` or :meth:`save` wrote.

        Raises:
            FileNotFoundError: ``folder`` holds no bank, or one without its table.
            ValueError: the files are damaged.
        """
        return cls(Path(folder), *contents.read(Path(folder)))

    def save(self) -> None:
        """Writes the gallery to its folder; an earlier one stays complete until the end.

        Raises:
            OSError: the folder cannot be written.
        """
        contents.write(self.folder, self.bank, self.contents)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.bank)

    def describe(self, slot: int) -> StoredFrame:
        """Returns everything known about the frame in a slot, 0 .. M - 1."""
        return self.contents.describe(slot)

    @job("Searching")
    def search(
        self,
        query: str | Path | int,
        *,
        k: int = 8,
        video: Sequence[str] = (),
        patient: Sequence[str] = (),
        label: Sequence[str] = (),
        time: Sequence[float] = (),
        exclude_video: Sequence[str] = (),
        exclude_patient: Sequence[str] = (),
        one_per_video: bool = False,
        run: str | Path | None = None,
    ) -> Found:
        """Finds the frames that are most similar to a frame.

        Filters apply before the search, so no frame that passes them is missed.

        Args:
            query: path of an image, or of a video, DICOM file or folder of frames with ``@`` and a
                frame number (from 0), such as ``"case7.mp4@12"``; without a number, it is the
                middle frame. Or the slot of a stored frame, which is not found again.
            k: frames to find, >= 1.
            video, patient, label: only frames of these videos, patients, labels.
            time: only frames between two times (lo, hi), as fractions of their video's length.
            exclude_video, exclude_patient: no frames of these videos and patients.
            one_per_video: only the most similar frame of each video.
            run: run folder of the encoder; the one that made the gallery by default.

        Returns:
            :class:`~usucl.gallery.Found`, whose matches are at most ``k`` slots with the cosine
            similarity to the query, the most similar first.

        Raises:
            FileNotFoundError: the encoder is not where it was.
            ValueError: the query cannot be read, the encoder is not the one that made the gallery,
                a filter has an unknown name, or nothing passes the filters.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        filters = Filters(video, patient, label, time, exclude_video, exclude_patient)
        passing = filters.passing(self.contents)
        if isinstance(query, str | Path):
            asked = query_of_file(self._encoder(run), self.contents, str(query))
        else:
            asked = query_of_slot(self.bank, self.contents, int(query))
        slots = np.flatnonzero(passing)
        slots = slots[slots != asked.slot]
        if not len(slots):
            raise ValueError("nothing is left to search: only the slot itself passes the filters")
        matches = nearest(self.bank, self.contents, asked, slots, k, one_per_video)
        return Found(asked, len(slots), matches)

    @job("Finding duplicates", {"Comparing frames": 1, "Reading frames": 2})
    def duplicates(
        self,
        *,
        threshold: float = 0.98,
        across: Across = "video",
        every_frame: bool = False,
        progress: Callback | bool | None = None,
    ) -> list[Pair]:
        """Finds near-identical frames in different videos, patients and folds.

        Pairs are found by the similarity of their embeddings, and then compared by pixels: they are
        the same picture, or only alike to the encoder. An exact search misses no pair.

        Args:
            threshold: least cosine similarity of the embeddings.
            across: "video" compares different videos, "patient" those not of one known patient,
                and "fold" different folds, among frames that have one.
            every_frame: return every pair of frames, not only the best of each two videos.
            progress: True shows the progress on standard error. Or a function, called with
                :class:`~usucl.gallery.Progress` every 512 frames.

        Returns:
            The pairs, the most similar first; ties in order of slots.

        Raises:
            ValueError: ``threshold`` is not a cosine, or there are fewer than two folds to compare.
        """
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a cosine, -1 to 1, got {threshold:g}")
        pairs = find_pairs(
            self.bank,
            self.contents,
            threshold,
            across,
            every_frame=every_frame,
            tell=progress if callable(progress) else log_skipped,
        )
        return compare(self.contents, pairs)

    def _encoder(self, run: str | Path | None) -> FrameEncoder:
        """Loads the encoder that made the gallery: similarities across encoders mean nothing."""
        source = self.contents.source
        folder = Path(str(source.get("run", "an unknown run")) if run is None else run)
        if not RunFolder(folder).encoder_weights.is_file():
            hint = "; name it with run=" if run is None else ""
            raise FileNotFoundError(f"{folder} holds no encoder{hint}")
        if encoder_fingerprint(folder) != source.get("encoder"):
            raise ValueError(
                f"the encoder in {folder} is not the one that made the bank in {self.folder}"
            )
        from usucl.models import load_encoder

        return load_encoder(folder)

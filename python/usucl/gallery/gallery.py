"""Embedded frames with what they are, as one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from usucl.bank import NegativeBank
from usucl.gallery import contents
from usucl.gallery.build import DType, embed_folder
from usucl.gallery.contents import Contents, StoredFrame
from usucl.gallery.events import Callback, log_skipped
from usucl.gallery.pairs import Across, Pair, compare, find_pairs
from usucl.gallery.parts import encoder_fingerprint
from usucl.gallery.query import query_of_file, query_of_slot
from usucl.gallery.search import Filters, Found, nearest
from usucl.models import FrameEncoder, load_encoder
from usucl.run_folder import RunFolder


@dataclass(frozen=True)
class Gallery:
    """The embedded frames of a folder of videos, with what each frame is.

    Example::

        gallery = usucl.Gallery.build(run="runs/first", data="my/videos", out="runs/first-gallery")
        found = gallery.search("my/videos/case7.mp4@12", k=5, exclude_video=["case7"])
        for match in found.matches:
            print(match.similarity, gallery.describe(match.slot))
        leaks = gallery.duplicates(across="patient")

    Attributes:
        folder: where it is stored.
        bank: the embeddings, M frames in as many slots.
        contents: which frame of which video is in which slot.
    """

    folder: Path
    bank: NegativeBank
    contents: Contents

    @classmethod
    def build(
        cls,
        *,
        run: str | Path,
        data: str | Path,
        out: str | Path,
        frames_per_video: int | None = None,
        search: str = "exact",
        dtype: DType = "float32",
        batch_size: int = 64,
        overwrite: bool = False,
        progress: Callback | None = None,
    ) -> Gallery:
        """Embeds every frame of a folder with a run's encoder, and keeps them in a gallery.

        A build may be interrupted and started again with the same arguments: it goes on after the
        last finished video. An earlier gallery stays whole until the new one is complete.

        Args:
            run: run folder, of which only the encoder is used.
            data: folder of videos; patients, labels and folds are those of its ``labels.csv``.
            out: folder of the gallery.
            frames_per_video: at most so many frames of each video, evenly spaced; None: all.
            search: how the bank is searched, see :class:`usucl.NegativeBank`.
            dtype: of the stored embeddings: "float32", "bfloat16" or "float16".
            batch_size: frames encoded at once.
            overwrite: replace an earlier gallery in this folder.
            progress: called with :class:`~usucl.gallery.Progress` after each video, and with
                :class:`~usucl.gallery.Resumed` and :class:`~usucl.data.Skipped` where there
                is reason to. Without it, videos that cannot be read are named in the log.

        Raises:
            FileNotFoundError: ``run`` holds no encoder.
            FileExistsError: ``out`` holds a gallery already, without ``overwrite``.
            ValueError: ``data`` holds no readable video, ``search`` is not possible, a number is
                below 1, or the encoder gives values that are not finite.
            OSError: ``out`` cannot be written.
        """
        folder = Path(out)
        bank, known = embed_folder(
            Path(run),
            Path(data),
            folder,
            frames_per_video=frames_per_video,
            search=search,
            dtype=dtype,
            batch_size=batch_size,
            overwrite=overwrite,
            tell=progress or log_skipped,
        )
        return cls(folder, bank, known)

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Reads what :meth:`build` or :meth:`save` wrote.

        Raises:
            FileNotFoundError: ``folder`` holds no bank, or one of which nothing is known.
            ValueError: the files are damaged.
        """
        return cls(Path(folder), *contents.read(Path(folder)))

    def save(self) -> None:
        """Writes the gallery to its folder; one that was there stays whole until the end.

        Raises:
            OSError: the folder cannot be written.
        """
        contents.write(self.folder, self.bank, self.contents)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.bank)

    def describe(self, slot: int) -> StoredFrame:
        """Everything known of the frame in a slot, 0 .. M - 1."""
        return self.contents.describe(slot)

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

        Filters restrict what may be found before the search, so none that passes is missed.

        Args:
            query: path of an image, or of a video, DICOM file or folder of frames with ``@`` and a
                frame number (from 0), such as ``"case7.mp4@12"``; without a number, the middle
                frame. Or the slot of a stored frame, which is not found again.
            k: frames to find, >= 1.
            video, patient, label: only frames of these videos, patients, labels.
            time: only frames between two times (lo, hi), as fractions of their video's length.
            exclude_video, exclude_patient: no frame of these videos and patients.
            one_per_video: only the most similar frame of each video.
            run: run folder of the encoder; the one that made the gallery by default.

        Returns:
            :class:`~usucl.gallery.Found`, whose matches are at most ``k`` slots with the cosine of
            their embeddings and the query's, the most similar first.

        Raises:
            FileNotFoundError: the encoder is not where it was.
            ValueError: the query cannot be read, the encoder is not the one that made the gallery,
                a filter has a name that is not there, or nothing passes the filters.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        filters = Filters(video, patient, label, time, exclude_video, exclude_patient)
        passing = filters.passing(self.contents)
        if isinstance(query, str | Path):
            asked = query_of_file(self._encoder(run), str(query))
        else:
            asked = query_of_slot(self.bank, self.contents, int(query))
        slots = np.flatnonzero(passing)
        slots = slots[slots != asked.slot]
        if not len(slots):
            raise ValueError("nothing is left to search: the slot itself alone passes the filters")
        matches = nearest(self.bank, self.contents, asked, slots, k, one_per_video)
        return Found(asked, len(slots), matches)

    def duplicates(
        self,
        *,
        threshold: float = 0.98,
        across: Across = "video",
        every_frame: bool = False,
        progress: Callback | None = None,
    ) -> list[Pair]:
        """Finds near-identical frames in different videos, patients and folds.

        Pairs are found by the similarity of their embeddings, and then compared by pixels: the same
        picture, or only alike to the encoder. Where the bank's search is exact, no pair is missed.

        Args:
            threshold: least cosine similarity of the embeddings.
            across: "video": frames of different videos; "patient": and not of one known patient;
                "fold": of different folds, of those frames that have one.
            every_frame: every pair of frames, not only the best of each two videos.
            progress: called with :class:`~usucl.gallery.Progress` every 512 frames.

        Returns:
            The pairs, the most similar first; ties in order of slots.

        Raises:
            ValueError: ``threshold`` is no cosine, or there are fewer than two folds to compare.
        """
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold must be a cosine, -1 to 1, got {threshold:g}")
        pairs = find_pairs(
            self.bank,
            self.contents,
            threshold,
            across,
            every_frame=every_frame,
            tell=progress or log_skipped,
        )
        return compare(self.contents, pairs)

    def _encoder(self, run: str | Path | None) -> FrameEncoder:
        """The encoder that made the gallery: similarities with another's mean nothing."""
        folder = Path(self.contents.source["run"] if run is None else run)
        if not RunFolder(folder).encoder_weights.is_file():
            hint = "; name it with run=" if run is None else ""
            raise FileNotFoundError(f"{folder} holds no encoder{hint}")
        if encoder_fingerprint(folder) != self.contents.source["encoder"]:
            raise ValueError(
                f"the encoder in {folder} is not the one that made the bank in {self.folder}"
            )
        return load_encoder(folder)

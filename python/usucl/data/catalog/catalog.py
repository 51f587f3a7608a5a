"""What videos a folder holds, with their labels, patients and cross-validation folds."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from usucl._patterns import one_group
from usucl._progress import listen
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.folds import assign_folds, check_folds
from usucl.data.catalog.identity import relative_name
from usucl.data.catalog.patients import (
    Patients,
    Suggestion,
    knowledge,
    merge,
    patient_of,
    split_words,
    suggest,
    with_patient,
    with_patients_of_files,
)
from usucl.data.catalog.scanning.manifest import Manifest
from usucl.data.catalog.scanning.scan import read_videos
from usucl.data.catalog.scanning.search import Skipped
from usucl.data.catalog.summary import Note, find_notes
from usucl.data.catalog.sweeps import (
    NO_SWEEPS,
    Sweep,
    find_sweeps,
    joined,
    sweep_pattern,
    without_sweeps,
)
from usucl.data.catalog.tables.columns import FRAME_LABELS, LABEL, LABELS, check_label
from usucl.data.catalog.tables.labels import (
    Names,
    read_frame_labels,
    read_labels,
    some,
    warn_of_tables_elsewhere,
)
from usucl.data.video import Damaged


@dataclass(frozen=True)
class VideoCatalog:
    """The videos under a folder, in natural order, and those that had to be skipped.

    ``label`` is the name of the column of the tables that the labels come from.
    """

    root: Path
    entries: tuple[VideoEntry, ...]
    skipped: tuple[Skipped, ...] = ()
    label: str = LABEL

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[VideoEntry]:
        return iter(self.entries)

    def __repr__(self) -> str:
        known = {entry.group for entry in self.entries if entry.patient_known}
        patients = f"{len(known)} known patients" if known else "patients unknown"
        counts = f"{len(self)} videos, {patients}, {len(self.skipped)} skipped"
        for kind, number in Counter(note.kind for note in self.notes).items():
            counts += f", {number} {kind}"
        return f"VideoCatalog({str(self.root)!r}, {counts})"

    @property
    def clips(self) -> tuple[VideoEntry, ...]:
        """The videos as they lie in the folder: the clips of sweeps in place of the sweeps."""
        return without_sweeps(self.entries)

    @property
    def sweeps(self) -> tuple[VideoEntry, ...]:
        """The videos that are made of several clips."""
        return tuple(entry for entry in self.entries if entry.parts)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is doubtful about videos that can be used: static ones, duplicates of others."""
        return find_notes((e.id, e.num_frames, e.summary) for e in self.clips)

    @property
    def patients(self) -> Patients:
        """Whether the patients of the videos are known, unknown, or known of some only."""
        return knowledge([entry.patient_known for entry in self.entries])

    @property
    def patient_doubt(self) -> str:
        """What a split of the videos leaves open about patients, in words; empty if nothing."""
        return split_words([entry.patient_known for entry in self.entries])

    @classmethod
    def scan(
        cls,
        root: str | Path,
        *,
        min_frames: int = 2,
        damaged: Damaged = "skip",
        missing: Collection[str] = (),
        label: str = LABEL,
        patient_pattern: str | None = None,
        sweep: str | None = None,
        manifest: bool = True,
        progress: bool = False,
    ) -> VideoCatalog:
        """Finds every video under ``root``: folders of images and video files, mixed and nested.

        Every video is decoded once, so everything in the catalogue can be read; further scans,
        in any process, decode what has changed since, by size and times. Hidden files and
        folders and text files are passed over; files of other kinds are skipped with a reason. A
        video that several links lead to, symbolic or hard, counts once. Patients are those of
        ``labels.csv``, else of a pattern, else those that DICOM files name, unless they say
        "anonymous" or the like.

        Two tables directly in ``root`` are read if they exist: ``labels.csv`` (video_id, and
        optionally label, patient or group, fold and source) and ``frame_labels.csv`` (video_id,
        frame counted from 0, label, and optionally last_frame, up to which the label holds). They
        may be in UTF-8, UTF-16 or cp1252, with commas, semicolons or tabs. A video_id is an entry's
        id, the name of a link to it, or either as a path relative to the root, with or without the
        file's extension. Cells such as ``nan``, ``N/A``, ``-`` and ``?`` are taken as
        empty, and so are the patients ``none`` and ``unknown``; as labels those two are classes.

        A third table, ``sweeps.csv``, makes one video of several clips, see :meth:`with_sweeps`.
        The other two may then name sweeps as well as clips.

        Args:
            root: the folder.
            min_frames: videos with fewer frames are skipped.
            damaged: "skip" leaves out videos of which something is missing or broken, "keep" takes
                their whole frames; ``damage`` of the opened video says what is wrong.
            missing: further words in the tables that mean unknown, such as ``("0",)``.
            label: the column of the tables that holds the labels.
            patient_pattern: finds the patients in the videos' paths, see :meth:`with_patients`.
            sweep: a pattern by which clips are one video, see :meth:`with_sweeps`; it replaces
                ``sweeps.csv``. ``"none"`` leaves every clip a video.
            manifest: take from earlier scans what they have found out of files that are as they
                were, and keep what this one does; False reads everything again. The manifest lies
                in ``$USUCL_CACHE``, ``$XDG_CACHE_HOME/usucl`` or ``~/.cache/usucl``, one file per
                folder; ``USUCL_CACHE=off`` does without it.
            progress: show the progress on standard error.

        Raises:
            ValueError: ``root`` is not a folder or holds no usable video (skipped files are
                listed); ``min_frames`` is below 1; ``damaged`` is neither "skip" nor "keep"; a
                table is damaged, lacks a column, names a video twice or ambiguously, puts a patient
                into two folds, or contradicts a video; no table has the column ``label``; a pattern
                is none, or finds nothing.

        Warns:
            UserWarning: a table names unknown videos, labels only some frames of a video, has short
                rows or words for what is unknown, is not in UTF-8 with commas, or lies in another
                folder; a pattern contradicts it or does not find all patients.
        """
        if min_frames < 1:
            raise ValueError(f"min_frames must be at least 1, got {min_frames}")
        if damaged not in get_args(Damaged):
            raise ValueError(f"damaged must be one of {get_args(Damaged)}, got {damaged!r}")
        if patient_pattern is not None:
            _compiled(patient_pattern)
        if sweep not in (None, NO_SWEEPS):
            sweep_pattern(sweep)
        root = Path(root)
        if not root.is_dir():
            raise ValueError(f"root must be a folder of videos, got {root}")
        check_label(root, label)
        with listen(progress or None):
            earlier = Manifest.of(root) if manifest else Manifest(root, None)
            entries, skipped = read_videos(root, earlier, min_frames=min_frames, damaged=damaged)
        unusable = [item.path for item in skipped]
        sweeps = find_sweeps(root, entries, sweep, unusable)
        named = [(e.id, e.paths) for e in entries] + [(s.id, (s.path,)) for s in sweeps]
        ids = [name for name, _ in named]
        known = functools.cache(lambda: Names(root, named, unusable))  # for tables only
        about: dict[int, dict[str, Any]] = defaultdict(dict)
        if (table := root / LABELS).is_file():
            about |= read_labels(table, known(), ids, missing, label)
        if (table := root / FRAME_LABELS).is_file():
            lengths = [entry.num_frames for entry in entries]
            lengths += [sum(lengths[i] for i in s.clips) for s in sweeps]
            read = read_frame_labels(table, known(), ids, lengths, missing, label)
            for i, labels in read.items():
                about[i]["frame_labels"] = labels
        warn_of_tables_elsewhere(root, [entry.path for entry in entries])
        clips = (replace(e, **about[i]) if i in about else e for i, e in enumerate(entries))
        catalog = cls(root, tuple(clips), tuple(skipped), label)
        if patient_pattern is None:
            catalog = catalog._with_patients_of_files()
        else:
            catalog = catalog.with_patients(patient_pattern)
        of_sweeps = {i: about[len(entries) + i] for i in range(len(sweeps))}
        return catalog._joined(sweeps, of_sweeps)

    def with_sweeps(self, sweep: str | Path) -> VideoCatalog:
        r"""Returns the catalogue with one video in place of the clips of one examination.

        A sweep is named by what the pattern finds in all of its clips, or else by the groups. It
        has the frames of its clips one after the other; the label of each clip, or the labels of
        its frames if ``frame_labels.csv`` has any, are labels of these frames, and the sweep has
        its clips' label if they agree. Clips that are in no sweep stay videos of their own.

        Args:
            sweep: regular expression with groups, ``( )``, around everything in which the clips of
                one examination agree: ``patient_(\d+)_([LR])``. It is searched for in the path
                relative to the root, with slashes, with and without the file's extension. Clips are
                in the natural order of their paths. A group ``(?P<part>...)`` is what distinguishes
                clips, and names them. Clips of different folders are apart, unless the folders are
                within what is found. ``"none"`` leaves every clip a video. Or the path of a table
                (sweep_id, part, optionally order): ``part`` is a video_id as in ``labels.csv``, and
                the clips are in ascending ``order``, or in that of the rows.

        Raises:
            ValueError: it is no such expression, or puts no two clips together; the table is
                damaged, lacks a column, names unknown clips, or a clip or a place in a sweep twice;
                the patients or folds of a sweep's clips contradict each other.

        Warns:
            UserWarning: a clip of the table cannot be read, or all clips are one sweep.
        """
        if isinstance(sweep, str) and sweep.lower().endswith(".csv"):
            sweep = Path(sweep)
        clips = replace(self, entries=self.clips)
        unusable = [item.path for item in self.skipped]
        return clips._joined(find_sweeps(self.root, clips.entries, sweep, unusable))

    def _joined(
        self, sweeps: Sequence[Sweep], about: Mapping[int, Mapping[str, Any]] | None = None
    ) -> VideoCatalog:
        entries = joined(self.entries, sweeps, about)
        check_folds([entry.group for entry in entries], [entry.fold for entry in entries])
        return replace(self, entries=entries)

    def with_patients(self, pattern: str) -> VideoCatalog:
        """Returns the catalogue with the patients that a pattern finds in the videos' paths.

        Args:
            pattern: regular expression with one group, ``( )``, around what names the patient. It
                is searched for in the path relative to the root, with slashes and the file's
                extension: ``^([^/]+)/`` takes the first folder. Patients that ``labels.csv`` names
                stay, and others of the same pattern's patient become theirs.

        Raises:
            ValueError: it is no such expression, finds no patient at all, or puts videos of two
                folds together.

        Warns:
            UserWarning: it finds none in some videos, or contradicts ``labels.csv``.
        """
        compiled = _compiled(pattern)
        found = [patient_of(self.root, entry, compiled) for entry in self.entries]
        if not any(found):
            raise ValueError(
                f"patient_pattern must find the patient in a path such as "
                f"{self._relative_paths()[0]!r}, got {pattern!r}, which finds none"
            )
        tabled = [entry.patient_known and not entry.by_file for entry in self.entries]
        named = [e.group if known else "" for e, known in zip(self.entries, tabled, strict=True)]
        patients, contradictions = merge(named, found)
        if contradictions:
            warnings.warn(
                f"patients: {'; '.join(contradictions[:5])}: labels.csv is taken", stacklevel=2
            )
        if unknown := [e.id for e, p in zip(self.entries, patients, strict=True) if not p]:
            warnings.warn(
                f"patients: {len(unknown)} of {len(self)} videos have none by the pattern or "
                f"labels.csv: {some(unknown)}",
                stacklevel=2,
            )
        entries = tuple(
            with_patient(entry, patient)
            for entry, patient in zip(self.entries, patients, strict=True)
        )
        return replace(self, entries=entries)._with_patients_of_files()

    def _with_patients_of_files(self) -> VideoCatalog:
        entries, told = with_patients_of_files(self.entries)
        for sentence in told:
            warnings.warn(f"patients: {sentence}", stacklevel=3)
        check_folds([entry.group for entry in entries], [entry.fold for entry in entries])
        return replace(self, entries=entries)

    def suggested_patterns(self) -> list[Suggestion]:
        """Returns patterns for :meth:`with_patients` that the videos' names suggest, if any."""
        return suggest(self._relative_paths(), [entry.label for entry in self.entries])

    def _relative_paths(self) -> list[str]:
        return [relative_name(self.root, entry.path) for entry in self.entries]

    def with_folds(self, n: int = 5, seed: int = 0) -> VideoCatalog:
        """Returns the catalogue with a fold in [0, n) for every video, labels balanced.

        All videos of a patient are in one fold. Given folds keep their numbers; if they are all
        the same, they are ignored with a warning (see ``folds.assign_folds``).

        Raises:
            ValueError: a group's videos have different folds, or there is only one group.

        Warns:
            UserWarning: the given folds are ignored, or there are fewer groups than folds, and so
                as many folds as groups.
        """
        groups = len({entry.group for entry in self.entries})
        if 2 <= groups < n and all(entry.fold is None for entry in self.entries):
            warnings.warn(f"folds: {n} are asked for, {groups} groups give {groups}", stacklevel=2)
            n = groups
        folds = assign_folds(
            [entry.group for entry in self.entries],
            [entry.label for entry in self.entries],
            [entry.fold for entry in self.entries],
            n=n,
            seed=seed,
        )
        entries = (replace(e, fold=fold) for e, fold in zip(self.entries, folds, strict=True))
        return replace(self, entries=tuple(entries))

    def hold_out(
        self, folds: Sequence[int] | None = None, seed: int = 0
    ) -> tuple[VideoCatalog, VideoCatalog]:
        """Returns (train, held out) as training splits them, with folds for all videos.

        Args:
            folds: folds to hold out; empty for none; None for the smallest, or none if all videos
                are of one patient or source.
            seed: decides the folds where none are given.

        Raises:
            ValueError: see :meth:`with_folds` and :meth:`split`; nothing can be held out.

        Warns:
            UserWarning: nothing is held out, or see :meth:`with_folds`.
        """
        groups = len({entry.group for entry in self.entries})
        if folds is None and groups < 2:
            warnings.warn("one patient or source only: nothing is held out", stacklevel=3)
            folds = ()
        if folds is not None and not len(folds):
            return self, replace(self, entries=(), skipped=())
        if groups < 2:
            raise ValueError(
                "held_out must be () for a folder with one patient or source (--held-out without "
                f"a number), got {folds}"
            )
        catalog = self.with_folds(min(5, groups), seed)
        known = sorted({entry.fold for entry in catalog if entry.fold is not None})
        if folds is None:
            folds = known[:1]
        if not set(folds) < set(known):
            raise ValueError(
                f"held_out must be some of the folds {known}, but not all, got {list(folds)}"
            )
        return catalog.split(folds)

    def split(self, held_out_folds: Iterable[int]) -> tuple[VideoCatalog, VideoCatalog]:
        """Returns (train, held out) by fold; the skipped files stay with the training part.

        Raises:
            ValueError: a video has no fold (call ``with_folds``), or one part would be empty.
        """
        held_out = set(held_out_folds)
        missing = [entry.id for entry in self.entries if entry.fold is None]
        if missing:
            raise ValueError(f"folds must be given: {some(missing)} have none; call with_folds")
        parts = (
            tuple(e for e in self.entries if e.fold not in held_out),
            tuple(e for e in self.entries if e.fold in held_out),
        )
        if not all(parts):
            folds = sorted({e.fold for e in self.entries if e.fold is not None})
            raise ValueError(
                f"held_out_folds must be some, not all, of {folds}, got {sorted(held_out)}"
            )
        return replace(self, entries=parts[0]), replace(self, entries=parts[1], skipped=())


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return one_group(pattern)
    except ValueError as error:
        raise ValueError(f"patient_pattern {error}") from error

"""Which patient a video is of, where the names of files and folders tell."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.identity import relative_name, same_name
from usucl.data.catalog.sweeps import without_sweeps
from usucl.data.catalog.tables.labels import some

Patients: TypeAlias = Literal["known", "partly", "unknown"]
"""Whether the patients of videos are known; "partly" means those of some videos are."""

MAY_BE_SHARED = "a patient may be on both sides"
UNIT: Mapping[Patients, str] = {"known": "patient", "partly": "group", "unknown": "video"}
"""What is split and resampled: a group is a patient, or a video whose patient is unknown."""

MOST_SUGGESTED = 3
MOST_PER_PATIENT = 20  # videos on average: more are a hospital or a class
# Folders and prefixes that say what videos are for or what they show, not whose they are.
_NO_PATIENT = re.compile(
    r"(?i)(train|test|val)\w*|fold\W?\d+|(frame|video|clip|image|data|dicom|dataset)s?|convex|"
    r"(site|hospital|cent(er|re)|batch|group|class)\W?\w?\d*|(19|20)\d\d|covid\w*|cov|pneu\w*|"
    r"reg(ular)?|normal|healthy|benign|malignant|vir(al)?|linear"
)
_NUMBERED = re.compile(
    r"(?i)(?:^|(?<=[/ _-]))(patient|pat|pt|p|subject|subj|sub|case|id)([ _-]?)\d+(?![^/ _.-])"
)
# What files say of everybody: anonymised archives are not of one patient.
_NOBODY = re.compile(
    r"(?i)anon(ym\w*)?|(de-?|pseudo)identified|removed|redacted|deleted|withheld|hidden|private|"
    r"(no|not|un)[ _-]?(name|id|known|available|specified|identified)|unk|none|nil|null|n/?a|nan|"
    r"(patient|subject|pat|pid)?[ _-]?(id|name)?|test|default|dummy|0+|x+"
)
_BY_FOLDER = (r"^([^/]+)/", r"^([^/]+/[^/]+)/")
_BY_NAME = (
    r"([^/]+)[ _-][^/ _-]+$",
    r"(?:^|/)([^/ _-]+)[ _-][^/]+$",
    r"(?:^|/)([^/ _-]+[ _-][^/ _-]+)[ _-][^/]+$",
)


def knowledge(known: Sequence[bool]) -> Patients:
    """Returns whether the patients are known, from whether that of each video is."""
    return "known" if all(known) else "partly" if any(known) else "unknown"


def split_words(known: Sequence[bool]) -> str:
    """Returns what a split of these videos leaves open, in words; empty if nothing."""
    if all(known):
        return ""
    if not any(known):
        return f"patients unknown: split by video; {MAY_BE_SHARED}"
    unknown = len(known) - sum(known)
    return (
        f"patients unknown for {unknown} of {len(known)} videos: these are split by video; "
        f"{MAY_BE_SHARED}"
    )


def find_patient(pattern: re.Pattern[str], path: str) -> str:
    """Returns the patient in a path relative to the data folder; empty where there is none."""
    found = pattern.search(path)
    return same_name(found[1] or "").strip() if found else ""


def patient_of(root: Path, entry: VideoEntry, pattern: re.Pattern[str]) -> str:
    """Returns the patient that a pattern finds in the path of a video, or of a sweep's clips."""
    clips = without_sweeps([entry])
    found = {clip.id: find_patient(pattern, relative_name(root, clip.path)) for clip in clips}
    patients = sorted(set(found.values()) - {""})
    if len(patients) > 1:
        raise ValueError(
            "patient_pattern must find one patient in all clips of a sweep, got "
            f"{' and '.join(map(repr, patients[:3]))} in those of {entry.id!r}: {some(list(found))}"
        )
    return patients[0] if patients else ""


def with_patient(entry: VideoEntry, patient: str) -> VideoEntry:
    """Returns a video, with its parts, as one of a patient; empty if the patient is unknown."""
    parts = tuple(p._replace(video=with_patient(p.video, patient)) for p in entry.parts)
    known = bool(patient)
    return replace(entry, group=patient or entry.id, patient_known=known, parts=parts)


def patient_in_file(patient: str | None) -> str:
    """Returns the patient that a file names; empty where it says so of everybody."""
    name = same_name(patient or "").strip()
    return "" if _NOBODY.fullmatch(name.strip(" ^_-.*?#/()[]<>")) else name


def with_patients_of_files(
    entries: Sequence[VideoEntry],
) -> tuple[tuple[VideoEntry, ...], list[str]]:
    """Returns the videos with the patients that their files name, as far as nothing else does.

    Returns:
        The videos, and sentences about what is doubtful.
    """
    found = [entry.file_patient for entry in entries]
    named = [entry.group if entry.patient_known else "" for entry in entries]
    if not any(found):
        return tuple(entries), []
    patients, told = merge(named, found, by="the DICOM files", table="the table or pattern")
    told = [f"{'; '.join(told[:5])}: the files are not followed"] if told else []
    who = Counter(filter(None, found))
    if len(who) == 1 and who.total() > MOST_PER_PATIENT and len({*filter(None, patients)}) == 1:
        told.append(
            f"all {who.total()} DICOM files are of {next(iter(who))!r}: if that stands for many "
            "patients, name them in labels.csv or by a pattern"
        )
    filled = (
        entry if table or not patient else replace(with_patient(entry, patient), by_file=True)
        for entry, table, patient in zip(entries, named, patients, strict=True)
    )
    return tuple(filled), told


def merge(
    named: Sequence[str],
    found: Sequence[str],
    by: str = "the pattern",
    table: str = "labels.csv",
) -> tuple[list[str], list[str]]:
    """Returns the patient of each video from a table and from a pattern, and what contradicts.

    The table wins where it names a patient. Where it names none, the video is of the patient that
    the table gives to others of the same pattern's patient, or else of that one.

    Args:
        named: patient by the table, empty where it names none.
        found: patient by the pattern, empty where it finds none.
        by, table: what the contradictions call the pattern and the table.

    Returns:
        The patient of each video, empty where unknown, and one sentence per contradiction.
    """
    by_pattern: dict[str, dict[str, None]] = defaultdict(dict)
    by_table: dict[str, dict[str, None]] = defaultdict(dict)
    for given, pattern in zip(named, found, strict=True):
        if given and pattern:
            by_pattern[pattern][given] = None
            by_table[given][pattern] = None
    told = [
        f"{name!r} is one patient by {by}, but {_some(others)} by {table}"
        for name, others in by_pattern.items()
        if len(others) > 1
    ]
    told += [
        f"{name!r} is one patient by {table}, but {_some(others)} by {by}"
        for name, others in by_table.items()
        if len(others) > 1
    ]

    def patient(given: str, pattern: str) -> str:
        if given or not pattern:
            return given
        others = list(by_pattern.get(pattern, ()))
        if len(others) > 1:
            return ""  # one of several patients of the table, and nobody knows which
        return others[0] if others else pattern

    return [patient(*pair) for pair in zip(named, found, strict=True)], told


class Suggestion(NamedTuple):
    """A pattern that may find the patients, and how many videos each would have."""

    pattern: str
    videos: Counter[str]
    unknown: int


def suggest(paths: Sequence[str], labels: Sequence[str | None]) -> list[Suggestion]:
    """Returns patterns over the names of folders and files that may find the patients.

    A pattern is worth a suggestion if it puts some videos together and keeps others apart, and if
    what it finds are not the names of classes, parts or hospitals.

    Args:
        paths: path of each video, relative to the data folder.
        labels: class of each video, None where unknown.
    """
    found: list[Suggestion] = []
    partitions: list[list[str]] = []
    for pattern in _candidates(paths):
        if pattern in _BY_FOLDER and any(s.pattern in _BY_FOLDER for s in found):
            continue  # the folders within a patient's are studies
        names = [find_patient(re.compile(pattern), path) for path in paths]
        videos = Counter(filter(None, names))
        if names not in partitions and _is_plausible(names, videos, labels):
            partitions.append(names)
            found.append(Suggestion(pattern, videos, len(names) - videos.total()))
    found.sort(key=lambda s: s.unknown)
    return found[:MOST_SUGGESTED]


def _candidates(paths: Sequence[str]) -> Iterator[str]:
    words = Counter(found.groups() for path in paths for found in _NUMBERED.finditer(path))
    for (word, separator), _ in words.most_common(3):
        start = "" if len(word) > 3 else "(?:^|[/ _-])"
        yield rf"{start}({word}{separator}\d+)"
    yield from _BY_FOLDER
    yield from _BY_NAME


def _is_plausible(names: Sequence[str], videos: Counter[str], labels: Sequence[str | None]) -> bool:
    if len(videos) < 2 or len(videos) == videos.total():
        return False
    if videos.total() < len(names) / 2 or videos.total() > MOST_PER_PATIENT * len(videos):
        return False
    last = [name.rpartition("/")[2] for name in videos]
    if sum(bool(_NO_PATIENT.fullmatch(name)) for name in last) > len(last) / 2:
        return False
    classes = {label for label in labels if label}
    return not classes or len(videos) > len(classes)


def _some(names: Mapping[str, None]) -> str:
    shown = [repr(name) for name in list(names)[:5]]
    return " and ".join(shown) if len(names) <= 5 else f"{', '.join(shown)} and others"

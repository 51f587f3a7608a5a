"""Words of the report that depend on what is known: patients, made-up data, numbers of things."""

from __future__ import annotations

from dataclasses import dataclass

from usucl.data.catalog.patients import MAY_BE_SHARED, UNIT, Patients


@dataclass(frozen=True)
class Subjects:
    """How the report speaks of the patients.

    Attributes:
        patients: whether the patients of the videos are known.
        synthetic: whether the videos are made up.
    """

    patients: Patients = "known"
    synthetic: bool = False

    @property
    def noun(self) -> str:
        """What is split and resampled: a patient, a video, or a group, which is either."""
        unit = UNIT[self.patients]
        return f"made-up {unit}" if self.synthetic and unit == "patient" else unit

    def videos(self, videos: int, patients: int) -> str:
        """Returns a number of videos and, where it is known, that of their patients."""
        text = count(videos, "synthetic video" if self.synthetic else "video")
        if self.patients == "unknown":
            return text
        of = f"{text} of {count(patients, self.noun)}"
        return f"{of} (patients, or videos of unknown ones)" if self.patients == "partly" else of

    @property
    def other_videos(self) -> str:
        """The videos that a frame is compared with besides its own."""
        return "other videos" if self.patients == "unknown" else f"videos of other {self.noun}s"

    @property
    def split(self) -> str:
        """A note for every figure and table, on patients that are not known; else empty."""
        if self.patients == "unknown":
            return f"Patients unknown: split by video; {MAY_BE_SHARED}."
        if self.patients == "partly":
            return f"Some patients unknown: split by video there; {MAY_BE_SHARED}."
        return ""

    def told(self, note: str) -> str:
        """Returns why there is no interval, in the words for these patients."""
        note = note.removesuffix(": no interval")
        return note.replace("patient", self.noun) if self.noun != "patient" else note

    @property
    def cautions(self) -> list[str]:
        """What a reader has to know about the data before any figure."""
        texts = []
        if self.synthetic:
            texts.append(
                "The data are synthetic: the videos are computed, and their patients are made up. "
                "The figures say that the software runs, nothing about ultrasound."
            )
        if self.patients == "unknown":
            texts.append(
                f"{self.split} So held-out figures may be too high, and intervals over "
                "videos too narrow. Name the patients in labels.csv, or by --patient-pattern, to "
                "mend both."
            )
        elif self.patients == "partly":
            texts.append(
                f"{self.split} So held-out figures may be too high, and intervals too narrow: each "
                "video of an unknown patient is a group of its own."
            )
        return texts


def count(number: int | None, noun: str) -> str:
    """Returns a number with its noun, in the plural if necessary."""
    text = f"{number:,}" if isinstance(number, int) else str(number)
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def listed(words: list[str]) -> str:
    """Returns ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def number(value: float | None, form: str = ".2f") -> str:
    """Returns a number with a minus sign, or a dash for none."""
    if value is None:
        return "–"  # noqa: RUF001
    text = format(value, form)
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # zero has no sign
    return text.replace("-", "−")  # noqa: RUF001

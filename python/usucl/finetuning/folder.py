"""The folder of a fine-tuning: the names of its files, and what becomes of an earlier one."""

from __future__ import annotations

from pathlib import Path

from usucl._earlier import Earlier
from usucl._files import is_empty, read_json, remove, remove_left_over, write_atomically
from usucl._terminal import say
from usucl.run_folder import RunFolder

MARK = "# usucl fine-tuning: overwrite replaces the results beside this file\n"
"""First line of the config, which identifies a folder as a fine-tuning."""

FOLD = "fold.json"
"""Name of the record of a finished classifier, beside it."""


class FinetuneFolder:
    """Paths of everything that fine-tuning writes; any of it may be missing.

    Attributes:
        path: the folder itself.
        config: the options, YAML.
        videos: table of the labelled videos with class, patient and fold.
        folds: folder with a folder per fold, see :meth:`fold`.
        final: folder of the classifier that was trained on all folds.
        predictions: table of the probabilities of every tested video and frame.
        learning: table of the losses per fold and epoch.
        results: all measured figures, JSON.
        report, figures: HTML page, and the folder of its pictures.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        beside = RunFolder(path)
        self.config, self.report, self.figures = beside.config, beside.report, beside.figures
        self.videos = path / "videos.csv"
        self.folds = path / "folds"
        self.final = path / "final"
        self.predictions = path / "predictions.csv"
        self.learning = path / "learning.csv"
        self.results = path / "finetune.json"

    def __repr__(self) -> str:
        there = ", ".join(p.name for p in (self.folds, self.final, self.results) if p.exists())
        return f"FinetuneFolder({str(self.path)!r}, {there or 'without results'})"

    def fold(self, number: int) -> Path:
        """Returns the folder of a fold, with its classifier and its predictions."""
        return self.folds / str(number)

    @property
    def is_finetuning(self) -> bool:
        """Whether a fine-tuning has marked the folder."""
        return self.config.is_file() and self.config.read_bytes().startswith(MARK.encode())

    @property
    def is_unfinished(self) -> bool:
        """Whether this is a fine-tuning that ended before its first fold did."""
        finished = any(self.folds.glob(f"*/{FOLD}"))
        return self.is_finetuning and not self._earlier.exists and not finished

    def check_free(self, *, overwrite: bool) -> None:
        """Checks that a new fine-tuning may be written here.

        Raises:
            FileExistsError: it is a file, or not empty; with ``overwrite``, it may be a
                fine-tuning; one without a finished fold may be there anyway.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"out must be a folder, got the file {self.path}")
        if not self.path.exists() or is_empty(self.path):
            return
        if not self.is_finetuning:
            raise FileExistsError(
                f"{self.path} is not empty and holds no fine-tuning: choose another folder"
            )
        if not overwrite and not self.is_unfinished:
            raise FileExistsError(
                f"{self.path} holds a fine-tuning: give overwrite=True to replace it, or "
                "resume=True to continue it"
            )

    def is_there(self, *, may_start: bool) -> bool:
        """Returns whether there is a fine-tuning to go on with; where nothing is, one starts.

        What a process that was killed has left half-done is undone first.

        Args:
            may_start: whether it is known what a new one would be of.

        Raises:
            FileNotFoundError: there is something else, or nothing and none may start.
        """
        if self.is_finetuning:
            self.recover()
            return True
        is_free = not self.path.exists() or (self.path.is_dir() and is_empty(self.path))
        if not (is_free and may_start):
            raise FileNotFoundError(f"out must hold a fine-tuning to resume, got {self.path}")
        say(f"{self.path} holds no fine-tuning yet: a new one starts", stderr=True)
        return False

    def check_first_weights(self, digest: str) -> None:
        """Raises ValueError if a finished classifier began with weights of another digest."""
        for path in (*self.folds.glob(f"*/{FOLD}"), self.final / FOLD):
            if path.is_file() and read_json(path).get("first_weights", digest) != digest:
                raise ValueError(
                    f"run must hold the encoder with which {path.parent} began, got another, or it "
                    "was trained on since; start again with overwrite=True"
                )

    def write_config(self, text: str) -> None:
        """Writes the options, which mark the folder as a fine-tuning."""
        write_atomically(self.config, (MARK + text).encode())

    def set_aside(self) -> None:
        """Makes the folder, and moves an earlier fine-tuning into a hidden folder within it.

        It stays there until :meth:`forget_earlier`, or :meth:`recover` brings it back.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.recover()
        if self.is_unfinished:
            for entry in self._entries:
                remove(entry)
        elif self.is_finetuning:
            self._earlier.set_aside(self._entries)

    def recover(self) -> None:
        """Undoes what a process that was killed has left half-done.

        One that was set aside comes back, unless the new one has finished a fold; half-written
        files are removed.
        """
        for folder in (self.path, self._earlier.path, self.final, *self.folds.glob("*")):
            remove_left_over(folder)
        is_replaced = any(self.folds.glob(f"*/{FOLD}"))
        self._earlier.recover(self._entries, is_replaced=is_replaced)

    def forget_earlier(self) -> None:
        """Removes the fine-tuning that was set aside, if there is one."""
        self._earlier.forget()

    @property
    def _earlier(self) -> Earlier:
        return Earlier(self.config, ".before", ".removed")

    @property
    def _entries(self) -> tuple[Path, ...]:
        """Everything that a new fine-tuning replaces, besides the config."""
        results = self.predictions, self.learning, self.results, self.report, self.figures
        return (self.videos, self.folds, self.final, *results)

"""The folder of a comparison."""

from __future__ import annotations

from pathlib import Path

from usucl._files import is_empty, write_atomically
from usucl._tables import write_table
from usucl.comparison.design.subject import Subject
from usucl.comparison.measurement.predictions import RESULT
from usucl.comparison.runs import Run
from usucl.run_folder import RunFolder

MARK = "# usucl comparison: the same command goes on with it\n"
"""First line of the config, which identifies the folder."""
VIDEOS = ("video_id", "patient", "fold", "frames")


class ComparisonFolder:
    """Paths of everything that a comparison writes; any of it may be missing.

    Attributes:
        path: the folder itself.
        config: the options, YAML.
        videos: table of the videos, their patients and folds.
        runs: folder with one folder per arm, and in it one per seed and fold.
        figures, differences: the figures of every arm, and all differences, CSV.
        conclusion: both, and the options, JSON.
        report: HTML page.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.config = path / "comparison.yaml"
        self.videos = path / "videos.csv"
        self.runs = path / "runs"
        self.figures = path / "figures.csv"
        self.differences = path / "differences.csv"
        self.conclusion = path / "comparison.json"
        self.report = RunFolder(path).report

    @property
    def is_comparison(self) -> bool:
        """Whether a comparison has been started here."""
        try:
            return self.config.read_text(encoding="utf-8").startswith(MARK)
        except (OSError, UnicodeDecodeError):
            return False

    def check_free(self) -> None:
        """Raises FileExistsError if the folder holds something else than a comparison."""
        is_free = not self.path.exists() or (self.path.is_dir() and is_empty(self.path))
        if not (is_free or self.is_comparison):
            raise FileExistsError(
                f"out must be a new folder or that of a comparison, got {self.path}"
            )

    def run(self, run: Run) -> Path:
        """Returns the folder of one run."""
        return self.runs / run.arm / f"seed{run.seed}-fold{run.fold}"

    def is_done(self, run: Run) -> bool:
        """Returns whether a run is finished."""
        return (self.run(run) / RESULT).is_file()

    def write(self, config: str, subject: Subject) -> None:
        """Writes what the runs have in common."""
        self.path.mkdir(parents=True, exist_ok=True)
        rows = [(e.id, e.group, e.fold, e.num_frames) for e in subject.catalog]
        # The config first, which marks the folder: the same call goes on if this one is killed.
        write_atomically(self.config, (MARK + config).encode())
        write_table(self.videos, VIDEOS, rows)

"""The folder of a run: the names of its files, and which videos were trained on."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from usucl._earlier import Earlier
from usucl._files import (
    DamagedFileError,
    is_empty,
    read_json,
    remove,
    remove_left_over,
    write_atomically,
)
from usucl._tables import read_table, write_table
from usucl.data import VideoCatalog, VideoEntry
from usucl.data.catalog.identity import known_as, same_name
from usucl.data.catalog.patients import Patients, knowledge
from usucl.data.catalog.rescan import scan_like
from usucl.data.catalog.tables.split_table import (
    HELD_OUT,
    PATIENT_KNOWN,
    SPLIT,
    TRAIN,
    names_of,
    split_table,
)

MARK = "# usucl run: overwrite replaces the results beside this file\n"
"""First line of the config, which identifies a folder as a run."""

_ID = "# id: "  # of the run, in the line after the mark


class RunFolder:
    """Paths of everything that training, evaluation and report write; any of it may be missing.

    A folder with only an encoder, such as :attr:`initial`, has the same names for its files.

    Attributes:
        path: the folder itself.
        config: the options of the run, YAML.
        facts: what is known of the run besides: times, command, versions, machine, JSON.
        split: table of all videos and the part, train or held_out, that each belongs to.
        skipped, metrics: tables of the files that could not be read, and of training's metrics.
        warnings: table of what was wrong in training, and the step when it was first seen.
        hardness: table of histograms of the similarities, of positives and selected negatives.
        probe: table of what the probes of the encoder measured in training.
        guard: table of the pairs of frames that the pixel guard refuses, per video.
        negatives: folder with sheets of mined negatives, see :meth:`negatives_sheet`.
        loggers: folder of the other loggers, with the run's identities there.
        encoder_config, encoder_weights: the encoder after the last finished epoch.
        backbone_weights, exported: the encoder in torchvision's names; folder of other formats.
        initial: folder with the encoder before training.
        bank: folder with the negative bank after the last finished epoch.
        checkpoints: folder of :attr:`checkpoint`, from which a run is resumed.
        best: folder with the encoder that a watched metric found best, see :attr:`best_facts`.
        failed_batch: the batch whose loss was not finite, which has ended the training.
        tensorboard: folder with the metrics for TensorBoard.
        evaluation: all measured figures, JSON.
        evaluations: folder of evaluations on other data, see :meth:`evaluation_of`.
        embeddings, embedded: folders with the embeddings of :func:`usucl.evaluate` and ``embed``.
        report: HTML page.
        figures: folder with the pictures of the report, such as :attr:`results_figure`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.config = path / "config.yaml"
        self.facts = path / "run.json"
        self.split = path / "split.csv"
        self.skipped = path / "skipped.csv"
        self.metrics = path / "metrics.csv"
        self.warnings = path / "warnings.csv"
        self.hardness = path / "hardness.csv"
        self.probe = path / "probe.csv"
        self.guard = path / "guard.csv"
        self.negatives = path / "negatives"
        self.loggers = path / "loggers"
        self.encoder_config = path / "encoder.json"
        self.encoder_weights = path / "encoder.safetensors"
        self.backbone_weights = path / "backbone.safetensors"
        self.exported = path / "exported"
        self.initial = path / "initial"
        self.bank = path / "bank"
        self.checkpoints = path / "checkpoints"
        self.checkpoint = self.checkpoints / "last.ckpt"
        self.best = path / "best"
        self.best_facts = self.best / "best.json"
        self.failed_batch = path / "failed_batch.safetensors"
        self.tensorboard = path / "tensorboard"
        self.evaluation = path / "evaluation.json"
        self.evaluations = path / "evaluations"
        self.embeddings = path / "embeddings"
        self.embedded = path / "embedded"
        self.report = path / "report.html"
        self.figures = path / "figures"
        self.results_figure = self.figures / "results.png"
        self.efficiency_figure = self.figures / "few-labels.png"
        self.curves_figure = self.figures / "curves.png"
        self.mining_figure = self.figures / "mining.png"
        self.map_figure = self.figures / "map.png"
        self.contact_sheet = self.figures / "contact.png"

    def __repr__(self) -> str:
        files = self.encoder_config, self.checkpoints, self.bank, self.evaluation, self.report
        there = ", ".join(file.stem for file in files if file.exists())
        return f"RunFolder({str(self.path)!r}, {there or 'without results'})"

    @property
    def is_run(self) -> bool:
        """Whether training has marked the folder as a run."""
        return self.config.is_file() and self.config.read_bytes().startswith(MARK.encode())

    @property
    def id(self) -> str | None:
        """The identity of the run, which its checkpoints have too; None for earlier versions."""
        if not self.is_run:
            return None
        line = self.config.read_text(encoding="utf-8").splitlines()[1:2]
        return line[0].removeprefix(_ID) if line and line[0].startswith(_ID) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether this is a run that ended before its first checkpoint, so that it begins again.

        A run whose checkpoint was lost is none of these if it holds a trained encoder or results.
        """
        results = (self.checkpoint, self.evaluation, self.embeddings, self.embedded, self.report)
        if not self.is_run or self._earlier.exists:
            return False
        if any(path.exists() for path in results):
            return False
        with contextlib.suppress(FileNotFoundError, DamagedFileError):
            if read_json(self.facts).get("steps_done") == 0:  # of checkpoints
                return True  # even with the files of its first epoch, which are written before
        pair = self.encoder_weights, RunFolder(self.initial).encoder_weights
        alike = all(file.is_file() for file in pair) and filecmp.cmp(*pair, shallow=False)
        return not self.bank.exists() and (alike or not pair[0].is_file())

    def check_free(self, *, overwrite: bool) -> None:
        """Checks that a new run may be written here.

        Raises:
            FileExistsError: it is a file, or not empty (with ``overwrite``, it may be a run; a run
                that ended before its first checkpoint may be there anyway).
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"out must be a folder, got the file {self.path}")
        if not self.path.exists() or is_empty(self.path):
            return
        if not self.is_run:
            raise FileExistsError(
                f"{self.path} is not empty and holds no run: choose another folder"
            )
        if not overwrite and not self.is_unfinished:
            raise FileExistsError(
                f"{self.path} holds a run: give overwrite=True to replace it, or resume=True to "
                "continue it"
            )

    def set_aside(self) -> None:
        """Makes the folder, and moves an earlier run into a hidden folder within it.

        It stays there until :meth:`forget_earlier`, or :meth:`recover` brings it back. Other files
        stay where they are, and the config too, so that the folder is a run at any moment. Of a
        run in which nothing was trained nothing stays.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.recover()
        if self.is_unfinished:
            for entry in self._results:
                remove(entry)
        elif self.is_run:
            self._earlier.set_aside(self._results)

    def recover(self) -> bool:
        """Undoes what a process that was killed has left half-done.

        A run that was set aside comes back, unless the new one has a checkpoint, and half-written
        files are removed.

        Returns:
            Whether a run came back.
        """
        written = self.checkpoints, self.initial, self.bank, self.best, self.negatives
        for folder in (self.path, *written, self._earlier.path):
            remove_left_over(folder)
        return self._earlier.recover(self._results, is_replaced=self.checkpoint.is_file())

    def discard(self) -> None:
        """Removes a run that has not begun to train, and the folder if nothing else is in it."""
        for entry in (*self._results, self.config):
            remove(entry)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def forget_earlier(self) -> None:
        """Removes the run that was set aside, if there is one."""
        self._earlier.forget()

    @property
    def has_earlier(self) -> bool:
        """Whether a run is set aside, which comes back unless this one gets a checkpoint."""
        return self._earlier.is_whole

    @property
    def recovered(self) -> RunFolder:
        """The run that is here after :meth:`recover`, wherever it lies now; nothing is moved."""
        if self.has_earlier and not self.checkpoint.is_file():
            return RunFolder(self._earlier.path)
        return self

    @property
    def _earlier(self) -> Earlier:
        return Earlier(self.config, ".earlier", ".forgotten")

    @property
    def _results(self) -> tuple[Path, ...]:
        """Everything that a new run replaces: all but the config, which is written over."""
        others = ("path", "config")
        own = (path for name, path in vars(self).items() if name not in others)
        return tuple(path for path in own if path.parent == self.path)

    def negatives_sheet(self, epoch: int) -> Path:
        """Returns the path of the sheet of negatives that were mined in ``epoch``, from 1."""
        return (self.negatives / f"epoch_{epoch:04}").with_suffix(".png")

    @property
    def last_negatives(self) -> Path | None:
        """The latest sheet of mined negatives, if there is one."""
        sheets = self.negatives.glob("epoch_[0-9]*.png")
        return max(sheets, key=lambda sheet: (len(sheet.name), sheet.name), default=None)

    def scan(
        self,
        data: str | Path,
        *,
        patient_pattern: str | None = None,
        label: str | None = None,
        sweep: str | None = None,
        min_frames: int = 2,
    ) -> VideoCatalog:
        """Returns the videos of a folder, read as training did.

        The arguments replace the run's own options, see :func:`scan_like`. Training has no videos
        of one frame; ``min_frames=1`` reads them too.

        Raises:
            ValueError: see :meth:`usucl.data.VideoCatalog.scan`.
        """
        given = {"patient_pattern": patient_pattern, "label": label, "sweep": sweep}
        return scan_like(data, self._options(), min_frames=min_frames, **given)

    def _options(self) -> dict[str, object]:
        """Returns the config by name; empty if there is none or it cannot be read."""
        try:
            options = yaml.safe_load(self.config.read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, yaml.YAMLError, RecursionError):
            return {}
        return options if isinstance(options, dict) else {}

    def holds(self, catalog: VideoCatalog) -> bool:
        """Returns whether these are the videos of the run, perhaps moved or some fewer or more.

        They are if they lie in the folder that the run was trained on or, if that is gone, are
        exactly those of the split: names alone, such as ``001``, say little.
        """
        rows = read_table(self.split, SPLIT)
        data = self._options().get("data")
        if isinstance(data, str) and os.path.isdir(data):
            known = {name for row in rows for name in names_of(row)}
            is_known = any(known_as(entry.paths, known) for entry in catalog)
            return is_known and os.path.realpath(data) == os.path.realpath(catalog.root)
        names = {same_name(row["video_id"]) for row in rows}
        found = [name for entry in catalog for name in known_as(entry.paths, names)]
        return set(found) == names and len(names) in (len(catalog), len(catalog.clips))

    def evaluation_of(self, data: str | Path) -> RunFolder:
        """Returns the folder for the evaluation on other data than the run's own.

        It has the name of the data folder, with a number if that belongs to another folder of the
        same name.
        """
        data = Path(os.path.abspath(data))
        for number in itertools.count(1):
            name = (data.name or "data") + (f"-{number}" if number > 1 else "")
            folder = RunFolder(self.evaluations / name)
            if not folder.evaluation.is_file():
                return folder  # new, or of an evaluation that was interrupted
            try:
                measured = str(read_json(folder.evaluation).get("data"))
            except DamagedFileError:
                continue
            if os.path.realpath(measured) == os.path.realpath(data):
                return folder
        raise AssertionError("the numbers do not end")

    def write_config(self, text: str, id: str | None = None) -> None:
        """Writes the config, which marks the folder as a run, with its identity."""
        write_atomically(self.config, (MARK + (f"{_ID}{id}\n" if id else "") + text).encode())

    def write_split(self, training: VideoCatalog, held_out: VideoCatalog) -> None:
        """Writes which videos are trained on and which are held out."""
        write_table(self.split, *split_table(training, held_out))

    def stored_split(self, catalog: VideoCatalog) -> tuple[VideoCatalog, VideoCatalog]:
        """Returns the videos trained on and held out, as the split has them.

        Labels and patients are those of the catalogue, and may have been corrected since.

        Raises:
            ValueError: the catalogue has other videos than the split; says which.
            DamagedFileError: the split is no such table.
        """
        rows = read_table(self.split, SPLIT)
        parts = {same_name(row["video_id"]): row["part"] for row in rows}
        if set(parts.values()) - {TRAIN, HELD_OUT}:
            raise DamagedFileError(self.split, f"a part is neither {TRAIN} nor {HELD_OUT}")
        ids = [same_name(entry.id) for entry in catalog]
        different_videos(
            self.path,
            missing=[name for name in parts if name not in set(ids)],
            new=[name for name in ids if name not in parts],
        )
        training, held_out = (
            tuple(e for e, name in zip(catalog, ids, strict=True) if parts[name] == part)
            for part in (TRAIN, HELD_OUT)
        )
        return replace(catalog, entries=training), VideoCatalog(catalog.root, held_out)

    def write_skipped(self, catalog: VideoCatalog) -> None:
        """Writes which files could not be read, and why."""
        rows = [(str(path), reason) for path, reason in catalog.skipped]
        write_table(self.skipped, ("path", "reason"), rows)

    def held_out_videos(self, catalog: VideoCatalog) -> tuple[bool, ...]:
        """Returns, for each video, whether pretraining saw neither it nor others of its patient.

        Ids depend on the scanned folder and its other videos, so a video's part is that of the
        longest end of its path that the split lists. Its patient was seen if pretraining had a
        patient of that name, or trained on a video that the current labels give to the patient.
        An encoder that was imported, in a folder without config and split, has seen none of them.

        Raises:
            FileNotFoundError: the folder is that of a run, but has no split.
        """
        of_run = (self.config, self.split, self.initial)
        if self.encoder_config.exists() and not any(path.exists() for path in of_run):
            return (True,) * len(catalog)
        rows = read_table(self.split, SPLIT)
        trained_on = {name for row in rows if row["part"] == TRAIN for name in names_of(row)}
        names = {name for row in rows for name in names_of(row)}
        patients = {same_name(row["group"]) for row in rows if row["part"] == TRAIN}

        def seen(entry: VideoEntry) -> bool:
            trained = not trained_on.isdisjoint(known_as(entry.paths, names))
            return trained or (entry.patient_known and same_name(entry.group) in patients)

        groups = {entry.group for entry in catalog if seen(entry)}
        return tuple(entry.group not in groups for entry in catalog)

    def patients(self, *, only_trained: bool = False) -> Patients:
        """Returns whether the patients of the run's videos, or those trained on, were known."""
        rows = read_table(self.split, SPLIT)
        return knowledge(
            [
                row.get(PATIENT_KNOWN, "yes" if row["group"] != row["video_id"] else "no") == "yes"
                for row in rows
                if row["part"] == TRAIN or not only_trained
            ]
        )


def different_videos(run: Path, **differences: Sequence[str]) -> None:
    """Raises an error if there are differences from the videos of a run, each kind by its name."""
    if any(differences.values()):
        said = [
            f"{len(names)} {kind.replace('_', ' ')}, such as {names[0]}"
            for kind, names in differences.items()
            if names
        ]
        raise ValueError(
            f"data must hold the videos of the run in {run}, got others: {'; '.join(said)}"
        )

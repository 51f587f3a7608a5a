"""``guard.csv``: how many intra-video negatives of each video the pixel guard refuses."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from usucl._files import DamagedFileError
from usucl._tables import read_table, table_line, write_table
from usucl._terminal import say
from usucl.data import FrameBatches

COLUMNS = ("epoch", "video_id", "pairs", "refused")
MOST_NAMES = 3


class GuardTable(Callback):
    """Writes, for every window, the videos of which the guard refuses something.

    ``pairs`` are those of an anchor and another frame inside its window, over all frames of the
    video; ``refused`` are those whose frames are too much alike. Both are facts about the videos,
    so they do not depend on the seed.

    Args:
        table: path of ``guard.csv``.
        batches: the batches with the guard.
    """

    def __init__(self, table: Path, batches: FrameBatches) -> None:
        self.table = table
        self.batches = batches
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of epochs that begin again; makes the table if there is none."""
        goes_on = trainer.fit_loop.restarted_mid_epoch
        rows = read_table(self.table, COLUMNS, growing=True) if self.table.is_file() else []
        try:
            kept = [row for row in rows if int(row["epoch"]) < trainer.current_epoch + goes_on]
        except ValueError as error:
            raise DamagedFileError(self.table, f"an epoch is no number: {error}") from error
        write_table(self.table, COLUMNS, [[row[name] for name in COLUMNS] for row in kept])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the rows of an epoch that has another window than the one before."""
        epoch, batches = trainer.current_epoch, self.batches
        intra = batches.curriculum.intra
        before = batches.window(epoch - 1) if epoch > 0 and intra(epoch - 1) else None
        if not intra(epoch) or batches.window(epoch) == before:
            return
        counts = batches.refused(epoch)
        names = [entry.id for entry in batches.catalog]
        with self.table.open("a", newline="", encoding="utf-8") as file:
            for name, (pairs, refused) in zip(names, counts.tolist(), strict=True):
                if refused:
                    file.write(table_line([epoch, name, pairs, refused]))
        if not self._told:
            self._told = True
            say(_summary(names, counts.tolist()), stderr=True)


def _summary(names: list[str], counts: list[list[int]]) -> str:
    """Returns what the guard refuses, in a line that names the videos that lose most."""
    pairs, refused = (sum(column) for column in zip(*counts, strict=True))
    if not pairs:
        return "The pixel guard refuses nothing: no video has two frames inside the window"
    shares = [(r / p, name) for (p, r), name in zip(counts, names, strict=True) if r]
    most = sorted(shares, key=lambda item: (-item[0], item[1]))[:MOST_NAMES]
    which = (
        f", most in {', '.join(f'{name} ({share:.0%})' for share, name in most)}" if most else ""
    )
    return f"The pixel guard refuses {refused / pairs:.1%} of the intra-video pairs{which}"

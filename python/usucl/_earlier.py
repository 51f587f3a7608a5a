"""An earlier result, which lies hidden in its folder until a new one can take its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from usucl._files import remove, write_atomically


class Earlier:
    """What a folder held before, set aside in a hidden folder within it.

    Other files stay where they are, and the config too, so that the folder is marked at any moment.

    Attributes:
        path: the hidden folder.
    """

    def __init__(self, config: Path, hidden: str, forgotten: str) -> None:
        self.path = config.parent / hidden
        self._config = config
        self._forgotten = config.parent / forgotten

    @property
    def exists(self) -> bool:
        """Whether an earlier result is set aside, or was being so when the process was killed."""
        return self.path.is_dir()

    @property
    def is_whole(self) -> bool:
        """Whether all of an earlier result is set aside."""
        return (self.path / self._config.name).is_file()

    def set_aside(self, entries: Iterable[Path]) -> None:
        """Moves these files and folders away, those that there are."""
        self.path.mkdir()
        for entry in filter(os.path.lexists, entries):
            os.replace(entry, self.path / entry.name)
        # The last, as a mark that everything is there.
        write_atomically(self.path / self._config.name, self._config.read_bytes())

    def recover(self, entries: Iterable[Path], *, is_replaced: bool) -> bool:
        """Brings back what was set aside, or forgets it if the new result has replaced it.

        Args:
            entries: the files and folders of the new result, which are removed.
            is_replaced: whether the new result may be kept.

        Returns:
            Whether an earlier result came back.
        """
        shutil.rmtree(self._forgotten, ignore_errors=True)
        if self.is_whole:
            if is_replaced:
                self.forget()
                return False
            for entry in entries:
                remove(entry)
            os.replace(self.path / self._config.name, self._config)
        if not self.exists:
            return False
        for entry in self.path.iterdir():
            os.replace(entry, self._config.parent / entry.name)
        self.path.rmdir()
        return True

    def forget(self) -> None:
        """Removes what was set aside, if there is something."""
        if self.exists:
            os.replace(self.path, self._forgotten)  # at once, so that no part comes back
            shutil.rmtree(self._forgotten)

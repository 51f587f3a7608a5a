"""Nothing that is loaded runs code: every reader of tables, settings and numbers gets a payload."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.soak.files.readers import READERS

PICTURES = ("video-", "image-", "stack-", "dicom-")
NAMES = [name for name in READERS if not name.startswith(PICTURES)]


class Payload:
    """Runs code in whoever unpickles it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def write_torch(path: Path, ran: Path) -> None:
    torch.save({"state_dict": Payload(ran)}, path)


def write_pickle(path: Path, ran: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(ran)))


def write_yaml(path: Path, ran: Path) -> None:
    path.write_text(f"data: !!python/object/apply:os.mknod ['{ran}']\n")


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_runs_no_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USUCL_CACHE", str(tmp_path / "cache"))  # and put back what a reader sets
    ran = tmp_path / "ran"
    (tmp_path / "files").mkdir()
    path = READERS[name].write(tmp_path / "files")
    for write in (write_torch, write_pickle, write_yaml):
        write(path, ran)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ValueError, OSError):
                READERS[name].read(path)
        assert not ran.exists(), f"{write.__name__} was run"


def test_the_payloads_run_where_they_are_let(tmp_path: Path) -> None:
    write_torch(tmp_path / "a", tmp_path / "ran")
    torch.load(tmp_path / "a", weights_only=False)
    assert (tmp_path / "ran").exists()
    write_pickle(tmp_path / "b", tmp_path / "also")
    pickle.loads((tmp_path / "b").read_bytes())
    assert (tmp_path / "also").exists()

"""Banks that several processes save, read and map in one folder at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from banks import frames

from usucl.bank import NegativeBank, versions
from usucl.bank.versions import publishing


def bank_of(seed: int, *, capacity: int = 300, videos: int = 7) -> NegativeBank:
    bank = NegativeBank(capacity, 6)
    bank.enqueue(frames(capacity, seed, videos=videos))
    return bank


def whole(bank: NegativeBank) -> bool:
    """Returns whether all frames are those of one version."""
    expected = bank_of(_seed_of(bank))
    return torch.equal(bank.frames().embedding, expected.frames().embedding)


def _seed_of(bank: NegativeBank) -> int:
    for seed in range(40):
        if torch.equal(frames(300, seed).time, bank.frames().time):
            return seed
    raise AssertionError("the times are those of no version")


def _save(folder: Path, first: int, results: Any) -> None:
    try:
        for seed in range(first, first + 20):
            bank_of(seed).save(folder)
        results.put("")
    except Exception as error:
        results.put(repr(error))


def _open(folder: Path, mmap: bool, results: Any) -> None:
    try:
        for _ in range(60):
            assert whole(NegativeBank.open(folder, mmap=mmap))
        results.put("")
    except Exception as error:
        results.put(repr(error))


def test_saved_and_opened_at_once(tmp_path: Path, one_thread: None) -> None:
    """Two processes save, two read: no save fails, and every read gives a whole version."""
    bank_of(0).save(tmp_path)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=target, args=(tmp_path, argument, results), daemon=True)
        for target, argument in ((_save, 0), (_save, 20), (_open, False), (_open, True))
    ]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [""] * 4
    for process in processes:
        process.join()
    bank_of(1).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # nobody reads the others any more


def test_threads_save_at_once(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def save(seed: int) -> None:
        try:
            for _ in range(10):
                bank_of(seed).save(tmp_path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(seed,)) for seed in (1, 2, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and whole(NegativeBank.open(tmp_path))


def test_a_mapped_version_keeps_its_file_as_long_as_it_is_mapped(tmp_path: Path) -> None:
    bank_of(0).save(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    mapped = NegativeBank.open(tmp_path, mmap=True)
    for seed in (1, 2):
        bank_of(seed).save(tmp_path)
        assert file.exists() and len(list(tmp_path.glob("*.safetensors"))) == 2
    assert whole(mapped)
    del mapped
    bank_of(3).save(tmp_path)
    assert not file.exists() and len(list(tmp_path.iterdir())) == 2


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_temporary_files_of_ended_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), _dead_process()
    gone = [f".bank.{dead}.tmp", f".bank-1.{dead}@{host}.tmp", f".bank.json.{dead}.tmp"]
    alive = [f".bank.{os.getppid()}.tmp", f".bank-2.{dead}@another-host.tmp"]
    for name in (*gone, *alive):
        (tmp_path / name).write_bytes(b"half")
    bank_of(0).save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(alive)
    for name in alive:
        os.utime(tmp_path / name, (0, 0))
    bank_of(0).save(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("error", [errno.ENOTSUP, errno.ENOLCK, errno.EBADF])
def test_without_locks_versions_are_kept_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(file: int, kind: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(versions.fcntl, "flock", refuse)
    for seed in (0, 1):
        bank_of(seed).save(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert whole(NegativeBank.open(tmp_path))
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    bank_of(2).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and whole(NegativeBank.open(tmp_path))


def test_a_child_that_is_forked_while_a_bank_is_published_keeps_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    with publishing(tmp_path):
        child = context.Process(target=stop.wait, daemon=True)
        child.start()
    other = context.Process(target=bank_of(0).save, args=(tmp_path,), daemon=True)
    other.start()
    other.join(20)
    stop.set()
    assert other.exitcode == 0

"""The emulation finds bugs: each test puts one into a kernel and reads the report."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

# The report of the race check or of the emulator itself, under three schedules.
REPORTED = {
    "no-barrier-before-use": "read after write of shared memory",
    "no-barrier-before-reuse": "read of a copy under way of shared memory",
    "no-barrier-after-sort": "write after write of memory",
    "no-warp-barrier": "read after write of shared memory",
    "divergent-barrier": "divergent barriers",
    "barrier-in-branch": "divergent barriers",
    "no-copy-wait": "read of a copy under way of shared memory",
    "plain-append": "write after write of shared memory",
    "wrong-index": "wrong result",
    "index-past-array": "wrong result",
    "exited-lane": "have ended",
    "divergent-warp": "__ballot_sync at",
    "misaligned-copy": "misaligned",
    "shared-by-blocks": "another block",
    "too-much-shared": "asked for at launch",
    "read-unwritten": "read before any write of shared memory",
}
# The reports of AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZED = {
    "list-overflow": "ERROR: AddressSanitizer: use-after-poison",
    "index-past-array": "runtime error: index 64 out of bounds",
    "read-past-input": "ERROR: AddressSanitizer: heap-buffer-overflow",
}
HAS_SOURCE_LINE = {name for name, text in REPORTED.items() if " of " in text}


def _run(program: Path, bug: str) -> tuple[int, str]:
    done = subprocess.run([program, bug], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("program", ["seeded_bugs", "seeded_bugs_sanitized"])
def test_nothing_is_found_without_a_bug(emulation_build: Path, program: str) -> None:
    assert _run(emulation_build / program, "none") == (0, "")


@pytest.mark.parametrize("bug", REPORTED)
def test_bug_is_reported(emulation_build: Path, bug: str) -> None:
    status, output = _run(emulation_build / "seeded_bugs", bug)
    assert status == 1
    assert REPORTED[bug] in output
    if bug in HAS_SOURCE_LINE:
        assert "seeded_bugs.cpp:" in output


@pytest.mark.parametrize("bug", SANITIZED)
def test_sanitizers_stop_at_bug(emulation_build: Path, bug: str) -> None:
    status, output = _run(emulation_build / "seeded_bugs_sanitized", bug)
    assert status != 0
    assert SANITIZED[bug] in output

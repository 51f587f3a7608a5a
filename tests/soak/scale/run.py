"""Tries the largest sizes that are promised."""

from __future__ import annotations

import argparse
from typing import Any

from tests.soak.scale import bank, catalogue, endurance


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    parser.add_argument("--frames", type=int, default=10_000_000, help="in the bank")
    parser.add_argument("--files", type=int, default=100_000, help="in the catalogue")
    parser.add_argument("--steps", type=int, default=1_000_000,
                        help="of the training, unless the time is over before")  # fmt: skip


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints what each took; returns that, and what was wrong."""
    facts, found = {}, []
    for name, work in (
        ("bank", lambda: bank.run(options.folder, options.frames)),
        ("catalogue", lambda: catalogue.run(options.folder, options.files)),
        ("endurance", lambda: endurance.run(options.folder, options.steps, 60 * options.minutes)),
    ):
        facts[name], wrong = work()
        found += [f"{name}: {text}" for text in wrong]
        print(f"{name}: {facts[name]}", flush=True)
    return facts, found

"""``python -m benchmarks.method_study``: what the options of the method ``dense`` do, in pairs.

Every arm changes a few options of one base and is trained with the same seeds, on the same videos,
for as many steps. With synthetic videos each seed has videos of its own, so that an interval holds
over data and training alike; with ``--data`` the seeds share the videos. The figures are measured
on held-out patients by the retrieval of :func:`usucl.evaluate`, and printed with differences from
the base, or from the arm that lacks one option, and their 95 % t intervals over the seeds. Each
finished run is written at once, and a run that is already in the file is not repeated, so the
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

import usucl
from benchmarks.harness import ROOT, describe_run
from usucl._spread import effective_rank, uniformity
from usucl._terminal import table
from usucl.data import VideoCatalog, write_phantom
from usucl.embedding import embed_entries
from usucl.evaluation.embed import EncoderName, load_encoders
from usucl.evaluation.retrieval import temporal_retrieval
from usucl.run_folder import RunFolder

OUT = ROOT / "benchmarks" / "results" / "method"
PHANTOM = {"videos": 24, "frames": 32, "image_size": 64}
BASE = {
    "encoder.backbone": "resnet10",
    "encoder.image_size": 32,
    "encoder.dim": 64,
    "sampling.videos": 4,
    "sampling.frames": 6,
    "curriculum.cross_only": 0.0,
    "epochs": 3,
    "sampling.steps_per_epoch": 16,
    "log_every": 16,
}
# 0.9 follows an encoder of 48 steps as closely as 0.99 follows one of 480.
MOMENTUM = {"key.momentum": 0.9}
BANK = {"key.bank": 240}  # frames: those of the last ten steps
THREE = {"sampling.positives": 3}
ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "bank": BANK,
    "bank, max_age 72": {**BANK, "key.max_age": 72},
    "momentum": MOMENTUM,
    "momentum, negatives momentum": {**MOMENTUM, "key.negatives": "momentum"},
    "momentum, bank": {**MOMENTUM, **BANK},
    "momentum, bank, negatives momentum": {**MOMENTUM, **BANK, "key.negatives": "momentum"},
    "label_smoothing 0.1": {"loss.label_smoothing": 0.1},
    "cross_skip 4": {"loss.cross_skip": 4},
    "positives 3": THREE,
    "positives 3, decay 0.05": {**THREE, "loss.positive_decay": 0.05},
    "no intra-video negatives": {"loss.intra_k": 0},
    "untrained": {"epochs": 1, "sampling.steps_per_epoch": 1},  # the weights before that step
}
AGAINST = {  # an arm of which another one differs by one option more; by default the base
    "bank, max_age 72": "bank",
    "momentum, negatives momentum": "momentum",
    "momentum, bank, negatives momentum": "momentum, bank",
    "positives 3, decay 0.05": "positives 3",
}
FIGURES = ("temporal", "temporal_hard", "same_video", "effective_rank", "uniformity")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, and prints the differences from the base."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method_study", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of videos; by default synthetic ones")
    parser.add_argument("--out", type=Path, default=OUT / "phantom.json", help="JSON file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other base")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    base = {**BASE, **dict(change.split("=", 1) for change in options.set)}
    about = {"base": base, "phantom": None if options.data else PHANTOM}
    study = _read(options.out, about)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for arm in options.arms:  # so that a file is as even as can be when it is stopped
                done = study["runs"].setdefault(arm, {})
                if str(seed) not in done:
                    data = options.data or _phantom(Path(folder), seed)
                    done[str(seed)] = _run(data, Path(folder) / "run", base | ARMS[arm], seed, arm)
                    _write(options.out, study)
                    print(f"{arm}, seed {seed}: {done[str(seed)]}", flush=True)
    _show(study["runs"])


def _read(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    if not path.is_file():
        return {**describe_run(), **about, "arms": ARMS, "runs": {}}
    study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, value in about.items():
        if study[name] != value:
            raise SystemExit(f"{path} is of another {name}: {study[name]}; give another --out")
    return {**study, "arms": ARMS}


def _write(path: Path, study: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")


def _phantom(folder: Path, seed: int) -> Path:
    data = folder / f"phantom{seed}"
    return data if data.is_dir() else write_phantom(data, seed=seed, **PHANTOM)


def _run(
    data: Path, out: Path, options: dict[str, Any], seed: int, arm: str
) -> dict[str, float | None]:
    """Returns the figures of one run on the patients held out from it."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a contraction shows in the figures
        usucl.train(data=data, out=out, overwrite=True, seed=seed, progress=False, **options)
    seconds = time.process_time() - start
    encoder: EncoderName = "random" if arm == "untrained" else "trained"
    figures = _measured(data, RunFolder(out), options["encoder.image_size"], encoder)
    with (out / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    for name in ("loss", "positive_similarity", "intra_similarity", "cross_similarity"):
        figures[f"last_{name}"] = float(last[name] or "nan")
    figures["cpu_seconds"] = seconds
    return {n: round(v, 4) if math.isfinite(v) else None for n, v in figures.items()}


def _measured(
    data: Path, run: RunFolder, image_size: int, encoder: EncoderName
) -> dict[str, float]:
    catalog = VideoCatalog.scan(data)
    held_out = run.held_out_videos(catalog)
    entries = [entry for entry, kept in zip(catalog, held_out, strict=True) if kept]
    encoders = load_encoders(run.path, [encoder])
    size: dict[str, Any] = {"image_size": int(image_size), "frames_per_video": 16}
    measured = temporal_retrieval(entries, encoders, queries_per_video=8, seed=0, **size)
    figures = {
        task: float(np.mean(list(of_patient.values())))
        for task, of_patient in measured[encoder].items()
    }
    kept = embed_entries(entries, encoders, held_out=[True] * len(entries), **size)
    embedding, video = kept[encoder].embedding, kept[encoder].video
    return figures | {
        "effective_rank": effective_rank(embedding),
        "uniformity": uniformity(embedding, video),
    }


def _show(runs: dict[str, dict[str, dict[str, float | None]]]) -> None:
    rows = []
    for arm, of_seed in runs.items():
        other = AGAINST.get(arm, "base")
        reference = runs.get(other, {}) if arm != "base" else {}
        cells = [arm, str(len(of_seed)), other if reference else ""]
        for figure in FIGURES:
            cell = f"{_column(of_seed, list(of_seed), figure).mean():.3f}"
            shared = sorted(of_seed.keys() & reference.keys())
            if len(shared) > 1:
                change = _column(of_seed, shared, figure) - _column(reference, shared, figure)
                cell += f" ({change.mean():+.3f} ± {half_width(change):.3f})"
            cells.append(cell)
        rows.append(cells)
    title = "mean over the seeds (difference from the other arm ± 95 %)"
    table(["arm", "seeds", "against", *FIGURES], rows, title=title)


def _column(
    of_seed: dict[str, dict[str, float | None]], seeds: Sequence[str], figure: str
) -> NDArray[np.float64]:
    return np.array([of_seed[seed][figure] for seed in seeds], dtype=np.float64)


def half_width(values: NDArray[np.float64]) -> float:
    """Returns half of the 95 % t interval of a mean."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


if __name__ == "__main__":
    main()

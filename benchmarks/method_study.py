"""``python -m benchmarks.method_study``: what the options of the method ``dense`` do, in pairs.

Every arm changes a few options of one base and is trained with the same seeds, on the same videos,
for as many steps. With synthetic videos each seed has videos of its own, so that an interval holds
over data and training alike; with ``--data`` the seeds share the videos. The figures are measured
on held-out patients by the retrieval of :func:`usucl.evaluate`, and printed as differences from the
base with a 95 % t interval over the seeds. Each finished run is written at once, and a run that is
already in the file is not repeated, so the command goes on where it was stopped.
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
from scipy import stats

import usucl
from benchmarks.harness import ROOT, describe_run
from usucl._spread import effective_rank, uniformity
from usucl._terminal import table
from usucl.data import VideoCatalog, write_phantom
from usucl.embedding import embed_entries
from usucl.evaluation.embed import load_encoders
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
    "epochs": 5,
    "sampling.steps_per_epoch": 10,
    "log_every": 10,
}
# 0.9 follows an encoder of 50 steps as closely as 0.99 follows one of 500.
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
            for arm in options.arms:
                done = study["runs"].setdefault(arm, {})
                if str(seed) not in done:
                    data = options.data or _phantom(Path(folder), seed)
                    done[str(seed)] = _run(data, Path(folder) / "run", base | ARMS[arm], seed)
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


def _run(data: Path, out: Path, options: dict[str, Any], seed: int) -> dict[str, float | None]:
    """Returns the figures of one run on the patients held out from it."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a contraction shows in the figures
        usucl.train(data=data, out=out, overwrite=True, seed=seed, progress=False, **options)
    seconds = time.process_time() - start
    figures = _measured(data, RunFolder(out), options["encoder.image_size"])
    with (out / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    for name in ("loss", "positive_similarity", "intra_similarity", "cross_similarity"):
        figures[f"last_{name}"] = float(last[name] or "nan")
    figures["cpu_seconds"] = seconds
    return {n: round(v, 4) if math.isfinite(v) else None for n, v in figures.items()}


def _measured(data: Path, run: RunFolder, image_size: int) -> dict[str, float]:
    catalog = VideoCatalog.scan(data)
    held_out = run.held_out_videos(catalog)
    entries = [entry for entry, kept in zip(catalog, held_out, strict=True) if kept]
    encoders = load_encoders(run.path, ["trained"])
    size: dict[str, Any] = {"image_size": int(image_size), "frames_per_video": 16}
    measured = temporal_retrieval(entries, encoders, queries_per_video=8, seed=0, **size)
    figures = {
        task: float(np.mean(list(of_patient.values())))
        for task, of_patient in measured["trained"].items()
    }
    kept = embed_entries(entries, encoders, held_out=[True] * len(entries), **size)
    embedding, video = kept["trained"].embedding, kept["trained"].video
    return figures | {
        "effective_rank": effective_rank(embedding),
        "uniformity": uniformity(embedding, video),
    }


def _show(runs: dict[str, dict[str, dict[str, float | None]]]) -> None:
    base, rows = runs["base"], []
    for arm, of_seed in runs.items():
        cells = [arm, str(len(of_seed))]
        for figure in FIGURES:
            values = [run[figure] for run in of_seed.values()]
            cell = f"{np.mean(np.array(values, dtype=float)):.3f}"
            shared = sorted(of_seed.keys() & base.keys()) if arm != "base" else []
            if len(shared) > 1:
                change = [of_seed[s][figure] - base[s][figure] for s in shared]  # type: ignore[operator]
                mean, half = float(np.mean(change)), half_width(change)
                cell += f" ({mean:+.3f} ± {half:.3f})"
            cells.append(cell)
        rows.append(cells)
    table(["arm", "seeds", *FIGURES], rows, title="mean (difference from base ± 95 %)")


def half_width(values: Sequence[float]) -> float:
    """Returns half of the 95 % t interval of a mean."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


if __name__ == "__main__":
    main()

"""Synthetic sweeps, training, evaluation and a report.

The patients that are held out are too few for intervals.

    python examples/pretrain.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import usucl
from usucl.data import write_phantom


def main() -> None:
    """Writes videos of made-up patients, trains on some of them and measures on the others."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/example"), help="run folder")
    parser.add_argument("--steps", type=int, default=15, help="training steps (15)")
    parser.add_argument("--videos", type=int, default=24, help="videos, two per patient (24)")
    options = parser.parse_args()

    videos = options.out.with_name("example-videos")
    if not videos.exists():
        write_phantom(videos, videos=options.videos, frames=16, image_size=64)
    run = usucl.train(
        data=videos,
        out=options.out,
        overwrite=True,
        epochs=1,
        steps_per_epoch=options.steps,
        backbone="resnet10",
        image_size=48,
    )
    evaluation = usucl.evaluate(run=run, data=videos, frames_per_video=4, folds=2)
    print("AUROC on patients that training has not seen")
    for task, figures in evaluation.retrieval.items():
        for encoder in evaluation.encoders:
            if (value := figures[encoder].value) is not None:
                print(f"  {task:16s}{encoder:10s}{value:.2f}")
    print(f"report: {usucl.write_report(run)}")


if __name__ == "__main__":
    main()

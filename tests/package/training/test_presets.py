"""The presets that come with the package, and those of a user."""

from __future__ import annotations

from pathlib import Path

from usucl.training import presets, read_config


def test_presets_hold_the_paper(tmp_path: Path) -> None:
    assert {"dense", "paper", "paper-code"} <= set(presets())
    paper = read_config("paper", {})
    assert (paper.loss.intra_k, paper.loss.cross_k) == (3, 4)
    assert paper.loss.temperature == paper.loss.soft_nn_temperature == 0.07
    assert (paper.optimiser.kind, paper.optimiser.lr, paper.optimiser.momentum) == (
        "sgd",
        3e-3,
        0.9,
    )
    assert (paper.epochs, paper.sampling.videos, paper.key.momentum) == (60, 32, 0.999)
    assert not paper.curriculum.intra(9) and paper.curriculum.intra(10)
    assert paper.curriculum.window(10) == (0.2, 0.4)
    assert read_config("paper-code", {}).curriculum.kind == "paper-code"
    own = tmp_path / "own.yaml"
    own.write_text("method: paper\noptimiser: {lr: 1e-2}\n")
    assert read_config(own, {"optimiser.momentum": 0.5}).optimiser.lr == 0.01
    round_trip = tmp_path / "round.yaml"
    round_trip.write_text(paper.to_yaml())
    assert read_config(round_trip, {}) == paper

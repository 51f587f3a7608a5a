"""The official implementation's numbers, reproduced through ids alone.

There, "cross-video" keys are the whole batch's intra-video negatives, detached and unmasked, the
anchor's own included. Here, the intra block shares the anchors' one known patient, so it yields
same-video keys only; the cross block repeats its embeddings under foreign videos, patient unknown.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from usucl_ext import Frames, hard_negative_nce

# Both sides are float32 and sum in different orders: some hundred eps of the largest entry.
TOLERANCE = 2e-5


@pytest.mark.parametrize("case", range(6))
def test_official_loss(case: int, golden_root: Path, impl: str, device: torch.device) -> None:
    facts = json.loads((golden_root / "official_loss.json").read_text())[case]
    with np.load(golden_root / "official_loss.npz") as archive:
        golden = {
            name: torch.from_numpy(archive[f"case{case}_{name}"]).to(device)
            for name in ("q", "pos", "negs", "logits", "loss", "grad_q", "grad_negs")
        }
    rows, per_row, dim = golden["negs"].shape
    query = golden["q"].requires_grad_()
    negatives = golden["negs"].requires_grad_()
    keys = normalize(negatives.reshape(-1, dim), dim=-1)

    def ids(*values: int, repeat: int = 1) -> torch.Tensor:
        return torch.tensor(values, device=device).repeat_interleave(repeat)

    count = rows * per_row
    anchors = Frames(
        normalize(query, dim=-1),
        ids(*range(rows)),
        torch.zeros(rows, device=device),
        ids(*[0] * rows),
    )
    intra = Frames(
        keys, ids(*range(rows), repeat=per_row), torch.ones(count, device=device), ids(*[0] * count)
    )
    cross = Frames(
        keys.detach(),
        ids(*range(rows, rows + count)),
        torch.ones(count, device=device),
        ids(*[-1] * count),
    )
    loss, selection = hard_negative_nce(
        anchors,
        normalize(golden["pos"], dim=-1),
        [intra, cross],
        window=(0.5, 1.5),
        intra_k=0 if facts["mode"] == "cross_only" else per_row,
        cross_k=0 if facts["mode"] == "intra_only" else facts["cross_support"],
        temperature=facts["temperature"],
        soft_nn_temperature=facts["soft_nn_temperature"],
        return_selection=True,
        impl=impl,
    )
    loss.backward()

    chosen = selection.intra_index
    assert bool((chosen // per_row == torch.arange(rows, device=device)[:, None]).all())
    assert bool((selection.cross_index >= count).all())
    assert loss.item() == pytest.approx(golden["loss"].item(), abs=TOLERANCE, rel=TOLERANCE)
    zeros = torch.zeros_like(negatives)
    for ours, name in ((query.grad, "grad_q"), (negatives.grad, "grad_negs")):
        truth = golden[name]
        ours = zeros if ours is None else ours
        bound = TOLERANCE * max(truth.abs().max().item(), 1e-12)
        assert (ours - truth).abs().max().item() <= bound, name
    similarity = torch.sort(selection.intra_similarity / facts["temperature"], dim=1).values
    if facts["mode"] != "cross_only":
        logits = torch.sort(golden["logits"][:, 1 : 1 + per_row], dim=1).values
        torch.testing.assert_close(similarity, logits, rtol=TOLERANCE, atol=TOLERANCE)

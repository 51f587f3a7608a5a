"""The momentum copy of an encoder."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """An encoder whose parameters follow another's: ``own = m own + (1 - m) other``.

    Buffers, that is the running statistics of batch normalisation, do not follow: they belong to
    the activations of these averaged weights, so this encoder's own forward passes gather them. It
    therefore follows ``train()`` and ``eval()`` like any module: in training the keys are
    normalised by their own batch. Source: He et al., CVPR 2020 (momentum contrast).

    Args:
        encoder: encoder to copy, with its buffers; the copy needs no gradient.
        momentum: m, in [0, 1].
    """

    def __init__(self, encoder: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Moves the parameters one step towards those of ``encoder``."""
        pairs = list(zip(self.encoder.parameters(), encoder.parameters(), strict=True))
        own, other = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        # One call for all: on a GPU a few kernels instead of one for every parameter.
        torch._foreach_lerp_(own, other, 1.0 - self.momentum)
        for counts, counts_of_other in pairs:
            if not counts.is_floating_point():
                counts.copy_(counts_of_other)

    @torch.no_grad()
    def freeze_statistics(self, encoder: nn.Module) -> None:
        """Normalises from now on by the running statistics of ``encoder``, as they are now."""
        self.eval()
        for own, other in zip(self.encoder.buffers(), encoder.buffers(), strict=True):
            own.copy_(other)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings without gradient; see :meth:`FrameEncoder.forward`."""
        embedding: Tensor = self.encoder(images)
        return embedding

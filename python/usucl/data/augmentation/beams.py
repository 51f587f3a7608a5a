"""Where a frame shows tissue, and the beams that show it, from the frame alone.

It is done for each view of a batch, so it is coarser than ``usucl.data.inspection.sector``, which
finds the sector of a whole video from what moves in it. Frames are looked at on a grid of 32 x 32
cells. Lengths are in pixels of the frame; the left and upper edges of the frame are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

CELLS = 32
ENOUGH = 80  # pixels of the short side; of larger frames every second, third ... is looked at
DARKEST = 4.0  # grey level; darker cells are background: compressed black is not quite black
LEAST_LIT = (0.06, 0.1)  # share of cells that are lit in rows and columns of the sector
THINNEST = 3  # cells; thinner rows and columns are text or a scale beside the sector
STRAIGHT = 0.15  # a smaller change of the width per depth is that of a linear probe


@dataclass(frozen=True)
class Sectors:
    """The sectors of n frames of one size.

    Attributes:
        lit: float64 [n, CELLS + 1, CELLS + 1], the number of cells of the sector above and to the
            left of each corner of the grid.
        box: float64 [n, 4], left, top, right and bottom.
        probe: float64 [n, 2], x and y of the middle of the probe's face.
        depth: float64 [n], from the probe to the lower end.
        face: float64 [n], width of the probe's face.
        divergence: float64 [n], growth of the width per depth, relative to the face; 0 where the
            beams are parallel. The beams meet ``1 / divergence`` above the probe.
        size: height and width of the frames.
    """

    lit: np.ndarray
    box: np.ndarray
    probe: np.ndarray
    depth: np.ndarray
    face: np.ndarray
    divergence: np.ndarray
    size: tuple[int, int]

    def share(self, windows: np.ndarray) -> np.ndarray:
        """Returns the share of each window that is sector: float64 [n, m].

        Args:
            windows: [n, m, 4] left, top, right and bottom; outside of the frame is no sector.
        """
        height, width = self.size
        cells = CELLS * windows / np.array([width, height, width, height])
        left, top, right, bottom = np.moveaxis(cells.clip(0, CELLS), -1, 0)
        inside = (
            self._above(right, bottom)
            - self._above(left, bottom)
            - self._above(right, top)
            + self._above(left, top)
        )
        return inside / ((cells[..., 2] - cells[..., 0]) * (cells[..., 3] - cells[..., 1]))

    def _above(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Interpolates ``lit`` at corners [n, m]; exact, as a cell is lit evenly."""
        column, row = (np.minimum(v.astype(np.int64), CELLS - 1) for v in (x, y))
        right, down = x - column, y - row
        n = np.arange(len(x))[:, None]
        upper = self.lit[n, row, column] * (1 - right) + self.lit[n, row, column + 1] * right
        lower = self.lit[n, row + 1, column] * (1 - right) + (
            self.lit[n, row + 1, column + 1] * right
        )
        return upper * (1 - down) + lower * down


def find_sectors(images: Tensor, box: tuple[float, float, float, float] | None = None) -> Sectors:
    """Finds the sectors of frames; a frame in which nothing is lit is all sector.

    Args:
        images: uint8 [n, 1 or 3, H, W].
        box: left, top, right and bottom of what may be sector, as shares of the frame.
    """
    n, channels, height, width = images.shape
    every = max(1, min(height, width) // ENOUGH)
    some = images[:, :, every // 2 :: every, every // 2 :: every].float()
    if channels > 1:
        some = some.amax(1, keepdim=True)
    mean = functional.adaptive_avg_pool2d(some, CELLS).view(n, CELLS, CELLS)
    lit = mean.numpy() > DARKEST
    if box is not None:
        middle = (np.arange(CELLS) + 0.5) / CELLS
        left, top, right, bottom = box
        lit = lit & ((middle >= left) & (middle <= right))
        lit = lit & ((middle >= top) & (middle <= bottom))[:, None]
    lit = lit & _opened(lit.mean(2) >= LEAST_LIT[0])[:, :, None]
    lit = lit & _opened(lit.mean(1) >= LEAST_LIT[1])[:, None, :]
    lit = lit | ~lit.any((1, 2))[:, None, None]
    # What is dark between the left and the right edge, such as a vessel, is sector too.
    lit = (
        np.logical_or.accumulate(lit, 2) & (np.logical_or.accumulate(lit[..., ::-1], 2)[..., ::-1])
    )
    sums = np.zeros((n, CELLS + 1, CELLS + 1))
    sums[:, 1:, 1:] = lit.cumsum(1).cumsum(2)
    cell_height, cell_width = height / CELLS, width / CELLS
    rows, columns = np.asarray(lit.any(2)), np.asarray(lit.any(1))
    top = rows.argmax(1) * cell_height
    bottom = (CELLS - rows[:, ::-1].argmax(1)) * cell_height
    left = columns.argmax(1) * cell_width
    right = (CELLS - columns[:, ::-1].argmax(1)) * cell_width
    depth = bottom - top
    face, slope = _edges(lit.sum(2) * cell_width, top, depth, cell_height)
    face = np.clip(face, (right - left) / 10, right - left)
    divergence = np.where(slope > STRAIGHT, slope / face, 0.0)
    probe = np.stack([(left + right) / 2, top], 1)
    bounds = np.stack([left, top, right, bottom], 1)
    return Sectors(sums, bounds, probe, depth, face, divergence, (height, width))


def _opened(lit: np.ndarray) -> np.ndarray:
    """Removes runs of fewer than ``THINNEST`` lit cells: bool [n, CELLS]."""
    padded = np.pad(lit, ((0, 0), (THINNEST - 1, THINNEST - 1)))
    runs = np.lib.stride_tricks.sliding_window_view(padded, THINNEST, axis=1).all(2)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(runs, THINNEST, axis=1).any(2))


def _edges(
    widths: np.ndarray, top: np.ndarray, depth: np.ndarray, cell: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a line to the widths [n, CELLS] of the rows in the upper 60 % of each sector.

    Returns:
        Width at the top, and growth of the width per depth.
    """
    below = (np.arange(CELLS) + 0.5) * cell - top[:, None]
    weight = ((below > 0) & (below < np.maximum(0.6 * depth, 2 * cell)[:, None])).astype(float)
    total = weight.sum(1)
    x, y = (weight * below).sum(1) / total, (weight * widths).sum(1) / total
    spread = (weight * (below - x[:, None]) ** 2).sum(1)
    together = (weight * (below - x[:, None]) * (widths - y[:, None])).sum(1)
    slope = together / np.maximum(spread, 1e-9)
    return y - slope * x, slope

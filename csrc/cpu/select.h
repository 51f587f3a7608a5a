// The hardest valid negatives of every anchor, on the CPU.
#pragma once

#include "../core/results.h"
#include "tile.h"

namespace usucl::cpu {

// excluded [N], or null: anchors that select nothing. Never forms the N x M matrix: extra memory
// is O(N D + S N depth) where the keys are split over S threads, and what a video join needs.
template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection,
                      const TileKernels<T>& kernels = tile_kernels<T>(capability_in_use()));

}  // namespace usucl::cpu

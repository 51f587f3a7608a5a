// The CPU kernels as the operators call them: pointers to the host's memory, nothing of PyTorch. T,
// float or double, is the type everything is accumulated in.
#pragma once

#include "../core/results.h"
#include "tile/capability.h"

namespace usucl::cpu {

// The hardest valid negatives of every anchor. excluded [N], or null: anchors that select nothing.
// Never forms the N x M matrix: extra memory is O(N D + S N depth) where the keys are split over S
// threads, and what a video join needs.
template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection,
                      const TileKernels<T>& kernels = tile_kernels<T>(capability_in_use()));

// Similarities of given pairs, such as another index's candidates.
template <typename T>
void similarities(const ScoredPairs<T>& pairs);

// Loss, selection, unit-upstream anchor gradients and the weight of every selected pair.
template <typename T>
void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                       const LossArrays<T>& out);

// total [] = sum of loss [rows] / divisor
template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total);

// Gradients of the anchors, the positives and the temperatures; of those that are not null.
template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                const BackwardArrays<T>& out);

// The gradient of a range of keys; its sums are in the order of the anchors whatever the number of
// threads.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted);

}  // namespace usucl::cpu

// The CPU kernels as the operators call them, on plain pointers to host memory. T, float or double,
// is the accumulation type.
#pragma once

#include "../core/results.h"
#include "tile/capability.h"

namespace usucl::cpu {

// The hardest valid negatives of every anchor. excluded [N], or null: anchors that select nothing.
// The N x M matrix is never formed: extra memory is O(N D + S N depth) for keys split over S
// threads, plus the video join.
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

// Gradients of the anchors, the positives and the temperatures, where not null.
template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                const BackwardArrays<T>& out);

// The gradient of a range of keys, summed in anchor order whatever the number of threads.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted);

}  // namespace usucl::cpu

// The CUDA kernels as the operators call them: pointers to device memory, nothing of PyTorch.
//
// All launches are asynchronous on `stream`; memory comes from the caller, who also checks for
// launch errors. T, float or double, is the type everything is accumulated in.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/ordering.h"
#include "../results.h"

namespace usucl::cuda {

// `problem` with its table of key blocks copied to device memory, without reading host memory
// later: the blocks travel as kernel arguments. table [num_blocks]
Problem on_device(const Problem& problem, Frames* table, cudaStream_t stream);

// Sizes of one selection, decided on the host.
struct SelectionPlan {
  int64_t grid;         // thread blocks
  int64_t capacity;     // candidates a list has room for
  int64_t intra_depth;  // of them kept: the ranks wanted, or all keys if they are fewer
  int64_t cross_depth;

  int64_t num_candidates() const;  // in the lists of all thread blocks
};

SelectionPlan plan_selection(const Problem& problem);

// problem: on the device. excluded [N] or null: anchors that select nothing.
// lists [plan.num_candidates()]: memory to work in.
template <typename T>
void select_negatives(const Problem& problem, const bool* excluded, const SelectionPlan& plan,
                      Candidate<T>* lists, const SelectionArrays<T>& selection,
                      cudaStream_t stream);

// similarity [N, R] of anchors and positives; broken [N]: the anchor or one of those is not finite.
template <typename T>
void score_positives(const Problem& problem, const LossArguments<T>& arguments, T* similarity,
                     bool* broken, cudaStream_t stream);

// All of LossArrays but the selection, which is written; similarity and broken as above.
template <typename T>
void finish_rows(const Problem& problem, const LossArguments<T>& arguments, const T* similarity,
                 const bool* broken, const LossArrays<T>& out, cudaStream_t stream);

// total [] = sum of loss [rows] / divisor
template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total, cudaStream_t stream);

template <typename T>
void row_gradients(const BackwardArguments<T>& arguments, const BackwardArrays<T>& out,
                   cudaStream_t stream);

// Integers that key_gradient works with.
int64_t key_gradient_scratch(int64_t num_pairs, int64_t num_keys);

// Row j is the sum over the pairs (i, first_key + j) of upstream_i * weight * q_i, in the order of
// the anchors. scratch [key_gradient_scratch(N * (intra.k + cross.k), num_keys)]
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted,
                  unsigned long long* scratch, cudaStream_t stream);

}  // namespace usucl::cuda

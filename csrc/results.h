// What the operators write, and what the backward reads: plain pointers, for every device.
#pragma once

#include <limits>

#include "core/loss.h"
#include "core/problem.h"

namespace usucl {

// Where the selection goes; -1 and -infinity where there are fewer keys than asked for.
template <typename T>
struct SelectionArrays {
  int64_t* intra_index;  // [N, intra.k]
  T* intra_similarity;   // [N, intra.k]
  int64_t* cross_index;  // [N, cross.k]
  T* cross_similarity;   // [N, cross.k]
};

// Pairs to be scored by themselves: anchor i with each of its C keys.
template <typename T>
struct ScoredPairs {
  Matrix anchors;        // [N, D]
  Matrix keys;           // [M, D]
  const int64_t* index;  // [N, C]
  int64_t per_anchor;    // C
  T* similarity;         // [N, C], -infinity where there is no key

  USUCL_HD bool is_key(int64_t key) const { return key >= 0 && key < keys.rows; }
};

// What hard_negative_nce takes beside the problem.
template <typename T>
struct LossArguments {
  Matrix positives;  // [N * R, D]
  int64_t num_positives;
  const T* temperature;          // [], on the device of the embeddings
  const T* soft_nn_temperature;  // [] likewise, or null

  USUCL_HD Temperatures<T> temperatures() const {
    const bool use_soft_nn = soft_nn_temperature != nullptr;
    return {*temperature, use_soft_nn ? *soft_nn_temperature : T(1), use_soft_nn};
  }
};

template <typename T>
struct LossArrays {
  SelectionArrays<T> selection;
  T* loss;                  // [N]
  T* anchor_gradient;       // [N, D] or null
  T* positive_weight;       // [N, R]
  T* intra_weight;          // [N, intra.k]
  T* cross_weight;          // [N, cross.k]
  T* temperature_gradient;  // [N, 2]
};

template <typename Team>
USUCL_HD int64_t num_taken(const int64_t* index, int64_t k) {
  return team_sum<Team, int64_t>(k, [&](int64_t j) { return int64_t{index[j] >= 0}; });
}

// Loss and derivatives of anchor i, whose selection is written. positive [R]: its similarities.
// broken: the anchor or one of those is not finite. The weights of a broken anchor's positives are
// NaN, and so is its gradient, their sum.
template <typename Team, typename T>
USUCL_HD void finish_row(const Problem& problem, const LossArguments<T>& arguments, int64_t i,
                         const T* positive, bool broken, const LossArrays<T>& out) {
  const int64_t num_positives = arguments.num_positives;
  const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
  const SelectionArrays<T>& selection = out.selection;
  const RowSimilarities<T> similarities{
      positive,
      num_positives,
      selection.intra_similarity + i * intra_k,
      num_taken<Team>(selection.intra_index + i * intra_k, intra_k),
      selection.cross_similarity + i * cross_k,
      num_taken<Team>(selection.cross_index + i * cross_k, cross_k)};
  RowDerivatives<T> by{out.positive_weight + i * num_positives, out.intra_weight + i * intra_k,
                       out.cross_weight + i * cross_k, 0, 0};
  const auto clear = [](T* weight, int64_t taken, int64_t k) {
    for_own<Team>(k - taken, [&](int64_t j) { weight[taken + j] = 0; });
  };
  clear(by.intra, similarities.num_intra, intra_k);
  clear(by.cross, similarities.num_cross, cross_k);
  const T loss = row_loss<Team>(similarities, arguments.temperatures(), &by);
  const T nan = std::numeric_limits<T>::quiet_NaN();
  if (broken) for_own<Team>(num_positives, [&](int64_t r) { by.positive[r] = nan; });
  if (Team::rank() != 0) return;
  out.loss[i] = broken ? nan : loss;
  out.temperature_gradient[2 * i] = by.temperature;
  out.temperature_gradient[2 * i + 1] = by.soft_nn_temperature;
}

// d total / d loss_i of the reduction: one value a row, or (step 0) one for all.
template <typename T>
struct Upstream {
  const T* grad;
  int64_t step;
  T divisor;

  USUCL_HD T operator()(int64_t i) const { return grad[i * step] / divisor; }
};

// The selected pairs (anchor, key) of one group, and d loss_i / d s_ij of each.
template <typename T>
struct WeightedPairs {
  const int64_t* index;  // [N, k], -1 where missing
  const T* weight;       // [N, k]
  int64_t k;
};

template <typename T>
struct BackwardArguments {
  Upstream<T> upstream;
  Matrix anchors;                 // [N, D]
  const T* anchor_gradient;       // [N, D] or null
  const T* positive_weight;       // [N, R]
  int64_t num_positives;          // R
  const T* temperature_gradient;  // [N, 2]
  WeightedPairs<T> intra;
  WeightedPairs<T> cross;
};

template <typename T>
struct BackwardArrays {
  // Null where not wanted.
  T* grad_anchors;       // [N, D], untouched where the forward had no gradient
  T* grad_positives;     // [N, R, D]
  T* grad_temperatures;  // [2]
};

// A range of keys whose gradients are wanted.
template <typename T>
struct KeyGradient {
  int64_t first_key;
  int64_t num_keys;
  T* grad_keys;  // [num_keys, D]
};

}  // namespace usucl

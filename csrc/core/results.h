// What the operators write and the backward pass reads: plain pointers, for every device.
#pragma once

#include <cstdint>

#include "loss.h"
#include "problem.h"

namespace usucl {

// Where the selection goes; -1 and -infinity if there are fewer keys than asked for.
template <typename T>
struct SelectionArrays {
  int64_t* intra_index;  // [N, intra.k]
  T* intra_similarity;   // [N, intra.k]
  int64_t* cross_index;  // [N, cross.k]
  T* cross_similarity;   // [N, cross.k]
};

// Given pairs to score: anchor i with each of its C keys.
template <typename T>
struct ScoredPairs {
  Matrix anchors;        // [N, D]
  Matrix keys;           // [M, D]
  const int64_t* index;  // [N, C]
  int64_t per_anchor;    // C
  T* similarity;         // [N, C], -infinity if there is no key

  USUCL_HD bool is_key(int64_t key) const { return key >= 0 && key < keys.rows; }
};

// What hard_negative_nce takes in addition to the problem.
template <typename T>
struct LossArguments {
  Matrix positives;  // [N * R, D]
  int64_t num_positives;
  const T* positive_weights;  // [N, R] or null: all equal
  const T* margin;            // [N] or [], or null: positives set no limit
  bool margin_per_anchor;
  const T* temperature;          // [], on the device of the embeddings
  const T* soft_nn_temperature;  // [] likewise, or null

  // The weights of the positives of anchor i, or null.
  USUCL_HD const T* weights_of(int64_t i) const {
    return positive_weights == nullptr ? nullptr : positive_weights + i * num_positives;
  }

  // Whether no weight of anchor i is negative and their sum is positive and finite.
  USUCL_HD bool has_valid_weights(int64_t i) const {
    if (positive_weights == nullptr) return true;
    T total = 0;
    for (int64_t r = 0; r < num_positives; ++r) {
      if (!(weights_of(i)[r] >= T(0))) return false;
      total += weights_of(i)[r];
    }
    return total > T(0) && is_finite(total);
  }

  // Whether the loss of anchor i is defined, whatever its embeddings are.
  USUCL_HD bool valid(int64_t i) const { return temperatures().valid() && has_valid_weights(i); }

  // The greatest similarity that a negative of anchor i may have, given its greatest positive.
  USUCL_HD T limit(int64_t i, T greatest_positive) const {
    return greatest_positive + margin[margin_per_anchor ? i : 0];
  }

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

// d total / d loss_i of the reduction: one value per row, or (step 0) one value for all rows.
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
  // Null if not wanted.
  T* grad_anchors;       // [N, D], untouched if the forward had no gradient
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

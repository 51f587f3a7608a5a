// Sums over the selected pairs: the only shape a gradient of the loss has.
#pragma once

#include <cstdint>
#include <vector>

namespace usucl::cpu {

// sum [dim] += weight * row [dim]
template <typename T>
void add_scaled(T weight, const T* row, T* sum, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) sum[d] += weight * row[d];
}

// The selected pairs (anchor, key) of one group, and d loss_i / d s_ij of each.
template <typename T>
struct WeightedPairs {
  const int64_t* index;  // [N, k], -1 where missing
  const T* weight;       // [N, k]
  int64_t k;
};

// grad_keys [num_keys, D]: row j is the sum over the pairs (i, first_key + j) of
// upstream_i * weight * q_i, in the order of the anchors whatever the number of threads.
template <typename T>
void key_gradient(const std::vector<WeightedPairs<T>>& groups, const T* upstream, const T* anchors,
                  int64_t rows, int64_t dim, int64_t first_key, int64_t num_keys, T* grad_keys);

}  // namespace usucl::cpu

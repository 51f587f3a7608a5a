#include "gradient.h"

#include <algorithm>

#include "parallel.h"

namespace usucl::cpu {
namespace {

template <typename T>
struct Contribution {
  int64_t key;
  int64_t anchor;
  T weight;
};

}  // namespace

template <typename T>
void key_gradient(const std::vector<WeightedPairs<T>>& groups, const T* upstream, const T* anchors,
                  int64_t rows, int64_t dim, int64_t first_key, int64_t num_keys, T* grad_keys) {
  std::vector<Contribution<T>> pairs;
  for (int64_t i = 0; i < rows; ++i) {
    for (const WeightedPairs<T>& group : groups) {
      for (int64_t j = i * group.k; j < (i + 1) * group.k; ++j) {
        const int64_t key = group.index[j] - first_key;
        if (group.index[j] < 0 || key < 0 || key >= num_keys) continue;
        pairs.push_back({key, i, upstream[i] * group.weight[j]});
      }
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.key < b.key; });
  parallel_for(num_keys, 64, [&](int64_t begin, int64_t end) {
    std::fill_n(grad_keys + begin * dim, (end - begin) * dim, T(0));
    auto pair = std::lower_bound(pairs.begin(), pairs.end(), begin,
                                 [](const auto& p, int64_t key) { return p.key < key; });
    for (; pair != pairs.end() && pair->key < end; ++pair) {
      add_scaled(pair->weight, anchors + pair->anchor * dim, grad_keys + pair->key * dim, dim);
    }
  });
}

template void key_gradient(const std::vector<WeightedPairs<float>>&, const float*, const float*,
                           int64_t, int64_t, int64_t, int64_t, float*);
template void key_gradient(const std::vector<WeightedPairs<double>>&, const double*, const double*,
                           int64_t, int64_t, int64_t, int64_t, double*);

}  // namespace usucl::cpu

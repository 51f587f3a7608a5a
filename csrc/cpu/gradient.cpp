#include "kernels.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "tile/rows.h"

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
void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                const BackwardArrays<T>& out) {
  const int64_t rows = arguments.anchors.rows, dim = arguments.anchors.dim;
  const int64_t num_positives = arguments.num_positives;
  const bool anchors = out.grad_anchors != nullptr && arguments.anchor_gradient != nullptr;
  const bool positives = out.grad_positives != nullptr;
  parallel_for(rows, grain_for(dim * (1 + num_positives)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T upstream = arguments.upstream(i);
      for (int64_t d = i * dim; anchors && d < (i + 1) * dim; ++d) {
        out.grad_anchors[d] = upstream * arguments.anchor_gradient[d];
      }
      for (int64_t r = i * num_positives; positives && r < (i + 1) * num_positives; ++r) {
        const T scale = upstream * arguments.positive_weight[r];
        T* gradient = out.grad_positives + r * dim;
        std::fill_n(gradient, dim, T(0));
        add_scaled_row(scale, arguments.anchors, i, gradient);
      }
    }
  });
  if (out.grad_temperatures == nullptr) return;
  double by_temperature[2] = {0, 0};  // in anchor order
  for (int64_t i = 0; i < 2 * rows; ++i) {
    by_temperature[i % 2] += arguments.upstream(i / 2) * arguments.temperature_gradient[i];
  }
  std::copy_n(by_temperature, 2, out.grad_temperatures);
}

template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
  std::vector<Contribution<T>> pairs;
  for (int64_t i = 0; i < arguments.anchors.rows; ++i) {
    const T upstream = arguments.upstream(i);
    for (const WeightedPairs<T>& group : {arguments.intra, arguments.cross}) {
      for (int64_t j = i * group.k; j < (i + 1) * group.k; ++j) {
        const int64_t key = group.index[j] - wanted.first_key;
        if (group.index[j] < 0 || key < 0 || key >= wanted.num_keys) continue;
        pairs.push_back({key, i, upstream * group.weight[j]});
      }
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.key < b.key; });
  const int64_t dim = arguments.anchors.dim;
  parallel_for(wanted.num_keys, grain_for(dim), [&](int64_t begin, int64_t end) {
    std::fill_n(wanted.grad_keys + begin * dim, (end - begin) * dim, T(0));
    auto pair = std::lower_bound(pairs.begin(), pairs.end(), begin,
                                 [](const auto& p, int64_t key) { return p.key < key; });
    for (; pair != pairs.end() && pair->key < end; ++pair) {
      add_scaled_row(pair->weight, arguments.anchors, pair->anchor,
                     wanted.grad_keys + pair->key * dim);
    }
  });
}

template void hard_negative_nce_backward(const BackwardArguments<float>&,
                                         const BackwardArrays<float>&);
template void hard_negative_nce_backward(const BackwardArguments<double>&,
                                         const BackwardArrays<double>&);
template void key_gradient(const BackwardArguments<float>&, const KeyGradient<float>&);
template void key_gradient(const BackwardArguments<double>&, const KeyGradient<double>&);

}  // namespace usucl::cpu

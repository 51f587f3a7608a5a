#include "gradient.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "rows.h"

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

template void key_gradient(const BackwardArguments<float>&, const KeyGradient<float>&);
template void key_gradient(const BackwardArguments<double>&, const KeyGradient<double>&);

}  // namespace usucl::cpu

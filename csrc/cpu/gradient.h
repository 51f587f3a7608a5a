// Sums over the selected pairs: the only shape a gradient of the loss has.
#pragma once

#include "../results.h"

namespace usucl::cpu {

// sum [dim] += weight * row [dim]
template <typename T>
void add_scaled(T weight, const T* row, T* sum, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) sum[d] += weight * row[d];
}

// The sum is in the order of the anchors whatever the number of threads. queries [N, D]: the
// anchors, upcast.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const T* queries,
                  const KeyGradient<T>& wanted);

}  // namespace usucl::cpu

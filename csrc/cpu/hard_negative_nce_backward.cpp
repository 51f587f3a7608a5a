// The CPU kernel of the backward operator in ops.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "../operators.h"
#include "gradient.h"
#include "parallel.h"
#include "rows.h"

namespace usucl::cpu {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <typename T>
  void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                  const BackwardArrays<T>& out) {
    const int64_t rows = arguments.anchors.rows, dim = arguments.anchors.dim;
    const int64_t num_positives = arguments.num_positives;
    parallel_for(rows, grain_for(dim * (1 + num_positives)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T upstream = arguments.upstream(i);
        for (int64_t d = i * dim; arguments.anchor_gradient && d < (i + 1) * dim; ++d) {
          out.grad_anchors[d] = upstream * arguments.anchor_gradient[d];
        }
        for (int64_t r = i * num_positives; r < (i + 1) * num_positives; ++r) {
          const T scale = upstream * arguments.positive_weight[r];
          T* gradient = out.grad_positives + r * dim;
          with_row(arguments.anchors, i, [&](const auto* query) {
            for (int64_t d = 0; d < dim; ++d)
              gradient[d] = scale * static_cast<T>(upcast(query[d]));
          });
        }
      }
    });
    double by_temperature[2] = {0, 0};
    for (int64_t i = 0; i < 2 * rows; ++i) {
      by_temperature[i % 2] += arguments.upstream(i / 2) * arguments.temperature_gradient[i];
    }
    std::copy_n(by_temperature, 2, out.grad_temperatures);
  }

  template <typename T>
  void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
    cpu::key_gradient(arguments, wanted);
  }
};

}  // namespace
}  // namespace usucl::cpu

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cpu::Cpu>));
}

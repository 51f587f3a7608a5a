// The CPU kernel of the backward operator in ops.cpp.
#include "../arguments.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "gradient.h"
#include "panels.h"
#include "parallel.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kRowsPerTask = 64;

// d total / d loss_i of the reduction.
template <typename T>
std::vector<T> upstream_of(const Tensor& grad_loss, Reduction reduction, int64_t rows) {
  const T* grad = static_cast<const T*>(grad_loss.const_data_ptr());
  if (reduction == Reduction::kNone) return std::vector<T>(grad, grad + rows);
  return std::vector<T>(rows, reduction == Reduction::kMean ? *grad / static_cast<T>(rows) : *grad);
}

template <typename T>
std::vector<T> upcast_rows(const Matrix& matrix) {
  std::vector<T> rows(matrix.rows * matrix.dim);
  parallel_for(matrix.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pack_row(matrix, i, rows.data() + i * matrix.dim, 1, 0);
    }
  });
  return rows;
}

using BackwardTensors = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

template <typename T>
BackwardTensors backward(const Tensor& grad_loss, Reduction reduction, const Tensor& anchors,
                         const Tensor& anchor_gradient, const Tensor& positive_weight,
                         const Tensor& intra_index, const Tensor& intra_weight,
                         const Tensor& cross_index, const Tensor& cross_weight,
                         const Tensor& temperature_gradient, const std::vector<int64_t>& first_key,
                         const std::vector<int64_t>& num_keys) {
  const auto type = scalar_type_of<T>();
  const int64_t rows = anchors.size(0), dim = anchors.size(1), count = positive_weight.size(1);
  const std::vector<T> upstream = upstream_of<T>(grad_loss, reduction, rows);
  const std::vector<T> queries = upcast_rows<T>(matrix_of(anchors, dim, "anchors"));

  const Tensor grad_anchors = new_empty(anchors, {anchor_gradient.size(0), dim}, type);
  const Tensor grad_positives = new_empty(anchors, {rows, count, dim}, type);
  const Tensor grad_temperatures = new_empty(anchors, {2}, type);
  const T* unit = static_cast<const T*>(anchor_gradient.const_data_ptr());
  const T* weight = static_cast<const T*>(positive_weight.const_data_ptr());
  T* by_anchor = data_of<T>(grad_anchors);
  T* by_positive = data_of<T>(grad_positives);
  const bool want_anchors = anchor_gradient.size(0) == rows;
  parallel_for(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* query = queries.data() + i * dim;
      for (int64_t d = 0; want_anchors && d < dim; ++d) {
        by_anchor[i * dim + d] = upstream[i] * unit[i * dim + d];
      }
      for (int64_t r = i * count; r < (i + 1) * count; ++r) {
        const T scale = upstream[i] * weight[r];
        for (int64_t d = 0; d < dim; ++d) by_positive[r * dim + d] = scale * query[d];
      }
    }
  });

  const T* by_row = static_cast<const T*>(temperature_gradient.const_data_ptr());
  double by_temperature[2] = {0, 0};
  for (int64_t i = 0; i < 2 * rows; ++i) by_temperature[i % 2] += upstream[i / 2] * by_row[i];
  std::copy_n(by_temperature, 2, data_of<T>(grad_temperatures));

  const auto pairs = [](const Tensor& index, const Tensor& weights) {
    return WeightedPairs<T>{static_cast<const int64_t*>(index.const_data_ptr()),
                            static_cast<const T*>(weights.const_data_ptr()), index.size(1)};
  };
  const std::vector<WeightedPairs<T>> groups = {pairs(intra_index, intra_weight),
                                                pairs(cross_index, cross_weight)};
  std::vector<Tensor> grad_keys;
  for (size_t b = 0; b < first_key.size(); ++b) {
    grad_keys.push_back(new_empty(anchors, {num_keys[b], dim}, type));
    key_gradient(groups, upstream.data(), queries.data(), rows, dim, first_key[b], num_keys[b],
                 data_of<T>(grad_keys.back()));
  }
  return {grad_anchors, grad_positives, grad_temperatures, grad_keys};
}

}  // namespace

BackwardTensors hard_negative_nce_backward_op(const Tensor& grad_loss, int64_t reduction,
                                              const Tensor& anchors, const Tensor& anchor_gradient,
                                              const Tensor& positive_weight,
                                              const Tensor& intra_index, const Tensor& intra_weight,
                                              const Tensor& cross_index, const Tensor& cross_weight,
                                              const Tensor& temperature_gradient,
                                              const std::vector<int64_t>& first_key,
                                              const std::vector<int64_t>& num_keys) {
  STD_TORCH_CHECK(first_key.size() == num_keys.size(), "first_key and num_keys must pair up");
  STD_TORCH_CHECK(grad_loss.numel() == (reduction == 0 ? anchors.size(0) : 1),
                  "grad_loss must have the shape of the loss");
  const bool in_double = positive_weight.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(grad_loss.scalar_type() == positive_weight.scalar_type(),
                  "grad_loss must have the dtype of the loss");
  const auto run = in_double ? &backward<double> : &backward<float>;
  return run(grad_loss, static_cast<Reduction>(reduction), anchors, anchor_gradient,
             positive_weight, intra_index, intra_weight, cross_index, cross_weight,
             temperature_gradient, first_key, num_keys);
}

}  // namespace usucl::cpu

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("hard_negative_nce_backward", TORCH_BOX(&usucl::cpu::hard_negative_nce_backward_op));
}

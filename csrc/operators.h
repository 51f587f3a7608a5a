// The operators of ops.cpp on any device: what they check and allocate. A backend computes:
//
//   Backend(device)     for one call on the device that PyTorch numbers so, -1 for the CPU
//   select_negatives(problem, SelectionArrays<T>)
//   similarities(ScoredPairs<T>)
//   hard_negative_nce(problem, LossArguments<T>, LossArrays<T>)
//   sum_rows(loss [N], N, divisor, total [])
//   hard_negative_nce_backward(BackwardArguments<T>, BackwardArrays<T>)
//   key_gradient(BackwardArguments<T>, KeyGradient<T>)
#pragma once

#include <algorithm>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "core/results.h"

namespace usucl {

template <typename T>
const T* values_of(const Tensor& tensor, int64_t count, const Tensor& like, const char* name) {
  return column_of<T>(tensor, count, scalar_type_of<T>(), like, name);
}

// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
SelectionTensors new_selection(const Problem& problem, const Tensor& like) {
  const int64_t rows = problem.anchors.embedding.rows;
  const auto type = scalar_type_of<T>();
  return {new_empty(like, {rows, problem.intra.k}, ScalarType::Long),
          new_empty(like, {rows, problem.intra.k}, type),
          new_empty(like, {rows, problem.cross.k}, ScalarType::Long),
          new_empty(like, {rows, problem.cross.k}, type)};
}

template <typename T>
SelectionArrays<T> arrays_of(const SelectionTensors& selection) {
  return {data_of<int64_t>(std::get<0>(selection)), data_of<T>(std::get<1>(selection)),
          data_of<int64_t>(std::get<2>(selection)), data_of<T>(std::get<3>(selection))};
}

template <typename Backend>
SelectionTensors select_negatives_op(
    const Tensor& anchors, const Tensor& video, const Tensor& time,
    const std::optional<Tensor>& patient, const std::vector<Tensor>& keys,
    const std::vector<Tensor>& key_video, const std::vector<Tensor>& key_time,
    const std::vector<Tensor>& key_patient, const std::optional<Tensor>& window, int64_t intra_k,
    int64_t cross_k, int64_t intra_skip, int64_t cross_skip, std::optional<double> max_similarity) {
  const SelectionArguments arguments(anchors, video, time, patient, keys, key_video, key_time,
                                     key_patient, window, intra_k, cross_k, intra_skip, cross_skip,
                                     max_similarity);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const SelectionTensors selection = new_selection<T>(arguments.problem(), anchors);
    Backend(anchors.get_device_index())
        .select_negatives(arguments.problem(), arrays_of<T>(selection));
    return selection;
  };
  return arguments.double_precision() ? run(double{}) : run(float{});
}

template <typename Backend>
Tensor similarities_op(const Tensor& anchors, const Tensor& keys, const Tensor& index) {
  STD_TORCH_CHECK(anchors.dim() == 2 && anchors.size(1) >= 1, "anchors must have shape [N, D]");
  STD_TORCH_CHECK(index.dim() == 2 && index.size(0) == anchors.size(0),
                  "index must have shape [N, C]");
  const int64_t dim = anchors.size(1);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Tensor similarity =
        new_empty(anchors, {index.size(0), index.size(1)}, scalar_type_of<T>());
    Backend(anchors.get_device_index())
        .similarities(ScoredPairs<T>{
            matrix_of(anchors, dim, anchors, "anchors"), matrix_of(keys, dim, anchors, "keys"),
            column_of<int64_t>(index, index.numel(), ScalarType::Long, anchors, "index"),
            index.size(1), data_of<T>(similarity)});
    return similarity;
  };
  const bool in_double =
      anchors.scalar_type() == ScalarType::Double || keys.scalar_type() == ScalarType::Double;
  return in_double ? run(double{}) : run(float{});
}

// loss, the selection's four, anchor_gradient, positive_weight, intra_weight, cross_weight,
// temperature_gradient
using ForwardTensors =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename Backend, typename T>
ForwardTensors forward(const Problem& problem, const Tensor& anchors, const Tensor& positives,
                       const Tensor& temperature, const std::optional<Tensor>& soft_nn_temperature,
                       Reduction reduction, bool anchors_need_gradient) {
  const auto type = scalar_type_of<T>();
  const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
  const int64_t num_positives = positives.size(1);
  const LossArguments<T> arguments{
      matrix_of(positives, dim, anchors, "positives"), num_positives,
      values_of<T>(temperature, 1, anchors, "temperature"),
      soft_nn_temperature ? values_of<T>(*soft_nn_temperature, 1, anchors, "soft_nn_temperature")
                          : nullptr};

  const SelectionTensors selection = new_selection<T>(problem, anchors);
  const Tensor row_loss = new_empty(anchors, {rows}, type);
  const Tensor anchor_gradient = new_empty(anchors, {anchors_need_gradient ? rows : 0, dim}, type);
  const Tensor positive_weight = new_empty(anchors, {rows, num_positives}, type);
  const Tensor intra_weight = new_empty(anchors, {rows, problem.intra.k}, type);
  const Tensor cross_weight = new_empty(anchors, {rows, problem.cross.k}, type);
  const Tensor temperature_gradient = new_empty(anchors, {rows, 2}, type);
  Backend backend(anchors.get_device_index());
  backend.hard_negative_nce(problem, arguments,
                            LossArrays<T>{
                                arrays_of<T>(selection),
                                data_of<T>(row_loss),
                                anchors_need_gradient ? data_of<T>(anchor_gradient) : nullptr,
                                data_of<T>(positive_weight),
                                data_of<T>(intra_weight),
                                data_of<T>(cross_weight),
                                data_of<T>(temperature_gradient),
                            });

  Tensor loss = row_loss;
  if (reduction != Reduction::kNone) {
    loss = new_empty(anchors, {}, type);
    const int64_t divisor = reduction == Reduction::kMean ? std::max<int64_t>(rows, 1) : 1;
    backend.sum_rows(data_of<T>(row_loss), rows, static_cast<double>(divisor), data_of<T>(loss));
  }
  return std::tuple_cat(std::make_tuple(loss), selection,
                        std::make_tuple(anchor_gradient, positive_weight, intra_weight,
                                        cross_weight, temperature_gradient));
}

template <typename Backend>
ForwardTensors hard_negative_nce_op(
    const Tensor& anchors, const Tensor& video, const Tensor& time,
    const std::optional<Tensor>& patient, const std::vector<Tensor>& keys,
    const std::vector<Tensor>& key_video, const std::vector<Tensor>& key_time,
    const std::vector<Tensor>& key_patient, const std::optional<Tensor>& window, int64_t intra_k,
    int64_t cross_k, int64_t intra_skip, int64_t cross_skip, std::optional<double> max_similarity,
    const Tensor& positives, const Tensor& temperature,
    const std::optional<Tensor>& soft_nn_temperature, int64_t reduction,
    bool anchors_need_gradient) {
  const SelectionArguments arguments(anchors, video, time, patient, keys, key_video, key_time,
                                     key_patient, window, intra_k, cross_k, intra_skip, cross_skip,
                                     max_similarity);
  STD_TORCH_CHECK(
      positives.dim() == 3 && positives.size(0) == anchors.size(0) && positives.size(1) >= 1,
      "positives must have shape [N, R, D] with R >= 1");
  const bool in_double =
      arguments.double_precision() || positives.scalar_type() == ScalarType::Double;
  const auto run = in_double ? &forward<Backend, double> : &forward<Backend, float>;
  return run(arguments.problem(), anchors, positives, temperature, soft_nn_temperature,
             static_cast<Reduction>(reduction), anchors_need_gradient);
}

// grad_anchors, grad_positives, grad_temperatures, grad_keys
using BackwardTensors = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

template <typename Backend, typename T>
BackwardTensors backward(const Tensor& grad_loss, Reduction reduction, const Tensor& anchors,
                         const Tensor& anchor_gradient, const Tensor& positive_weight,
                         const Tensor& intra_index, const Tensor& intra_weight,
                         const Tensor& cross_index, const Tensor& cross_weight,
                         const Tensor& temperature_gradient, const std::vector<int64_t>& first_key,
                         const std::vector<int64_t>& num_keys) {
  const auto type = scalar_type_of<T>();
  const int64_t rows = anchors.size(0), dim = anchors.size(1);
  const int64_t num_positives = positive_weight.size(1);
  const bool by_row = reduction == Reduction::kNone;
  const auto pairs = [&](const Tensor& index, const Tensor& weight) {
    const int64_t k = index.size(1);
    return WeightedPairs<T>{column_of<int64_t>(index, rows * k, ScalarType::Long, anchors, "index"),
                            values_of<T>(weight, rows * k, anchors, "weight"), k};
  };
  const BackwardArguments<T> arguments{
      {values_of<T>(grad_loss, by_row ? rows : 1, anchors, "grad_loss"), by_row ? 1 : 0,
       reduction == Reduction::kMean ? static_cast<T>(rows) : T(1)},
      matrix_of(anchors, dim, anchors, "anchors"),
      anchor_gradient.size(0) == rows
          ? values_of<T>(anchor_gradient, rows * dim, anchors, "anchor_gradient")
          : nullptr,
      values_of<T>(positive_weight, rows * num_positives, anchors, "positive_weight"),
      num_positives,
      values_of<T>(temperature_gradient, 2 * rows, anchors, "temperature_gradient"),
      pairs(intra_index, intra_weight),
      pairs(cross_index, cross_weight)};

  const Tensor grad_anchors = new_empty(anchors, {anchor_gradient.size(0), dim}, type);
  const Tensor grad_positives = new_empty(anchors, {rows, num_positives, dim}, type);
  const Tensor grad_temperatures = new_empty(anchors, {2}, type);
  Backend backend(anchors.get_device_index());
  backend.hard_negative_nce_backward(
      arguments, BackwardArrays<T>{data_of<T>(grad_anchors), data_of<T>(grad_positives),
                                   data_of<T>(grad_temperatures)});
  std::vector<Tensor> grad_keys;
  for (size_t b = 0; b < first_key.size(); ++b) {
    grad_keys.push_back(new_empty(anchors, {num_keys[b], dim}, type));
    backend.key_gradient(arguments,
                         KeyGradient<T>{first_key[b], num_keys[b], data_of<T>(grad_keys.back())});
  }
  return {grad_anchors, grad_positives, grad_temperatures, grad_keys};
}

template <typename Backend>
BackwardTensors hard_negative_nce_backward_op(const Tensor& grad_loss, int64_t reduction,
                                              const Tensor& anchors, const Tensor& anchor_gradient,
                                              const Tensor& positive_weight,
                                              const Tensor& intra_index, const Tensor& intra_weight,
                                              const Tensor& cross_index, const Tensor& cross_weight,
                                              const Tensor& temperature_gradient,
                                              const std::vector<int64_t>& first_key,
                                              const std::vector<int64_t>& num_keys) {
  STD_TORCH_CHECK(first_key.size() == num_keys.size(), "first_key and num_keys must pair up");
  const bool in_double = positive_weight.scalar_type() == ScalarType::Double;
  const auto run = in_double ? &backward<Backend, double> : &backward<Backend, float>;
  return run(grad_loss, static_cast<Reduction>(reduction), anchors, anchor_gradient,
             positive_weight, intra_index, intra_weight, cross_index, cross_weight,
             temperature_gradient, first_key, num_keys);
}

}  // namespace usucl

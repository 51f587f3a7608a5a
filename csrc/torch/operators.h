// The operators of schemas.cpp on any device: tensors in, new tensors out. core/calls.h says what a
// backend is.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>
#include <vector>

#include "../core/calls.h"

namespace usucl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ElementType element_type_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return ElementType::kFloat32;
    case ScalarType::Double:
      return ElementType::kFloat64;
    case ScalarType::BFloat16:
      return ElementType::kBFloat16;
    case ScalarType::Half:
      return ElementType::kFloat16;
    case ScalarType::Long:
      return ElementType::kInt64;
    default:
      STD_TORCH_CHECK(false, "inputs must be float32, float64, bfloat16, float16 or int64");
  }
}

inline std::vector<Array> arrays_of(const std::vector<Tensor>& tensors) {
  STD_TORCH_CHECK(!tensors.empty() && tensors[0].dim() == 2 && tensors[0].size(1) >= 1,
                  "anchors must have shape [N, D]");
  std::vector<Array> arrays;
  for (const Tensor& tensor : tensors) {
    STD_TORCH_CHECK(tensor.is_contiguous(), "inputs must be contiguous");
    arrays.push_back({tensor.const_data_ptr(), element_type_of(tensor), tensor.numel(),
                      tensor.get_device_index()});
  }
  return arrays;
}

inline Options options_of(const std::vector<int64_t>& ranks, double max_similarity,
                          int64_t reduction) {
  STD_TORCH_CHECK(ranks.size() == 4, "ranks must have 4 values, got ", ranks.size());
  return {{ranks[0], ranks[1]},
          {ranks[2], ranks[3]},
          max_similarity,
          static_cast<Reduction>(reduction)};
}

template <typename T>
constexpr ScalarType scalar_type_of() {
  return sizeof(T) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
}

template <typename T>
Tensor new_empty(const Tensor& like, std::vector<int64_t> shape) {
  const auto type = std::is_same_v<T, int64_t> ? ScalarType::Long : scalar_type_of<T>();
  return torch::stable::new_empty(like, shape, type);
}

template <typename T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
SelectionTensors new_selection(const Problem& problem, const Tensor& like) {
  const int64_t rows = problem.anchors.embedding.rows;
  return {new_empty<int64_t>(like, {rows, problem.intra.k}),
          new_empty<T>(like, {rows, problem.intra.k}),
          new_empty<int64_t>(like, {rows, problem.cross.k}),
          new_empty<T>(like, {rows, problem.cross.k})};
}

template <typename T>
SelectionArrays<T> pointers_to(const SelectionTensors& selection) {
  return {data_of<int64_t>(std::get<0>(selection)), data_of<T>(std::get<1>(selection)),
          data_of<int64_t>(std::get<2>(selection)), data_of<T>(std::get<3>(selection))};
}

template <typename Backend>
SelectionTensors select_negatives_op(const std::vector<Tensor>& inputs,
                                     const std::vector<int64_t>& ranks, double max_similarity) {
  const std::vector<Array> arrays = arrays_of(inputs);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Inputs<T> read(arrays, inputs[0].size(1), options_of(ranks, max_similarity, 0));
    const SelectionTensors selection = new_selection<T>(read.problem, inputs[0]);
    Backend(inputs[0].get_device_index()).select_negatives(read.problem, pointers_to<T>(selection));
    return selection;
  };
  return in_double(arrays) ? run(double{}) : run(float{});
}

template <typename Backend>
Tensor similarities_op(const Tensor& anchors, const Tensor& keys, const Tensor& index) {
  STD_TORCH_CHECK(index.dim() == 2 && keys.dim() == 2, "keys and index must have two dimensions");
  const std::vector<Array> arrays = arrays_of(std::vector<Tensor>{anchors, keys, index});
  const int64_t rows = anchors.size(0), dim = anchors.size(1), per_anchor = index.size(1);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    ArrayReader reader(arrays);
    const Tensor similarity = new_empty<T>(anchors, {rows, per_anchor});
    const Matrix query = reader.matrix("anchors", rows, dim);
    const Matrix key = reader.matrix("keys", keys.size(0), dim);
    Backend(anchors.get_device_index())
        .similarities(ScoredPairs<T>{query, key,
                                     reader.required<int64_t>("index", rows * per_anchor),
                                     per_anchor, data_of<T>(similarity)});
    return similarity;
  };
  return in_double(arrays) ? run(double{}) : run(float{});
}

// loss, the selection's four, anchor_gradient, weights
using LossTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename Backend>
LossTensors hard_negative_nce_op(const std::vector<Tensor>& inputs,
                                 const std::vector<int64_t>& ranks, double max_similarity,
                                 int64_t reduction, bool anchors_need_gradient) {
  const std::vector<Array> arrays = arrays_of(inputs);
  const Tensor& anchors = inputs[0];
  const int64_t rows = anchors.size(0), dim = anchors.size(1);
  const Options options = options_of(ranks, max_similarity, reduction);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const Inputs<T> read(arrays, dim, options);
    const bool by_row = options.reduction == Reduction::kNone;
    const Tensor loss =
        new_empty<T>(anchors, by_row ? std::vector<int64_t>{rows} : std::vector<int64_t>{});
    const SelectionTensors selection = new_selection<T>(read.problem, anchors);
    const Tensor gradient = new_empty<T>(anchors, {anchors_need_gradient ? rows : 0, dim});
    const Tensor weights = new_empty<T>(
        anchors,
        {Weights<T>::count(rows, read.loss.num_positives, options.intra.k, options.cross.k)});
    Backend backend(anchors.get_device_index());
    compute_loss(backend, read, options.reduction,
                 LossOutputs<T>{data_of<T>(loss), pointers_to<T>(selection),
                                anchors_need_gradient ? data_of<T>(gradient) : nullptr,
                                data_of<T>(weights)});
    return std::tuple_cat(std::make_tuple(loss), selection, std::make_tuple(gradient, weights));
  };
  return in_double(arrays) ? run(double{}) : run(float{});
}

// grad_anchors, grad_positives, grad_temperatures, grad_keys
using GradientTensors = std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>>;

template <typename Backend>
GradientTensors hard_negative_nce_backward_op(const Tensor& grad_loss, int64_t reduction,
                                              const Tensor& anchors, const Tensor& anchor_gradient,
                                              const Tensor& weights, const Tensor& intra_index,
                                              const Tensor& cross_index, int64_t num_positives,
                                              const std::vector<int64_t>& first_key,
                                              const std::vector<int64_t>& num_keys) {
  STD_TORCH_CHECK(first_key.size() == num_keys.size(), "num_keys must be as long as first_key");
  const std::vector<Array> arrays = arrays_of(
      std::vector<Tensor>{anchors, grad_loss, anchor_gradient, weights, intra_index, cross_index});
  const int64_t rows = anchors.size(0), dim = anchors.size(1);
  const int64_t intra_k = intra_index.size(1), cross_k = cross_index.size(1);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const bool by_row = static_cast<Reduction>(reduction) == Reduction::kNone;
    ArrayReader reader(arrays);
    const Matrix query = reader.matrix("anchors", rows, dim);
    const T* upstream = reader.required<T>("grad_loss", by_row ? rows : 1);
    const T* gradient = reader.optional<T>("anchor_gradient", rows * dim);
    reader.required<T>("weights", Weights<T>::count(rows, num_positives, intra_k, cross_k));
    const auto* intra = reader.required<int64_t>("intra_index", rows * intra_k);
    const auto* cross = reader.required<int64_t>("cross_index", rows * cross_k);
    const SavedLoss<T> saved{upstream,      query,
                             gradient,      data_of<T>(weights),
                             intra,         cross,
                             num_positives, intra_k,
                             cross_k,       static_cast<Reduction>(reduction)};
    const Tensor grad_anchors = new_empty<T>(anchors, {anchor_gradient.size(0), dim});
    const Tensor grad_positives = new_empty<T>(anchors, {rows, num_positives, dim});
    const Tensor grad_temperatures = new_empty<T>(anchors, {2});
    std::vector<Tensor> grad_keys;
    std::vector<KeyGradient<T>> wanted;
    for (size_t b = 0; b < first_key.size(); ++b) {
      grad_keys.push_back(new_empty<T>(anchors, {num_keys[b], dim}));
      wanted.push_back({first_key[b], num_keys[b], data_of<T>(grad_keys.back())});
    }
    Backend backend(anchors.get_device_index());
    compute_gradients(backend, saved,
                      BackwardArrays<T>{data_of<T>(grad_anchors), data_of<T>(grad_positives),
                                        data_of<T>(grad_temperatures)},
                      wanted);
    return GradientTensors{grad_anchors, grad_positives, grad_temperatures, grad_keys};
  };
  return weights.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

}  // namespace usucl

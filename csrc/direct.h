// A backend's kernels by the addresses of tensors, past PyTorch's dispatcher, which takes many
// times the host time of the kernels themselves. Nothing is checked: usucl_ext/_direct.py alone
// calls these functions, with the tensors of a problem that it has checked.
//
// Backend: see operators.h. Here it also has array<T>(count), memory for the length of the call:
// what a caller does not want to keep is written to that.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "pybind.h"
#include "results.h"

namespace usucl {
namespace direct {

namespace py = pybind11;

using Address = uintptr_t;  // 0: absent

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// embedding [rows, D], its dtype, rows, video, time, patient
using FramesAt = std::tuple<Address, int, int64_t, Address, Address, Address>;
// PyTorch's index of the device, anchors, D, blocks, window, window per anchor?, intra_k,
// intra_skip, cross_k, cross_skip, max_similarity
using ProblemAt = std::tuple<int32_t, FramesAt, int64_t, std::vector<FramesAt>, Address, bool,
                             int64_t, int64_t, int64_t, int64_t, double>;
// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionAt = std::tuple<Address, Address, Address, Address>;
// first key, number of keys, gradient [number, D]
using KeyGradientAt = std::tuple<int64_t, int64_t, Address>;

inline Frames frames_at(const FramesAt& frames, int64_t dim) {
  const auto& [embedding, dtype, rows, video, time, patient] = frames;
  return {{at<void>(embedding), static_cast<DType>(dtype), rows, dim},
          at<const int64_t>(video),
          at<const float>(time),
          at<const int64_t>(patient)};
}

// Calls use(backend, problem), both of which live as long as that.
template <typename Backend, typename Use>
void with_problem(const ProblemAt& arguments, const Use& use) {
  const py::gil_scoped_release released;
  const auto& [device, anchors, dim, blocks_at, window, per_anchor, intra_k, intra_skip, cross_k,
               cross_skip, max_similarity] = arguments;
  std::vector<Frames> blocks;
  for (const FramesAt& block : blocks_at) blocks.push_back(frames_at(block, dim));
  Backend backend(device);
  use(backend, Problem{frames_at(anchors, dim),
                       blocks.data(),
                       static_cast<int64_t>(blocks.size()),
                       at<const float>(window),
                       per_anchor,
                       {intra_k, intra_skip},
                       {cross_k, cross_skip},
                       max_similarity});
}

template <typename T, typename Backend>
T* at_or_own(Address address, int64_t count, Backend& backend) {
  return address != 0 ? at<T>(address) : backend.template array<T>(count);
}

template <typename T, typename Backend>
SelectionArrays<T> selection_at(const SelectionAt& selection, const Problem& problem,
                                Backend& backend) {
  const auto& [intra_index, intra_similarity, cross_index, cross_similarity] = selection;
  const int64_t rows = problem.anchors.embedding.rows;
  return {at_or_own<int64_t>(intra_index, rows * problem.intra.k, backend),
          at_or_own<T>(intra_similarity, rows * problem.intra.k, backend),
          at_or_own<int64_t>(cross_index, rows * problem.cross.k, backend),
          at_or_own<T>(cross_similarity, rows * problem.cross.k, backend)};
}

// The weights of a call lie in one array: [N, R] of the positives, [N, intra_k], [N, cross_k], and
// [N, 2] of the temperatures.
template <typename T>
struct Weights {
  T* positive;
  T* intra;
  T* cross;
  T* temperature;

  Weights(T* all, int64_t rows, int64_t num_positives, int64_t intra_k, int64_t cross_k)
      : positive(all),
        intra(positive + rows * num_positives),
        cross(intra + rows * intra_k),
        temperature(cross + rows * cross_k) {}

  static int64_t count(int64_t rows, int64_t num_positives, int64_t intra_k, int64_t cross_k) {
    return rows * (num_positives + intra_k + cross_k + 2);
  }
};

template <typename Backend, typename T>
void select(const ProblemAt& arguments, const SelectionAt& selection) {
  with_problem<Backend>(arguments, [&](Backend& backend, const Problem& problem) {
    backend.select_negatives(problem, selection_at<T>(selection, problem, backend));
  });
}

// Addresses of the selection and of the weights may be 0; that of anchor_gradient where it is not
// wanted. divisor: of the sum of all rows' losses; 0 for the losses themselves.
template <typename Backend, typename T>
void forward(const ProblemAt& arguments, Address positives, int positives_dtype,
             int64_t num_positives, Address temperature, Address soft_nn_temperature,
             double divisor, Address loss, const SelectionAt& selection, Address anchor_gradient,
             Address weights) {
  with_problem<Backend>(arguments, [&](Backend& backend, const Problem& problem) {
    const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
    const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
    const int64_t num_weights = Weights<T>::count(rows, num_positives, intra_k, cross_k);
    const Weights<T> by(at_or_own<T>(weights, num_weights, backend), rows, num_positives, intra_k,
                        cross_k);
    T* losses = at_or_own<T>(divisor == 0 ? loss : 0, rows, backend);
    backend.hard_negative_nce(
        problem,
        LossArguments<T>{
            {at<void>(positives), static_cast<DType>(positives_dtype), rows * num_positives, dim},
            num_positives,
            at<const T>(temperature),
            at<const T>(soft_nn_temperature)},
        LossArrays<T>{selection_at<T>(selection, problem, backend), losses, at<T>(anchor_gradient),
                      by.positive, by.intra, by.cross, by.temperature});
    if (divisor != 0) backend.sum_rows(losses, rows, divisor, at<T>(loss));
  });
}

// Gradients whose address is 0 are not wanted; anchors, weights and indices may then be absent too,
// where only the others are made of them.
template <typename Backend, typename T>
void backward(int32_t device, Address grad_loss, double divisor, Address anchors, int anchors_dtype,
              int64_t rows, int64_t dim, Address anchor_gradient, Address weights,
              int64_t num_positives, Address intra_index, int64_t intra_k, Address cross_index,
              int64_t cross_k, Address grad_anchors, Address grad_positives,
              Address grad_temperatures,
              const std::vector<KeyGradientAt>& key_gradients) {
  const py::gil_scoped_release released;
  const Weights<T> by(at<T>(weights), rows, num_positives, intra_k, cross_k);
  const bool by_row = divisor == 0;
  const BackwardArguments<T> arguments{
      {at<const T>(grad_loss), by_row ? 1 : 0, by_row ? T(1) : static_cast<T>(divisor)},
      {at<void>(anchors), static_cast<DType>(anchors_dtype), rows, dim},
      at<const T>(anchor_gradient),
      by.positive,
      num_positives,
      by.temperature,
      {at<const int64_t>(intra_index), by.intra, intra_k},
      {at<const int64_t>(cross_index), by.cross, cross_k}};
  Backend backend(device);
  backend.hard_negative_nce_backward(
      arguments, BackwardArrays<T>{at<T>(grad_anchors), at<T>(grad_positives),
                                   at<T>(grad_temperatures)});
  for (const auto& [first_key, num_keys, gradient] : key_gradients) {
    backend.key_gradient(arguments, KeyGradient<T>{first_key, num_keys, at<T>(gradient)});
  }
}

}  // namespace direct

template <typename Backend>
void bind_direct_calls(pybind11::module_& module) {
  module.def("select_float32", &direct::select<Backend, float>);
  module.def("select_float64", &direct::select<Backend, double>);
  module.def("forward_float32", &direct::forward<Backend, float>);
  module.def("forward_float64", &direct::forward<Backend, double>);
  module.def("backward_float32", &direct::backward<Backend, float>);
  module.def("backward_float64", &direct::backward<Backend, double>);
}

}  // namespace usucl

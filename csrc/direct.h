// A backend's kernels by the addresses of tensors, past PyTorch's dispatcher, which takes many
// times the host time of the kernels themselves. Nothing is checked: usucl_ext/_direct.py alone
// calls these functions, with the tensors of a problem that it has checked.
//
// Backend: see operators.h. Here it also has array<T>(count), memory for the length of the call:
// what a caller does not want to keep is written to that.
#pragma once

#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "core/results.h"
#include "pybind.h"

namespace usucl {
namespace direct {

namespace py = pybind11;

using Address = uintptr_t;  // 0: absent

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// What a call is, beside the addresses of its tensors. The same for all calls that look alike.
struct Plan {
  int32_t device;  // as PyTorch numbers it; -1: the CPU
  int64_t dim;
  std::vector<std::pair<int, int64_t>>
      frames;  // dtype and rows of the anchors, then of every block
  bool window_per_anchor;
  Ranks intra;
  Ranks cross;
  double max_similarity;
  int positives_dtype;
  int64_t num_positives;  // R
  double divisor;         // of the sum of all rows' losses; 0 for the losses themselves
};

// The tensors that a call reads, one after the other: embedding, video, time and patient of the
// anchors and of every block, window, positives, temperature, soft_nn_temperature.
class Inputs {
 public:
  explicit Inputs(const std::vector<Address>& addresses) : next_(addresses.begin()) {}

  template <typename T>
  const T* next() {
    return at<const T>(*next_++);
  }

  Frames next_frames(std::pair<int, int64_t> dtype_and_rows, int64_t dim) {
    const auto [dtype, rows] = dtype_and_rows;
    const void* embedding = next<void>();
    const auto* video = next<int64_t>();
    const auto* time = next<float>();
    return {{embedding, static_cast<DType>(dtype), rows, dim}, video, time, next<int64_t>()};
  }

 private:
  std::vector<Address>::const_iterator next_;
};

// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionAt = std::tuple<Address, Address, Address, Address>;
// first key, number of keys, gradient [number, D]
using KeyGradientAt = std::tuple<int64_t, int64_t, Address>;

// Calls use(backend, problem, inputs), the inputs beyond those of the problem.
template <typename Backend, typename Use>
void with_problem(const Plan& plan, const std::vector<Address>& addresses, const Use& use) {
  const py::gil_scoped_release released;
  Inputs inputs(addresses);
  const Frames anchors = inputs.next_frames(plan.frames[0], plan.dim);
  std::vector<Frames> blocks;
  for (size_t b = 1; b < plan.frames.size(); ++b) {
    blocks.push_back(inputs.next_frames(plan.frames[b], plan.dim));
  }
  const Problem problem{anchors,
                        blocks.data(),
                        static_cast<int64_t>(blocks.size()),
                        inputs.next<float>(),
                        plan.window_per_anchor,
                        plan.intra,
                        plan.cross,
                        plan.max_similarity};
  Backend backend(plan.device);
  use(backend, problem, inputs);
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
void select(const Plan& plan, const std::vector<Address>& inputs, const SelectionAt& selection) {
  with_problem<Backend>(plan, inputs, [&](Backend& backend, const Problem& problem, Inputs&) {
    backend.select_negatives(problem, selection_at<T>(selection, problem, backend));
  });
}

// Outputs whose address is 0 are not kept, and the anchors' gradient is not computed then.
template <typename Backend, typename T>
void forward(const Plan& plan, const std::vector<Address>& inputs, Address loss,
             const SelectionAt& selection, Address anchor_gradient, Address weights) {
  with_problem<Backend>(plan, inputs, [&](Backend& backend, const Problem& problem, Inputs& rest) {
    const int64_t rows = problem.anchors.embedding.rows, num_positives = plan.num_positives;
    const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
    const void* positives = rest.next<void>();
    const T* temperature = rest.next<T>();
    const LossArguments<T> arguments{
        {positives, static_cast<DType>(plan.positives_dtype), rows * num_positives, plan.dim},
        num_positives,
        temperature,
        rest.next<T>()};
    const int64_t num_weights = Weights<T>::count(rows, num_positives, intra_k, cross_k);
    const Weights<T> by(at_or_own<T>(weights, num_weights, backend), rows, num_positives, intra_k,
                        cross_k);
    T* losses = at_or_own<T>(plan.divisor == 0 ? loss : 0, rows, backend);
    backend.hard_negative_nce(
        problem, arguments,
        LossArrays<T>{selection_at<T>(selection, problem, backend), losses, at<T>(anchor_gradient),
                      by.positive, by.intra, by.cross, by.temperature});
    if (plan.divisor != 0) backend.sum_rows(losses, rows, plan.divisor, at<T>(loss));
  });
}

// Gradients whose address is 0 are not wanted; what only those are made of may be absent too.
template <typename Backend, typename T>
void backward(const Plan& plan, Address grad_loss, Address anchors, Address anchor_gradient,
              Address weights, Address intra_index, Address cross_index, Address grad_anchors,
              Address grad_positives, Address grad_temperatures,
              const std::vector<KeyGradientAt>& key_gradients) {
  const py::gil_scoped_release released;
  const auto [anchors_dtype, rows] = plan.frames[0];
  const Weights<T> by(at<T>(weights), rows, plan.num_positives, plan.intra.k, plan.cross.k);
  const bool by_row = plan.divisor == 0;
  const BackwardArguments<T> arguments{
      {at<const T>(grad_loss), by_row ? 1 : 0, by_row ? T(1) : static_cast<T>(plan.divisor)},
      {at<void>(anchors), static_cast<DType>(anchors_dtype), rows, plan.dim},
      at<const T>(anchor_gradient),
      by.positive,
      plan.num_positives,
      by.temperature,
      {at<const int64_t>(intra_index), by.intra, plan.intra.k},
      {at<const int64_t>(cross_index), by.cross, plan.cross.k}};
  Backend backend(plan.device);
  backend.hard_negative_nce_backward(
      arguments,
      BackwardArrays<T>{at<T>(grad_anchors), at<T>(grad_positives), at<T>(grad_temperatures)});
  for (const auto& [first_key, num_keys, gradient] : key_gradients) {
    backend.key_gradient(arguments, KeyGradient<T>{first_key, num_keys, at<T>(gradient)});
  }
}

}  // namespace direct

template <typename Backend>
void bind_direct_calls(pybind11::module_& module) {
  namespace py = pybind11;
  using direct::Plan;
  py::class_<Plan>(module, "Plan", py::module_local())
      .def(py::init([](int32_t device, int64_t dim, std::vector<std::pair<int, int64_t>> frames,
                       bool window_per_anchor, int64_t intra_k, int64_t intra_skip, int64_t cross_k,
                       int64_t cross_skip, double max_similarity, int positives_dtype,
                       int64_t num_positives, double divisor) {
             return Plan{device,
                         dim,
                         std::move(frames),
                         window_per_anchor,
                         {intra_k, intra_skip},
                         {cross_k, cross_skip},
                         max_similarity,
                         positives_dtype,
                         num_positives,
                         divisor};
           }),
           py::arg("device"), py::arg("dim"), py::arg("frames"), py::arg("window_per_anchor"),
           py::arg("intra_k"), py::arg("intra_skip"), py::arg("cross_k"), py::arg("cross_skip"),
           py::arg("max_similarity"), py::arg("positives_dtype"), py::arg("num_positives"),
           py::arg("divisor"));
  module.def("select_float32", &direct::select<Backend, float>);
  module.def("select_float64", &direct::select<Backend, double>);
  module.def("forward_float32", &direct::forward<Backend, float>);
  module.def("forward_float64", &direct::forward<Backend, double>);
  module.def("backward_float32", &direct::backward<Backend, float>);
  module.def("backward_float64", &direct::backward<Backend, double>);
}

}  // namespace usucl

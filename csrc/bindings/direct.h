// Calls a backend's kernels with the addresses of tensors. This bypasses PyTorch's dispatcher,
// which takes many times the host time of the kernels themselves. Only usucl_ext/_direct.py calls
// these functions, with tensors of the dtypes and sizes of their plan.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "../core/calls.h"
#include "pybind.h"

namespace usucl {
namespace direct {

namespace py = pybind11;

using Address = uintptr_t;  // 0: absent

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// What all calls with the same plan have in common.
struct Plan {
  int32_t device;  // as PyTorch numbers it; -1: the CPU
  int64_t dim;
  std::vector<Array> arrays;  // what a call reads, without the addresses
  Options options;

  Plan(int32_t device_number, int64_t dimension,
       const std::vector<std::pair<int, int64_t>>& types_and_counts,
       const std::vector<int64_t>& ranks, double max_similarity, int64_t reduction)
      : device(device_number),
        dim(dimension),
        options{{ranks.at(0), ranks.at(1)},
                {ranks.at(2), ranks.at(3)},
                max_similarity,
                static_cast<Reduction>(reduction)} {
    for (const auto& [type, count] : types_and_counts) {
      arrays.push_back({nullptr, static_cast<ElementType>(type), count, device});
    }
  }

  template <typename T>
  Inputs<T> inputs_at(const std::vector<Address>& addresses) const {
    std::vector<Array> placed = arrays;
    for (size_t i = 0; i < placed.size(); ++i) placed[i].data = at<void>(addresses.at(i));
    return Inputs<T>(placed, dim, options);
  }

  // Calls use(T{}) for the dtype T of similarities and loss while other Python threads may run.
  template <typename Use>
  void run(const Use& use) const {
    const py::gil_scoped_release released;
    in_double(arrays) ? use(double{}) : use(float{});
  }
};

// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionAt = std::tuple<Address, Address, Address, Address>;
// first key, number of keys, gradient [number, D]
using KeyGradientAt = std::tuple<int64_t, int64_t, Address>;

template <typename T>
SelectionArrays<T> selection_at(const SelectionAt& selection) {
  const auto& [intra_index, intra_similarity, cross_index, cross_similarity] = selection;
  return {at<int64_t>(intra_index), at<T>(intra_similarity), at<int64_t>(cross_index),
          at<T>(cross_similarity)};
}

template <typename Backend>
void select(const Plan& plan, const std::vector<Address>& addresses, const SelectionAt& selection) {
  plan.run([&](auto zero) {
    using T = decltype(zero);
    const Inputs<T> inputs = plan.inputs_at<T>(addresses);
    Backend(plan.device).select_negatives(inputs.problem, selection_at<T>(selection));
  });
}

// Outputs whose address is 0 are not kept; without anchor_gradient it is not computed.
template <typename Backend>
void forward(const Plan& plan, const std::vector<Address>& addresses, Address loss,
             const SelectionAt& selection, Address anchor_gradient, Address weights) {
  plan.run([&](auto zero) {
    using T = decltype(zero);
    const Inputs<T> inputs = plan.inputs_at<T>(addresses);
    Backend backend(plan.device);
    compute_loss(backend, inputs, plan.options.reduction,
                 LossOutputs<T>{at<T>(loss), selection_at<T>(selection), at<T>(anchor_gradient),
                                at<T>(weights)});
  });
}

// Gradients whose address is 0 are not wanted; inputs that only they need may be absent too.
template <typename Backend>
void backward(const Plan& plan, Address grad_loss, Address anchors, Address anchor_gradient,
              Address weights, Address intra_index, Address cross_index, int64_t num_positives,
              Address grad_anchors, Address grad_positives, Address grad_temperatures,
              const std::vector<KeyGradientAt>& key_gradients) {
  plan.run([&](auto zero) {
    using T = decltype(zero);
    const Array& embedding = plan.arrays.at(0);
    const SavedLoss<T> saved{
        at<const T>(grad_loss),
        {at<void>(anchors), embedding.dtype(), embedding.count / plan.dim, plan.dim},
        at<const T>(anchor_gradient),
        at<T>(weights),
        at<const int64_t>(intra_index),
        at<const int64_t>(cross_index),
        num_positives,
        plan.options.intra.k,
        plan.options.cross.k,
        plan.options.reduction};
    std::vector<KeyGradient<T>> wanted;
    for (const auto& [first_key, num_keys, gradient] : key_gradients) {
      wanted.push_back({first_key, num_keys, at<T>(gradient)});
    }
    Backend backend(plan.device);
    compute_gradients(
        backend, saved,
        BackwardArrays<T>{at<T>(grad_anchors), at<T>(grad_positives), at<T>(grad_temperatures)},
        wanted);
  });
}

}  // namespace direct

template <typename Backend>
void bind_direct_calls(pybind11::module_& module) {
  namespace py = pybind11;
  using direct::Plan;
  py::class_<Plan>(module, "Plan", py::module_local())
      .def(py::init<int32_t, int64_t, const std::vector<std::pair<int, int64_t>>&,
                    const std::vector<int64_t>&, double, int64_t>(),
           py::arg("device"), py::arg("dim"), py::arg("arrays"), py::arg("ranks"),
           py::arg("max_similarity"), py::arg("reduction"));
  module.def("select", &direct::select<Backend>);
  module.def("forward", &direct::forward<Backend>);
  module.def("backward", &direct::backward<Backend>);
}

}  // namespace usucl

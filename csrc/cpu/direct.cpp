// The CPU kernels by the addresses of tensors, past PyTorch's dispatcher: for small problems that
// costs ten times what the kernels do. Nothing is checked: usucl_ext/_direct.py alone calls these,
// with the tensors of a problem that was.
#include "direct.h"

#include <memory>
#include <tuple>
#include <vector>

#include "gradient.h"
#include "loss.h"
#include "select.h"

namespace usucl::cpu {
namespace {

namespace py = pybind11;

using Address = uintptr_t;  // 0: absent

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// embedding [rows, D], its dtype, rows, video, time, patient
using FramesAt = std::tuple<Address, int, int64_t, Address, Address, Address>;
// anchors, D, blocks, window, window per anchor?, intra_k, intra_skip, cross_k, cross_skip,
// max_similarity
using ProblemAt = std::tuple<FramesAt, int64_t, std::vector<FramesAt>, Address, bool, int64_t,
                             int64_t, int64_t, int64_t, double>;
// intra_index, intra_similarity, cross_index, cross_similarity
using SelectionAt = std::tuple<Address, Address, Address, Address>;

Frames frames_at(const FramesAt& frames, int64_t dim) {
  const auto& [embedding, dtype, rows, video, time, patient] = frames;
  return {{at<void>(embedding), static_cast<DType>(dtype), rows, dim},
          at<const int64_t>(video),
          at<const float>(time),
          at<const int64_t>(patient)};
}

// Calls use(problem), whose blocks live as long as that.
template <typename Use>
void with_problem(const ProblemAt& arguments, const Use& use) {
  const auto& [anchors, dim, blocks_at, window, per_anchor, intra_k, intra_skip, cross_k,
               cross_skip, max_similarity] = arguments;
  std::vector<Frames> blocks;
  for (const FramesAt& block : blocks_at) blocks.push_back(frames_at(block, dim));
  use(Problem{frames_at(anchors, dim),
              blocks.data(),
              static_cast<int64_t>(blocks.size()),
              at<const float>(window),
              per_anchor,
              {intra_k, intra_skip},
              {cross_k, cross_skip},
              max_similarity});
}

// What a caller does not want to keep is written all the same, to memory of this call.
template <typename T>
class Scratch {
 public:
  T* or_own(Address address, int64_t count) {
    if (address != 0) return at<T>(address);
    own_.emplace_back(new T[count]);
    return own_.back().get();
  }

 private:
  std::vector<std::unique_ptr<T[]>> own_;
};

template <typename T>
SelectionArrays<T> selection_at(const SelectionAt& selection, const Problem& problem,
                                Scratch<int64_t>* indices, Scratch<T>* similarities) {
  const auto& [intra_index, intra_similarity, cross_index, cross_similarity] = selection;
  const int64_t rows = problem.anchors.embedding.rows;
  return {indices->or_own(intra_index, rows * problem.intra.k),
          similarities->or_own(intra_similarity, rows * problem.intra.k),
          indices->or_own(cross_index, rows * problem.cross.k),
          similarities->or_own(cross_similarity, rows * problem.cross.k)};
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
};

template <typename T>
void select(const ProblemAt& problem, const SelectionAt& selection) {
  const py::gil_scoped_release released;
  with_problem(problem, [&](const Problem& p) {
    Scratch<int64_t> indices;
    Scratch<T> values;
    select_negatives<T>(p, nullptr, selection_at<T>(selection, p, &indices, &values));
  });
}

// Addresses of the selection and of the weights may be 0; that of anchor_gradient where it is not
// wanted. divisor: of the sum of all rows' losses; 0 for the losses themselves.
template <typename T>
void forward(const ProblemAt& problem, Address positives, int positives_dtype,
             int64_t num_positives, Address temperature, Address soft_nn_temperature,
             double divisor, Address loss, const SelectionAt& selection, Address anchor_gradient,
             Address weights) {
  const py::gil_scoped_release released;
  with_problem(problem, [&](const Problem& p) {
    const int64_t rows = p.anchors.embedding.rows, dim = p.anchors.embedding.dim;
    const LossArguments<T> arguments{
        {at<void>(positives), static_cast<DType>(positives_dtype), rows * num_positives, dim},
        num_positives,
        at<const T>(temperature),
        at<const T>(soft_nn_temperature)};
    Scratch<int64_t> indices;
    Scratch<T> values;
    const int64_t pairs = num_positives + p.intra.k + p.cross.k;
    const Weights<T> by(values.or_own(weights, rows * (pairs + 2)), rows, num_positives, p.intra.k,
                        p.cross.k);
    T* losses = values.or_own(divisor == 0 ? loss : 0, rows);
    hard_negative_nce<T>(p, arguments,
                         {selection_at<T>(selection, p, &indices, &values), losses,
                          at<T>(anchor_gradient), by.positive, by.intra, by.cross, by.temperature});
    if (divisor != 0) sum_rows(losses, rows, divisor, at<T>(loss));
  });
}

// All gradients but that of the anchors, which is only scaled. key_ranges: first key, number of
// keys, and where their gradient goes.
template <typename T>
void backward(Address grad_loss, double divisor, Address anchors, int anchors_dtype, int64_t rows,
              int64_t dim, int64_t num_positives, Address weights, Address intra_index,
              int64_t intra_k, Address cross_index, int64_t cross_k, Address grad_positives,
              Address grad_temperatures,
              const std::vector<std::tuple<int64_t, int64_t, Address>>& key_ranges) {
  const py::gil_scoped_release released;
  const Weights<T> by(at<T>(weights), rows, num_positives, intra_k, cross_k);
  const bool by_row = divisor == 0;
  const BackwardArguments<T> arguments{
      {at<const T>(grad_loss), by_row ? 1 : 0, by_row ? T(1) : static_cast<T>(divisor)},
      {at<void>(anchors), static_cast<DType>(anchors_dtype), rows, dim},
      nullptr,
      by.positive,
      num_positives,
      by.temperature,
      {at<const int64_t>(intra_index), by.intra, intra_k},
      {at<const int64_t>(cross_index), by.cross, cross_k}};
  hard_negative_nce_backward<T>(arguments,
                                {nullptr, at<T>(grad_positives), at<T>(grad_temperatures)});
  for (const auto& [first_key, num_keys, gradient] : key_ranges) {
    key_gradient<T>(arguments, {first_key, num_keys, at<T>(gradient)});
  }
}

}  // namespace

void bind_direct_calls(py::module_& module) {
  module.def("select_float32", &select<float>);
  module.def("select_float64", &select<double>);
  module.def("forward_float32", &forward<float>);
  module.def("forward_float64", &forward<double>);
  module.def("backward_float32", &backward<float>);
  module.def("backward_float64", &backward<double>);
}

}  // namespace usucl::cpu

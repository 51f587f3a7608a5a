// What a call does with its inputs, using the kernels of any device. A backend provides:
//
//   Backend(device)     one call on the device with PyTorch's index, -1 for the CPU
//   array<T>(count)     memory that lives as long as the call
//   select_negatives(problem, SelectionArrays<T>)
//   similarities(ScoredPairs<T>)
//   hard_negative_nce(problem, LossArguments<T>, LossArrays<T>)
//   sum_rows(loss [N], N, divisor, total [])
//   hard_negative_nce_backward(BackwardArguments<T>, BackwardArrays<T>)
//   key_gradient(BackwardArguments<T>, KeyGradient<T>)
#pragma once

#include <vector>

#include "inputs.h"

namespace usucl {

// What a loss writes. Everything but the loss may be null if the caller does not want it.
template <typename T>
struct LossOutputs {
  T* loss;  // [N], or [] if it is reduced
  SelectionArrays<T> selection;
  T* anchor_gradient;  // [N, D] d loss_i / d q_i
  T* weights;          // see Weights
};

inline double divisor_of(Reduction reduction, int64_t rows) {
  return reduction == Reduction::kMean ? static_cast<double>(std::max<int64_t>(rows, 1)) : 1;
}

template <typename Backend, typename T>
void compute_loss(Backend& backend, const Inputs<T>& inputs, Reduction reduction,
                  const LossOutputs<T>& out) {
  const Problem& problem = inputs.problem;
  const int64_t rows = problem.anchors.embedding.rows;
  const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
  const int64_t num_positives = inputs.loss.num_positives;
  if (inputs.loss.temperature == nullptr || num_positives < 1) {
    throw std::runtime_error("positives and temperature must be given");
  }
  const auto given_or_own = [&](auto* given, int64_t count) {
    using Value = std::remove_pointer_t<decltype(given)>;
    return given != nullptr ? given : backend.template array<Value>(count);
  };
  const SelectionArrays<T> selection{given_or_own(out.selection.intra_index, rows * intra_k),
                                     given_or_own(out.selection.intra_similarity, rows * intra_k),
                                     given_or_own(out.selection.cross_index, rows * cross_k),
                                     given_or_own(out.selection.cross_similarity, rows * cross_k)};
  const int64_t num_weights = Weights<T>::count(rows, num_positives, intra_k, cross_k);
  const Weights<T> by(given_or_own(out.weights, num_weights), rows, num_positives, intra_k,
                      cross_k);
  const bool by_row = reduction == Reduction::kNone;
  T* losses = given_or_own(by_row ? out.loss : nullptr, rows);
  backend.hard_negative_nce(problem, inputs.loss,
                            LossArrays<T>{selection, losses, out.anchor_gradient, by.positive,
                                          by.intra, by.cross, by.temperature});
  if (!by_row) backend.sum_rows(losses, rows, divisor_of(reduction, rows), out.loss);
}

// What a backward pass reads. What only unwanted gradients need may be null.
template <typename T>
struct SavedLoss {
  const T* grad_loss;  // as LossOutputs::loss
  Matrix anchors;
  const T* anchor_gradient;
  T* weights;
  const int64_t* intra_index;
  const int64_t* cross_index;
  int64_t num_positives;
  int64_t intra_k;
  int64_t cross_k;
  Reduction reduction;
};

template <typename Backend, typename T>
void compute_gradients(Backend& backend, const SavedLoss<T>& saved, const BackwardArrays<T>& out,
                       const std::vector<KeyGradient<T>>& keys) {
  const int64_t rows = saved.anchors.rows;
  const Weights<T> by(saved.weights, rows, saved.num_positives, saved.intra_k, saved.cross_k);
  const bool by_row = saved.reduction == Reduction::kNone;
  const BackwardArguments<T> arguments{
      {saved.grad_loss, by_row ? 1 : 0, static_cast<T>(divisor_of(saved.reduction, rows))},
      saved.anchors,
      saved.anchor_gradient,
      by.positive,
      saved.num_positives,
      by.temperature,
      {saved.intra_index, by.intra, saved.intra_k},
      {saved.cross_index, by.cross, saved.cross_k}};
  backend.hard_negative_nce_backward(arguments, out);
  for (const KeyGradient<T>& wanted : keys) backend.key_gradient(arguments, wanted);
}

}  // namespace usucl

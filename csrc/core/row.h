// The forward of one anchor after its selection: its loss and the weight of every pair.
#pragma once

#include <limits>

#include "results.h"

namespace usucl {

// How many of the k selected negatives exist; they come first.
template <typename Team>
USUCL_HD int64_t num_taken(const int64_t* index, int64_t k) {
  return team_sum<Team, int64_t>(k, [&](int64_t j) { return int64_t{index[j] >= 0}; });
}

// Computes loss and derivatives of anchor i, whose selection is written. positive [R]: its
// similarities. broken: the anchor or one of them is not finite, or the arguments are not valid for
// it; nothing is selected. The loss of a broken anchor and of one whose loss overflows is NaN. So
// are the weights of its positives, and thus its gradient, their sum; those of its keys are 0.
template <typename Team, typename T>
USUCL_HD void finish_row(const Problem& problem, const LossArguments<T>& arguments, int64_t i,
                         const T* positive, bool broken, const LossArrays<T>& out) {
  const int64_t num_positives = arguments.num_positives;
  const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
  const SelectionArrays<T>& selection = out.selection;
  const RowSimilarities<T> similarities{
      positive,
      arguments.weights_of(i),
      num_positives,
      selection.intra_similarity + i * intra_k,
      num_taken<Team>(selection.intra_index + i * intra_k, intra_k),
      selection.cross_similarity + i * cross_k,
      num_taken<Team>(selection.cross_index + i * cross_k, cross_k)};
  RowDerivatives<T> by{out.positive_weight + i * num_positives, out.intra_weight + i * intra_k,
                       out.cross_weight + i * cross_k, 0, 0};
  const auto clear = [](T* weight, int64_t taken, int64_t k) {
    for_own<Team>(k - taken, [&](int64_t j) { weight[taken + j] = 0; });
  };
  clear(by.intra, similarities.num_intra, intra_k);
  clear(by.cross, similarities.num_cross, cross_k);
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const T row = row_loss<Team>(similarities, arguments.temperatures(), &by);
  const T loss = broken ? nan : row;
  if (loss != loss) for_own<Team>(num_positives, [&](int64_t r) { by.positive[r] = nan; });
  if (Team::rank() != 0) return;
  out.loss[i] = loss;
  out.temperature_gradient[2 * i] = by.temperature;
  out.temperature_gradient[2 * i + 1] = by.soft_nn_temperature;
}

}  // namespace usucl

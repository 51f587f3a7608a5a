// The loss of every anchor and its derivatives, on the CPU.
#pragma once

#include "../core/results.h"

namespace usucl::cpu {

// Loss, selection, unit-upstream anchor gradients and the weight of every selected pair.
template <typename T>
void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                       const LossArrays<T>& out);

// total [] = sum of loss [rows] / divisor
template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total);

}  // namespace usucl::cpu

// The CPU kernels as the backend of core/calls.h.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"

namespace usucl::cpu {

class Cpu {
 public:
  explicit Cpu(int32_t) {}

  template <typename T>
  T* array(int64_t count) {
    held_.emplace_back(new unsigned char[count * sizeof(T)]);
    return reinterpret_cast<T*>(held_.back().get());
  }

  template <typename T>
  void select_negatives(const Problem& problem, const SelectionArrays<T>& selection) {
    cpu::select_negatives(problem, nullptr, selection);
  }

  template <typename T>
  void similarities(const ScoredPairs<T>& pairs) {
    cpu::similarities(pairs);
  }

  template <typename T>
  void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                         const LossArrays<T>& out) {
    cpu::hard_negative_nce(problem, arguments, out);
  }

  template <typename T>
  void sum_rows(const T* loss, int64_t rows, double divisor, T* total) {
    cpu::sum_rows(loss, rows, divisor, total);
  }

  template <typename T>
  void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                  const BackwardArrays<T>& out) {
    cpu::hard_negative_nce_backward(arguments, out);
  }

  template <typename T>
  void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
    cpu::key_gradient(arguments, wanted);
  }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> held_;
};

}  // namespace usucl::cpu

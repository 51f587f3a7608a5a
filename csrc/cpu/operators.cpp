// The operators of ops.cpp on the CPU.
#include "../operators.h"

#include <torch/csrc/stable/library.h>

#include "gradient.h"
#include "loss.h"
#include "pairs.h"
#include "select.h"

namespace usucl::cpu {
namespace {

struct Cpu {
  explicit Cpu(const Tensor&) {}

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
};

}  // namespace
}  // namespace usucl::cpu

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cpu::Cpu>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<usucl::cpu::Cpu>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cpu::Cpu>));
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cpu::Cpu>));
}

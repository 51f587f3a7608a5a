// The CUDA kernels as the backend of core/calls.h.
#pragma once

#include <memory>

#include "kernels.h"

namespace usucl::cuda {

// One call on PyTorch's current stream of a device, with memory from PyTorch's allocator.
class Session {
 public:
  explicit Session(int32_t device);
  ~Session();

  const Call& call() const;

  // Throws the error of the launches so far, if there is one.
  void check() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All methods are asynchronous.
class Cuda {
 public:
  explicit Cuda(int32_t device) : session_(device) {}

  template <typename T>
  T* array(int64_t count) {
    return session_.call().memory.template array<T>(count);
  }

  template <typename T>
  void select_negatives(const Problem& problem, const SelectionArrays<T>& selection) {
    cuda::select_negatives(problem, selection, session_.call());
    session_.check();
  }

  template <typename T>
  void similarities(const ScoredPairs<T>& pairs) {
    cuda::similarities(pairs, session_.call());
    session_.check();
  }

  template <typename T>
  void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                         const LossArrays<T>& out) {
    cuda::hard_negative_nce(problem, arguments, out, session_.call());
    session_.check();
  }

  template <typename T>
  void sum_rows(const T* loss, int64_t rows, double divisor, T* total) {
    cuda::sum_rows(loss, rows, divisor, total, session_.call());
    session_.check();
  }

  template <typename T>
  void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                  const BackwardArrays<T>& out) {
    cuda::hard_negative_nce_backward(arguments, out, session_.call());
    session_.check();
  }

  template <typename T>
  void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
    cuda::key_gradient(arguments, wanted, session_.call());
    session_.check();
  }

 private:
  Session session_;
};

}  // namespace usucl::cuda

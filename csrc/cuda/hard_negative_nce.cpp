// The CUDA kernels of the operators in ops.cpp.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "../operators.h"
#include "kernels.h"

namespace usucl::cuda {
namespace {

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Asynchronous on PyTorch's current stream; memory to work in comes from PyTorch's allocator,
// which gives it to no other stream before these kernels are done.
class Cuda {
 public:
  explicit Cuda(const Tensor& like)
      : like_(like),
        guard_(like.get_device_index()),
        stream_(current_stream(like.get_device_index())) {}

  template <typename T>
  void select_negatives(const Problem& problem, const SelectionArrays<T>& selection) {
    const Tensor table = memory<Frames>(problem.num_blocks);
    select(problem, on_device(problem, data_of<Frames>(table), stream_), nullptr, selection);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                         const LossArrays<T>& out) {
    const int64_t rows = problem.anchors.embedding.rows;
    const Tensor table = memory<Frames>(problem.num_blocks);
    const Tensor similarity = memory<T>(rows * arguments.num_positives);
    const Tensor broken = memory<bool>(rows);
    const Problem moved = on_device(problem, data_of<Frames>(table), stream_);
    score_positives(moved, arguments, data_of<T>(similarity), data_of<bool>(broken), stream_);
    select(problem, moved, data_of<bool>(broken), out.selection);
    finish_rows(moved, arguments, data_of<T>(similarity), data_of<bool>(broken), out, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void sum_rows(const T* loss, int64_t rows, double divisor, T* total) {
    cuda::sum_rows(loss, rows, divisor, total, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                  const BackwardArrays<T>& out) {
    row_gradients(arguments, out, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
    const int64_t num_pairs = arguments.anchors.rows * (arguments.intra.k + arguments.cross.k);
    using Count = unsigned long long;
    const Tensor scratch = memory<Count>(key_gradient_scratch(num_pairs, wanted.num_keys));
    cuda::key_gradient(arguments, wanted, data_of<Count>(scratch), stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  template <typename Element>
  Tensor memory(int64_t count) const {
    return new_empty(like_, {count * static_cast<int64_t>(sizeof(Element))}, ScalarType::Byte);
  }

  template <typename T>
  void select(const Problem& problem, const Problem& moved, const bool* excluded,
              const SelectionArrays<T>& selection) {
    const SelectionPlan plan = plan_selection(problem);
    const Tensor lists = memory<Candidate<T>>(plan.num_candidates());
    cuda::select_negatives(moved, excluded, plan, data_of<Candidate<T>>(lists), selection, stream_);
  }

  const Tensor& like_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace
}  // namespace usucl::cuda

STABLE_TORCH_LIBRARY_IMPL(usucl, CUDA, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cuda::Cuda>));
}

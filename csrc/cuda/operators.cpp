// The CUDA kernels of the operators in ops.cpp.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <cstdlib>
#include <vector>

#include "../operators.h"
#include "kernels.h"

namespace usucl::cuda {
namespace {

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

int64_t attribute(cudaDeviceAttr name, int32_t device) {
  int value = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

// Products by Hopper's warpgroups have not been measured: who wants them sets the variable.
bool wants_warpgroups(int32_t device) {
#if defined(USUCL_BUILT_FOR_HOPPER)
  const char* wish = std::getenv("USUCL_CUDA_WARPGROUPS");
  return wish != nullptr && wish[0] == '1' &&
         attribute(cudaDevAttrComputeCapabilityMajor, device) == 9 &&
         attribute(cudaDevAttrComputeCapabilityMinor, device) == 0;
#else
  return false;
#endif
}

// For tests: problems of any size by the launches of large ones, from so many pairs on by tensor
// cores.
int64_t wished(const char* name, int64_t usual) {
  const char* wish = std::getenv(name);
  return wish == nullptr ? usual : std::atoll(wish);
}

// From PyTorch's allocator, which gives it to no other stream before the kernels of this one are
// done.
class TensorMemory : public Memory {
 public:
  TensorMemory(const Tensor& like, cudaStream_t stream) : like_(like), stream_(stream) {}

  void* allocate(int64_t bytes) override {
    held_.push_back(new_empty(like_, {bytes}, ScalarType::Byte));
    return held_.back().mutable_data_ptr();
  }

  void* allocate_zeros(int64_t bytes) override {
    void* zeros = allocate(bytes);
    cudaMemsetAsync(zeros, 0, static_cast<size_t>(bytes), stream_);
    return zeros;
  }

 private:
  const Tensor& like_;
  cudaStream_t stream_;
  std::vector<Tensor> held_;
};

// Asynchronous on PyTorch's current stream.
class Cuda {
 public:
  explicit Cuda(const Tensor& like)
      : guard_(like.get_device_index()),
        memory_(like, current_stream(like.get_device_index())),
        call_{memory_,
              current_stream(like.get_device_index()),
              attribute(cudaDevAttrMultiProcessorCount, like.get_device_index()),
              attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, like.get_device_index()),
              attribute(cudaDevAttrComputeCapabilityMajor, like.get_device_index()) >= 8,
              wants_warpgroups(like.get_device_index()),
              wished("USUCL_CUDA_ONE_LAUNCH", 1) != 0,
              wished("USUCL_CUDA_SMALLEST_DENSE", int64_t{1} << 20)} {}

  template <typename T>
  void select_negatives(const Problem& problem, const SelectionArrays<T>& selection) {
    cuda::select_negatives(problem, selection, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void similarities(const ScoredPairs<T>& pairs) {
    cuda::similarities(pairs, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                         const LossArrays<T>& out) {
    cuda::hard_negative_nce(problem, arguments, out, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void sum_rows(const T* loss, int64_t rows, double divisor, T* total) {
    cuda::sum_rows(loss, rows, divisor, total, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                  const BackwardArrays<T>& out) {
    row_gradients(arguments, out, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted) {
    cuda::key_gradient(arguments, wanted, call_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  TensorMemory memory_;
  Call call_;
};

}  // namespace
}  // namespace usucl::cuda

STABLE_TORCH_LIBRARY_IMPL(usucl, CUDA, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cuda::Cuda>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cuda::Cuda>));
}

// Selection, loss and derivatives of every anchor from the candidates that the passes kept.
#include "finish.h"

namespace usucl::cuda {
namespace {

constexpr int kStagedCandidates = 512;

template <typename T>
struct FinishKernelShared {
  FinishShared<T> finish;
  Candidate<T> staged[kStagedCandidates];
};

// Through shared memory, if they fit: a sort goes over them many times.
template <typename T>
__device__ void sort_staged(Candidate<T>* candidates, int64_t count, Candidate<T>* staged) {
  if (count > kStagedCandidates) return sort_candidates<BlockTeam>(candidates, count);
  const int64_t thread = threadIdx.x;
  for (int64_t c = thread; c < count; c += kThreads) staged[c] = candidates[c];
  sort_candidates<BlockTeam>(staged, count);
  for (int64_t c = thread; c < count; c += kThreads) candidates[c] = staged[c];
  __syncthreads();
}

// One thread block an anchor.
template <typename T>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<T>)
    finish_kernel(const __grid_constant__ DeviceProblem device, Kept<T> intra, Kept<T> cross,
                  const __grid_constant__ Wanted<T> wanted) {
  auto& shared = shared_memory<FinishKernelShared<T>>();
  const Problem problem = device.view();
  for (int64_t i = blockIdx.x; i < problem.anchors.embedding.rows; i += gridDim.x) {
    const auto ranked = [&](const Kept<T>& kept) {
      const int64_t size = kept.count == nullptr ? kept.size() : kept.count[i];
      if (kept.lists > 1 || kept.count != nullptr) sort_staged(kept.of(i), size, shared.staged);
      return Ranked<T>{kept.of(i), size};
    };
    const Ranked<T> of_intra = ranked(intra), of_cross = ranked(cross);
    AnchorFinish<T>(problem, wanted, i, shared.finish).run(of_intra, of_cross, false);
  }
}

template <typename T>
struct SumShared {
  double partial[kThreads];
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const T* loss, int64_t rows, double divisor, T* total) {
  const auto value = [&](int64_t i) { return loss[i]; };
  const double sum = sum_in_block(value, rows, shared_memory<SumShared<T>>().partial);
  if (threadIdx.x == 0) *total = static_cast<T>(sum / divisor);
}

}  // namespace

template <typename T>
void finish(const Problem& problem, const DeviceProblem& device, const Kept<T>& intra,
            const Kept<T>& cross, const Wanted<T>& wanted, const Call& call) {
  launch<finish_kernel<T>>(grid_for(problem.anchors.embedding.rows, 1, call), kThreads,
                           sizeof(FinishKernelShared<T>), call.stream, device, intra, cross,
                           wanted);
}

template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total, const Call& call) {
  launch<sum_kernel<T>>(1, kThreads, sizeof(SumShared<T>), call.stream, loss, rows, divisor, total);
}

#define USUCL_INSTANTIATE(T)                                                                 \
  template void finish(const Problem&, const DeviceProblem&, const Kept<T>&, const Kept<T>&, \
                       const Wanted<T>&, const Call&);                                       \
  template void sum_rows(const T*, int64_t, double, T*, const Call&);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda

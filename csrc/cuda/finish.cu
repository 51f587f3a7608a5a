// Selection, loss and derivatives of every anchor from the candidates that the passes kept.
#include "finish.h"

namespace usucl::cuda {
namespace {

template <typename T, typename Team>
struct FinishKernelShared {
  static constexpr int kStaged = Team::kSize == WarpTeam::kSize ? 128 : 2048;

  FinishShared<T, Team> finish;
  Candidate<T> staged[kStaged];
};

// Sorts in shared memory if the candidates fit, because a sort reads them many times.
template <typename T, typename Team>
__device__ void sort_staged(Candidate<T>* candidates, int64_t count,
                            FinishKernelShared<T, Team>& shared) {
  if (count > shared.kStaged) return sort_candidates<Team>(candidates, count);
  for (int64_t c = Team::rank(); c < count; c += Team::kSize) shared.staged[c] = candidates[c];
  sort_candidates<Team>(shared.staged, count);
  for (int64_t c = Team::rank(); c < count; c += Team::kSize) candidates[c] = shared.staged[c];
  Team::sync();
}

// One team per anchor. Whole thread blocks need a few more registers.
template <typename T, typename Team>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<T> - (Team::kSize == kThreads ? 1 : 0))
    finish_kernel(const __grid_constant__ DeviceProblem device, CandidateLists<T> intra,
                  CandidateLists<T> cross, const __grid_constant__ Outputs<T> outputs) {
  constexpr int kTeams = kThreads / Team::kSize;
  using Shared = FinishKernelShared<T, Team>;
  Shared& shared = (&shared_memory<Shared>())[threadIdx.x / Team::kSize];
  const Problem problem = device.view();
  const int64_t step = int64_t{gridDim.x} * kTeams;
  for (int64_t i = blockIdx.x * kTeams + threadIdx.x / Team::kSize;
       i < problem.anchors.embedding.rows; i += step) {
    const auto ranked = [&](const CandidateLists<T>& kept) {
      const int64_t size = kept.count == nullptr ? kept.size() : kept.count[i];
      if (kept.lists > 1 || kept.count != nullptr) sort_staged(kept.of(i), size, shared);
      return SortedCandidates<T>{kept.of(i), size};
    };
    const SortedCandidates<T> of_intra = ranked(intra), of_cross = ranked(cross);
    AnchorFinish<T, Team>(problem, outputs, i, shared.finish).run(of_intra, of_cross, false);
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

template <typename T, typename Team>
void launch_finish(const Problem& problem, const DeviceProblem& device,
                   const CandidateLists<T>& intra, const CandidateLists<T>& cross,
                   const Outputs<T>& outputs, const Call& call) {
  constexpr int kTeams = kThreads / Team::kSize;
  launch<finish_kernel<T, Team>>(grid_for(problem.anchors.embedding.rows, kTeams, call), kThreads,
                                 kTeams * sizeof(FinishKernelShared<T, Team>), call.stream, device,
                                 intra, cross, outputs);
}

}  // namespace

// A warp per anchor keeps many in flight, unless an anchor is much work.
template <typename T>
void finish(const Problem& problem, const DeviceProblem& device, const CandidateLists<T>& intra,
            const CandidateLists<T>& cross, const Outputs<T>& outputs, const Call& call) {
  constexpr int64_t kMuch = 512;
  const bool much = intra.size() > kMuch || cross.size() > kMuch ||
                    outputs.arguments.num_positives > kNearPositives;
  const auto run = much ? &launch_finish<T, BlockTeam> : &launch_finish<T, WarpTeam>;
  run(problem, device, intra, cross, outputs, call);
}

template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total, const Call& call) {
  launch<sum_kernel<T>>(1, kThreads, sizeof(SumShared<T>), call.stream, loss, rows, divisor, total);
}

#define USUCL_INSTANTIATE(T)                                                           \
  template void finish(const Problem&, const DeviceProblem&, const CandidateLists<T>&, \
                       const CandidateLists<T>&, const Outputs<T>&, const Call&);      \
  template void sum_rows(const T*, int64_t, double, T*, const Call&);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda

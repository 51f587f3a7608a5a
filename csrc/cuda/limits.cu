// The limit that an anchor's own positives set for its negatives.
#include <cmath>

#include "finish.h"

namespace usucl::cuda {
namespace {

// A warp per anchor, a thread per positive.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    limit_kernel(Matrix anchors, LossArguments<T> arguments, T* limits) {
  constexpr int kTeams = kThreads / WarpTeam::kSize;
  auto& anchor = (&shared_memory<StagedAnchor<T, WarpTeam>>())[threadIdx.x / WarpTeam::kSize];
  const int64_t num_positives = arguments.num_positives;
  for (int64_t i = blockIdx.x * int64_t{kTeams} + threadIdx.x / WarpTeam::kSize; i < anchors.rows;
       i += int64_t{gridDim.x} * kTeams) {
    T greatest = -static_cast<T>(INFINITY);
    for (int64_t first = 0; first < num_positives; first += WarpTeam::kSize) {
      const int64_t r = first + WarpTeam::rank();
      const bool there = r < num_positives;
      const T similarity =
          anchor.score(anchors, i, arguments.positives, i * num_positives + r, there, first > 0);
      if (there && similarity > greatest) greatest = similarity;
    }
    greatest = WarpTeam::greatest(greatest);
    if (WarpTeam::rank() == 0) limits[i] = arguments.limit(i, greatest);
  }
}

}  // namespace

template <typename T>
const void* limits_by_positives(const Matrix& anchors, const LossArguments<T>& arguments,
                                const Call& call) {
  constexpr int kTeams = kThreads / WarpTeam::kSize;
  T* limits = call.memory.array<T>(anchors.rows);
  launch<limit_kernel<T>>(grid_for(anchors.rows, kTeams, call), kThreads,
                          kTeams * sizeof(StagedAnchor<T, WarpTeam>), call.stream, anchors,
                          arguments, limits);
  return limits;
}

template const void* limits_by_positives(const Matrix&, const LossArguments<float>&, const Call&);
template const void* limits_by_positives(const Matrix&, const LossArguments<double>&, const Call&);

}  // namespace usucl::cuda

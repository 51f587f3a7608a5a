// Similarities of given pairs, such as another index's candidates.
#include "block.h"

namespace usucl::cuda {
namespace {

template <typename T>
struct PairShared {
  StagedAnchor<T, BlockTeam> anchor;
};

// One thread block per anchor, one thread per pair.
template <typename T>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<T>) pair_kernel(ScoredPairs<T> pairs) {
  PairShared<T>& shared = shared_memory<PairShared<T>>();
  for (int64_t i = blockIdx.x; i < pairs.anchors.rows; i += gridDim.x) {
    for (int64_t first = 0; first < pairs.per_anchor; first += kThreads) {
      const int64_t column = first + threadIdx.x, pair = i * pairs.per_anchor + column;
      const int64_t key = column < pairs.per_anchor ? pairs.index[pair] : -1;
      const bool there = pairs.is_key(key);
      const T similarity = shared.anchor.score(pairs.anchors, i, pairs.keys, key, there, first > 0);
      if (column < pairs.per_anchor) {
        pairs.similarity[pair] = there ? similarity : -static_cast<T>(INFINITY);
      }
    }
  }
}

}  // namespace

template <typename T>
void similarities(const ScoredPairs<T>& pairs, const Call& call) {
  launch<pair_kernel<T>>(grid_for(pairs.anchors.rows, 1, call), kThreads, sizeof(PairShared<T>),
                         call.stream, pairs);
}

template void similarities(const ScoredPairs<float>&, const Call&);
template void similarities(const ScoredPairs<double>&, const Call&);

}  // namespace usucl::cuda

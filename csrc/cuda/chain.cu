// The cross-video candidates by the chain: every anchor with every key, tile by tile. Used for
// float64, for problems too small for tensor cores, and for anchors that these cannot settle.
//
// A thread block takes kAnchors anchors and a range of the keys, kTileKeys at a time; a warp takes
// kWarpAnchors of the anchors with all keys of the tile, and so owns their lists. A similarity is
// compared with the worst that its anchor's list keeps, and the video is read only for those that
// pass: most keys do not. Once a list could overflow with the next tile it is sorted and cut, which
// raises that bar; the order is total, so when that happens does not change the result. Splits of
// the keys share how far the bar of an anchor has risen: a late update only costs time.
#include "../core/relation.h"
#include "block.h"
#include "passes.h"

namespace usucl::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kWarpAnchors = 8;
constexpr int kAnchors = kWarps * kWarpAnchors;
constexpr int kLaneKeys = 4;  // the keys of a lane are 32 apart
constexpr int kTileKeys = 32 * kLaneKeys;
constexpr int kKeyDims = 32;        // of the keys, staged at once
constexpr int kAnchorDims = 128;    // of the anchors, staged at once
constexpr int64_t kBlocksEach = 4;  // wanted per multiprocessor, for balance

// A similarity as the ordered bits of its double, for atomicMax; 0 is below all of them.
using Bar = unsigned long long;

// The device memory of a call.
template <typename T>
struct CrossMemory {
  Candidate<T>* lists;     // [grid, kAnchors, capacity]
  Bar* bars;               // [N]: the highest of all splits, or null for one split
  Statistics* statistics;  // or null
};

// How the work on a number of anchors is divided.
struct CrossWork {
  int64_t tiles;           // of anchors
  int64_t splits;          // of the keys
  int64_t keys_per_split;  // a multiple of kTileKeys
};

struct CrossPlan {
  int64_t keys;
  int64_t depth;     // candidates that every anchor must keep
  int64_t capacity;  // candidates a list has room for
  int64_t max_splits;
  int64_t multiprocessors;

  // With few anchors the keys are split until all multiprocessors have work, as long as a split is
  // worth its lists.
  USUCL_HD CrossWork work(int64_t rows) const {
    constexpr int64_t kMinSplit = 1024;  // keys
    CrossWork work{ceil_divide(rows, kAnchors), 1, 0};
    if (work.tiles == 0) return work;
    const int64_t wanted = ceil_divide(kBlocksEach * multiprocessors, work.tiles);
    const int64_t worthwhile = ceil_divide(keys, kMinSplit);
    work.splits = wanted < worthwhile ? wanted : worthwhile;
    if (work.splits > max_splits) work.splits = max_splits;
    if (work.splits < 1) work.splits = 1;
    work.keys_per_split = round_up(ceil_divide(keys, work.splits), kTileKeys);
    work.splits = ceil_divide(keys, work.keys_per_split);
    return work;
  }
};

template <typename T>
struct CrossShared {
  int64_t rows;  // number of anchors
  CrossWork work;
  T anchor[kAnchorDims][kAnchors];  // a warp's anchors are adjacent
  T key[kKeyDims][kTileKeys + 1];   // + 1 spreads a column over 32 banks
  int64_t row[kAnchors];            // of the anchor, or -1
  FrameTag tag[kAnchors];
  Candidate<T> worst[kAnchors];
};

// Bytes of shared memory per multiprocessor.
#if !defined(__CUDA_ARCH__) || (__CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200)
constexpr int kSharedBytes = 228 << 10;
#elif __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
constexpr int kSharedBytes = 164 << 10;
#else
constexpr int kSharedBytes = 100 << 10;
#endif

// Thread blocks per multiprocessor: limited by its shared memory and by registers for the sums.
template <typename T>
constexpr int kResidentBlocks =
    std::min<int>(kSharedBytes / sizeof(CrossShared<T>), 12 / sizeof(T));

// The work of one thread block; its lists [kAnchors, capacity] are in device memory.
template <typename T>
class CrossSearch {
 public:
  __device__ CrossSearch(const Problem& problem, const CrossPlan& plan, const AnchorSubset& anchors,
                         const CrossMemory<T>& memory, const CandidateLists<T>& kept,
                         CrossShared<T>& shared)
      : problem_(problem),
        plan_(plan),
        anchors_(anchors),
        lists_(memory.lists + (blockIdx.x * kAnchors + warp() * kWarpAnchors) * plan.capacity),
        memory_(memory),
        kept_(kept),
        shared_(shared) {}

  __device__ void run() {
    if (threadIdx.x == 0) {
      const bool all = anchors_.rows == nullptr;
      shared_.rows = all ? problem_.anchors.embedding.rows : *anchors_.count;
      shared_.work = plan_.work(shared_.rows);
    }
    __syncthreads();
    const CrossWork& work = shared_.work;
    for (int64_t item = blockIdx.x; item < work.tiles * work.splits; item += gridDim.x) {
      run(item % work.tiles, item / work.tiles);
    }
  }

 private:
  // Searches one split of the keys for one tile of anchors.
  __device__ void run(int64_t tile, int64_t split) {
    first_anchor_ = tile * kAnchors;
    start();
    const int64_t keys_per_split = shared_.work.keys_per_split;
    const int64_t begin = split * keys_per_split, end = begin + keys_per_split;
    int64_t first_index = 0;
    for (int64_t b = 0; b < problem_.num_blocks; ++b) {
      const Frames& keys = problem_.blocks[b];
      const int64_t rows = keys.embedding.rows;
      const int64_t last = end - first_index < rows ? end - first_index : rows;
      int64_t row = begin > first_index ? begin - first_index : 0;
      for (; row < last; row += kTileKeys) {
        T similarity[kWarpAnchors][kLaneKeys] = {};
        score_tile(keys.embedding, row, similarity);
        read_bars();
        append_survivors(keys, row, last, first_index, similarity);
        if (memory_.statistics != nullptr && threadIdx.x == 0) {
          atomicAdd(&memory_.statistics->chained, 1ull);
        }
      }
      first_index += rows;
    }
    write_kept(split);
  }

  __device__ void start() {
    const int thread = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (thread < kAnchors) {
      const int64_t at = first_anchor_ + thread;
      const int64_t row = at >= shared_.rows         ? -1
                          : anchors_.rows == nullptr ? at
                                                     : anchors_.rows[at];
      shared_.row[thread] = row;
      shared_.tag[thread] = row >= 0 ? problem_.anchors.tag(row) : FrameTag{-1, 0, -1};
      shared_.worst[thread] = no_candidate<T>();
    }
#pragma unroll
    for (int a = 0; a < kWarpAnchors; ++a) count_[a] = 0;
    bar_ = -static_cast<T>(INFINITY);
    __syncthreads();
    stage_anchors(0);  // score_tile() begins with a barrier
  }

  // The chain of core/similarity.h with its elements staged kKeyDims at a time; those of the
  // anchors stay staged if they fit.
  __device__ void score_tile(const Matrix& keys, int64_t row, T (&sum)[kWarpAnchors][kLaneKeys]) {
    for (int64_t start = 0; start < keys.dim; start += kKeyDims) {
      const auto width =
          static_cast<int>(keys.dim - start < kKeyDims ? keys.dim - start : kKeyDims);
      __syncthreads();
      if (keys.dim > kAnchorDims && start % kAnchorDims == 0) stage_anchors(start);
      stage_keys(keys, row, start);
      __syncthreads();
      const auto first = static_cast<int>(start % kAnchorDims);
      for (int d = 0; d < width; ++d) {
        T key[kLaneKeys];
#pragma unroll
        for (int j = 0; j < kLaneKeys; ++j) key[j] = shared_.key[d][lane() + 32 * j];
#pragma unroll
        for (int a = 0; a < kWarpAnchors; ++a) {
          const T anchor = shared_.anchor[first + d][warp() * kWarpAnchors + a];
#pragma unroll
          for (int j = 0; j < kLaneKeys; ++j) {
            sum[a][j] = fused_multiply_add(anchor, key[j], sum[a][j]);
          }
        }
      }
    }
  }

  __device__ void stage_anchors(int64_t start) {
    const Matrix& anchors = problem_.anchors.embedding;
    for (int i = static_cast<int>(threadIdx.x); i < kAnchorDims * kAnchors; i += kThreads) {
      const int64_t row = shared_.row[i % kAnchors], column = start + i / kAnchors;
      const bool there = row >= 0 && column < anchors.dim;
      shared_.anchor[i / kAnchors][i % kAnchors] = there ? element<T>(anchors, row, column) : T(0);
    }
  }

  __device__ void stage_keys(const Matrix& keys, int64_t first_row, int64_t start) {
    for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kKeyDims; i += kThreads) {
      const int64_t row = first_row + i / kKeyDims, column = start + i % kKeyDims;
      const bool there = row < keys.rows && column < keys.dim;
      shared_.key[i % kKeyDims][i / kKeyDims] = there ? element<T>(keys, row, column) : T(0);
    }
  }

  // Lane a holds the bar that the splits share for the warp's anchor a.
  __device__ void read_bars() {
    const int64_t anchor = first_anchor_ + warp() * kWarpAnchors + lane();
    if (memory_.bars == nullptr || lane() >= kWarpAnchors) return;
    if (anchor >= shared_.rows) return;
    const Bar bar = load_relaxed(memory_.bars + anchor);
    bar_ = bar == 0 ? -static_cast<T>(INFINITY) : static_cast<T>(from_ordered_bits<double>(bar));
  }

  __device__ void append_survivors(const Frames& keys, int64_t first_row, int64_t last,
                                   int64_t first_index,
                                   const T (&similarity)[kWarpAnchors][kLaneKeys]) {
#pragma unroll
    for (int a = 0; a < kWarpAnchors; ++a) {
      const Candidate<T> worst = shared_.worst[warp() * kWarpAnchors + a];
      // A similarity equal to another split's bar may rank before the candidate of that split.
      const T shared_bar = __shfl_sync(kWholeWarp, bar_, a);
      const T bar = worst.similarity > shared_bar ? worst.similarity : shared_bar;
      bool any = false;
#pragma unroll
      for (int j = 0; j < kLaneKeys; ++j) any |= similarity[a][j] >= bar;
      if (!__any_sync(kWholeWarp, any)) continue;
#pragma unroll
      for (int j = 0; j < kLaneKeys; ++j) {
        const int64_t row = first_row + lane() + 32 * j;
        const Candidate<T> candidate{canonical(similarity[a][j]), first_index + row};
        const bool kept =
            row < last && candidate.similarity >= bar && counts(a, keys, row, candidate, worst);
        const unsigned keepers = __ballot_sync(kWholeWarp, kept);
        if (kept) list(a)[count_[a] + place_among(keepers)] = candidate;
        count_[a] += __popc(keepers);
      }
      if (count_[a] + kTileKeys > plan_.capacity) keep(a);
    }
  }

  __device__ bool counts(int a, const Frames& keys, int64_t row, const Candidate<T>& candidate,
                         const Candidate<T>& worst) const {
    const int own = warp() * kWarpAnchors + a;
    // An anchor that only fills up the tile crosses no key, so its limit is not read.
    return ranks_before(candidate, worst) && crosses(shared_.tag[own], keys.tag(row)) &&
           valid_similarity(candidate.similarity, problem_.greatest_valid<T>(shared_.row[own]));
  }

  __device__ Candidate<T>* list(int a) const { return lists_ + a * plan_.capacity; }

  __device__ void keep(int a) {
    const int own = warp() * kWarpAnchors + a;
    count_[a] = keep_best<WarpTeam>(list(a), count_[a], plan_.depth, &shared_.worst[own]);
    if (memory_.bars == nullptr || lane() != 0 || count_[a] < plan_.depth) return;
    const double worst{shared_.worst[own].similarity};
    atomicMax(memory_.bars + first_anchor_ + own, Bar{ordered_bits(worst)});
  }

  __device__ void write_kept(int64_t split) {
#pragma unroll
    for (int a = 0; a < kWarpAnchors; ++a) {
      const int64_t row = shared_.row[warp() * kWarpAnchors + a];
      if (row < 0) break;
      keep(a);
      write_padded<WarpTeam>(list(a), count_[a], plan_.depth, kept_.of(row) + split * plan_.depth);
      if (kept_.count != nullptr && split == 0 && lane() == 0) {
        kept_.count[row] = static_cast<int32_t>(shared_.work.splits * plan_.depth);
      }
    }
  }

  const Problem& problem_;
  const CrossPlan& plan_;
  const AnchorSubset& anchors_;
  Candidate<T>* lists_;  // [kWarpAnchors, capacity] of this warp
  const CrossMemory<T>& memory_;
  const CandidateLists<T>& kept_;
  CrossShared<T>& shared_;
  T bar_ = 0;
  int64_t first_anchor_ = 0;
  int64_t count_[kWarpAnchors] = {};  // same in all lanes
};

template <typename T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    cross_kernel(const __grid_constant__ DeviceProblem device,
                 const __grid_constant__ CrossPlan plan,
                 const __grid_constant__ AnchorSubset anchors,
                 const __grid_constant__ CrossMemory<T> memory,
                 const __grid_constant__ CandidateLists<T> kept) {
  const Problem problem = device.view();
  CrossSearch<T>(problem, plan, anchors, memory, kept, shared_memory<CrossShared<T>>()).run();
}

CrossPlan plan_cross(const Problem& problem, int64_t depth, int64_t max_splits, const Call& call) {
  // Room for one tile more than necessary, so that lists are not sorted after every tile.
  return {problem.num_keys(), depth, depth + 2 * kTileKeys, max_splits, call.multiprocessors};
}

template <typename T>
void launch_cross(const Problem& problem, const DeviceProblem& device, const CrossPlan& plan,
                  const AnchorSubset& anchors, const CandidateLists<T>& kept, const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows;
  const CrossWork work = plan.work(rows);
  // The size of a subset is known only on the device. It is at most all anchors, and the plan
  // limits the splits of fewer.
  const int64_t grid =
      anchors.rows == nullptr
          ? std::min(work.tiles * work.splits, 2 * kBlocksEach * call.multiprocessors)
          : std::min(work.tiles * std::max<int64_t>(1, plan.max_splits),
                     kBlocksEach * call.multiprocessors);
  const bool splits = anchors.rows != nullptr || work.splits > 1;
  const CrossMemory<T> memory{call.memory.array<Candidate<T>>(grid * kAnchors * plan.capacity),
                              splits ? call.memory.zeros<Bar>(rows) : nullptr, call.statistics};
  launch<cross_kernel<T>>(grid, kThreads, sizeof(CrossShared<T>), call.stream, device, plan,
                          anchors, memory, kept);
}

}  // namespace

template <typename T>
CandidateLists<T> chain_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                             const Call& call) {
  constexpr int64_t kMaxMerged = 1 << 12;  // candidates of one anchor: keeps their merge cheap
  const int64_t rows = problem.anchors.embedding.rows;
  const CrossPlan plan = plan_cross(problem, depth, kMaxMerged / depth, call);
  const int64_t lists = plan.work(rows).splits;
  const CandidateLists<T> kept{call.memory.array<Candidate<T>>(rows * lists * depth), lists, depth,
                               nullptr};
  launch_cross(problem, device, plan, {nullptr, nullptr}, kept, call);
  return kept;
}

void search_by_chain(const Problem& problem, const DeviceProblem& device,
                     const AnchorSubset& anchors, const CandidateLists<float>& kept, int64_t depth,
                     const Call& call) {
  const CrossPlan plan = plan_cross(problem, depth, kept.depth / depth, call);
  launch_cross(problem, device, plan, anchors, kept, call);
}

template CandidateLists<float> chain_pass(const Problem&, const DeviceProblem&, int64_t,
                                          const Call&);
template CandidateLists<double> chain_pass(const Problem&, const DeviceProblem&, int64_t,
                                           const Call&);

}  // namespace usucl::cuda

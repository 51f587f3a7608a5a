// Sets a bar for every anchor, from its scores with a sample of the keys.
//
// One of every `stride` keys is in the sample, chosen by a hash of the position. About depth /
// stride of the `depth` hardest are in it, and the bar is the score of a rank there such that
// almost always at least `depth` keys reach it (dense.cu). decide.cu checks whether they do.
#include "sweep.h"

namespace usucl::cuda {
namespace {

// Whether all of a tile's keys repeat one key that occurs so often before them that every anchor
// has `depth` of its copies as negatives, at least one per group. Equal keys rank by their index,
// so none of the tile is among the hardest.
__device__ bool repeats_enough(const DenseOperands& operands, int32_t tile, int64_t depth) {
  const auto all_repeat = [&](int32_t t, int word) {
    return operands.bits[t].repeats[word] == ~0u;
  };
  // The rows of an incomplete tile end with zeros.
  for (int w = 0; w < KeyBits::kWords; ++w) {
    if (!all_repeat(tile, w)) return false;
  }
  int64_t found = 0;
  for (int32_t t = tile - 1; t >= 0; --t) {
    for (int w = KeyBits::kWords - 1; w >= 0; --w) {
      // If the first key of a word repeats too, the whole word equals the key before it.
      if (!all_repeat(t, w)) return false;
      found += __popc(operands.bits[t].last_of_group[w]);
      if (found >= depth) return true;
    }
  }
  return false;
}

// The place in the tiles of keys of number `sampled` of the sample.
__device__ inline int64_t sampled_place(int64_t sampled, int32_t stride) {
  const uint32_t hash = static_cast<uint32_t>(sampled) * 2654435761u >> 16;
  return sampled * stride + (hash & static_cast<uint32_t>(stride - 1));
}

// Neighbouring keys are alike, so neighbours in the sample never share a seed.
__device__ inline SampledKey sampled_key(const DenseOperands& operands, const SamplePlan& sample,
                                         int64_t depth, int32_t tile, int of_tile) {
  const int32_t groups = sample.tiles / sample.merged;
  const int64_t sampled =
      (int64_t{of_tile} * sample.merged + tile % sample.merged) * groups + tile / sample.merged;
  const int64_t place = sampled_place(sampled, sample.stride);
  SampledKey key{nullptr, ShortTag::none()};
  if (place >= int64_t{operands.tiles} * kTileKeys) return key;
  const auto number = static_cast<int32_t>(place / kTileKeys);
  const KeyTile& of = operands.tile[number];
  const auto row = static_cast<int32_t>(place % kTileKeys);
  if (row >= of.count) return key;
  key.row = of.rows + row * int64_t{sample.row_bytes};
  if (!repeats_enough(operands, number, depth)) key.tag = operands.tag[place];
  return key;
}

__global__ void __launch_bounds__(kThreads)
    choose_kernel(const __grid_constant__ DenseOperands operands,
                  const __grid_constant__ SamplePlan sample, int64_t depth) {
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t s = first; s < int64_t{sample.tiles} * kTileKeys; s += step) {
    sample.key[s] = sampled_key(operands, sample, depth, static_cast<int32_t>(s / kTileKeys),
                                static_cast<int>(s % kTileKeys));
  }
  for (int64_t tile = first; tile < operands.tiles; tile += step) {
    if (repeats_enough(operands, static_cast<int32_t>(tile), depth)) {
      operands.tile[tile].only_video = KeyTile::kPassedOver;
    }
  }
}

// This thread's rows of a tile of the sample.
struct SampledRows {
  const unsigned char* row[kRowsEach];

  __device__ const unsigned char* operator[](int n) const { return row[n]; }
};

struct SampleShared {
  ShortTag anchor[kTileAnchors];
  ShortTag key[kTileKeys];
  float highest[kTileAnchors];  // score that surely counts
  TileMemory tiles;
};

// The warps cover a tile as 2 x 4, and four lanes of each have columns of the same row: every one
// of them makes a seed.
static_assert(kSeedsOfTile == 4 * 4);

// One thread block per multiprocessor: it has registers for the addresses of the next rows.
template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, 1)
    sample_kernel(const __grid_constant__ DeviceProblem device,
                  const __grid_constant__ DenseOperands operands,
                  const __grid_constant__ Margins margins,
                  const __grid_constant__ DenseMemory memory,
                  const __grid_constant__ SamplePlan sample, KeySplits splits) {
  using Sweep = DenseSweep<Elements>;
  using Product = typename Sweep::Product;
  SampleShared& shared = shared_memory<SampleShared>();
  const Problem problem = device.view();
  const Frames& anchors = problem.anchors;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t rows = anchors.embedding.rows;
  Sweep sweep(operands, shared.tiles);
  int64_t first_anchor = 0;
  float greatest[Product::kLaneRows];

  const auto rows_of = [&](int32_t tile) {
    SampledRows rows;
#pragma unroll
    for (int n = 0; n < kRowsEach; ++n) {
      rows.row[n] = sample.key[int64_t{tile} * kTileKeys + own_row(n)].row;
    }
    return rows;
  };
  ShortTag next_tag{};  // for the next tile, loaded ahead
  const auto ask_for_tag = [&](int32_t tile) {
    if (thread < kTileKeys && tile < sample.tiles) {
      next_tag = sample.key[int64_t{tile} * kTileKeys + thread].tag;
    }
  };
  const auto begin = [&](int32_t tile) {
    if (thread < kTileKeys) shared.key[thread] = next_tag;
    ask_for_tag(tile + 1);
  };
  const auto end = [&](int32_t tile, const Product& product) {
    if (operands.chunks == 1) __syncthreads();  // the tags are there
    const bool first_merged = tile % sample.merged == 0;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = Sweep::first_row() + Product::row(r);
      const ShortTag anchor = shared.anchor[row];
      const float highest = shared.highest[row];
      float most = first_merged ? -INFINITY : greatest[r];
#pragma unroll
      for (int c = 0; c < Product::kLaneColumns; ++c) {
        const float score = product.value(r, c);
        const ShortTag key = shared.key[Sweep::first_column() + Product::column(c)];
        if (surely_crosses(anchor, key) && score <= highest) most = fmaxf(most, score);
      }
      greatest[r] = most;
    }
    if (tile % sample.merged != sample.merged - 1) return;
    const int64_t seed = sample.first_seed + int64_t{tile / sample.merged} * kSeedsOfTile +
                         warp() % 4 * 4 + thread % 4;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int64_t i = first_anchor + Sweep::first_row() + Product::row(r);
      if (i < rows) memory.seeds[i * sample.num_seeds + seed] = greatest[r];
    }
  };
  for_each_item(operands.anchor_tiles, sample.tiles, splits,
                [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
                  first_anchor = int64_t{anchor_tile} * kTileAnchors;
                  __syncthreads();  // the previous item is done
                  if (thread < kTileAnchors) {
                    const int64_t i = first_anchor + thread;
                    const bool there = i < rows;
                    const float norm = there ? memory.anchor_norm[i] : -1.0f;
                    const float margin = norm < 0 ? INFINITY : margins(norm);
                    const float greatest = there ? problem.greatest_valid<float>(i) : INFINITY;
                    const float guard = greatest - margin;
                    shared.anchor[thread] =
                        ShortTag::of_anchor(there ? anchors.tag(i) : FrameTag{-1, 0, -1});
                    // An infinite guard minus an infinite margin is NaN; fminf ignores it.
                    shared.highest[thread] = fminf(guard, 3.4e38f);
                  }
                  ask_for_tag(first);
                  sweep.run(anchor_tile, first, tiles, rows_of, begin, end);
                });
}

// Whether the seeds predict more nominees than a pool holds, by a warp.
__device__ bool is_crowded(const float* seeds, const AnchorStart& start, const DensePlan& plan) {
  if (start.bar == -INFINITY) return false;
  const float limit = limit_of(start.bar, start.margin);
  int32_t reach = 0;
  for (int64_t s = lane(); s < plan.num_seeds; s += 32) reach += seeds[s] >= limit;
  return WarpTeam::sum(reach) > plan.most_reaching;
}

// The shared memory of one warp.
struct StartShared {
  uint32_t histogram[kDigits];
  float seed[1];  // the other seeds follow here

  static int64_t bytes(int64_t num_seeds) {
    return static_cast<int64_t>(sizeof(StartShared)) + num_seeds * int64_t{sizeof(float)};
  }
};

constexpr int kStartWarps = kThreads / 32;

// One warp per anchor.
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    start_kernel(int64_t rows, const __grid_constant__ Margins margins,
                 const __grid_constant__ DenseMemory memory, const __grid_constant__ DensePlan plan,
                 int64_t shared_bytes) {
  auto* all = reinterpret_cast<unsigned char*>(&shared_memory<StartShared>());
  auto& shared = *reinterpret_cast<StartShared*>(all + warp() * shared_bytes);
  const int64_t step = int64_t{gridDim.x} * kStartWarps;
  for (int64_t i = blockIdx.x * kStartWarps + warp(); i < rows; i += step) {
    const float norm = memory.anchor_norm[i];
    AnchorStart start{-INFINITY, -1.0f};
    if (norm >= 0) {
      start.margin = margins(norm);
      if (start.margin < INFINITY) {
        const float* seeds = memory.seeds + i * plan.num_seeds;
        __syncwarp();  // the previous anchor's are no longer in use
#pragma unroll 8
        for (int64_t s = lane(); s < plan.num_seeds; s += 32) shared.seed[s] = seeds[s];
        __syncwarp();
        start.bar = nearly_kth_greatest([&](int64_t s) { return shared.seed[s]; }, plan.num_seeds,
                                        plan.seed_rank, shared.histogram);
        // The sample within two margins of the bar predicts more nominees than fit.
        if (is_crowded(shared.seed, start, plan)) start.margin = INFINITY;
      }
    }
    if (lane() == 0) memory.start[i] = start;
  }
}

}  // namespace

void choose_sample(const DenseOperands& operands, const SamplePlan& sample, int64_t depth,
                   const Call& call) {
  const int64_t items = std::max(int64_t{sample.tiles} * kTileKeys, int64_t{operands.tiles});
  launch<choose_kernel>(grid_for(items, kThreads, call), kThreads, 0, call.stream, operands, sample,
                        depth);
}

void score_sample(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                  const Margins& margins, const DenseMemory& memory, const SamplePlan& sample,
                  const Call& call) {
  const int64_t at_once = call.multiprocessors;
  const KeySplits splits = split_keys(sample.tiles, at_once / operands.anchor_tiles, sample.merged);
  const int64_t grid = std::min<int64_t>(int64_t{operands.anchor_tiles} * splits.count, at_once);
  const int64_t shared_bytes =
      static_cast<int64_t>(sizeof(SampleShared)) + TileMemory::bytes_beyond(operands);
  with_elements(elements, [&](auto type) {
    launch<sample_kernel<decltype(type)>>(grid, kDenseThreads, shared_bytes, call.stream, device,
                                          operands, margins, memory, sample, splits);
  });
}

void start_anchors(int64_t rows, const Margins& margins, const DenseMemory& memory,
                   const DensePlan& plan, const Call& call) {
  const int64_t of_warp = StartShared::bytes(plan.num_seeds);
  launch<start_kernel>(grid_for(rows, kStartWarps, call), kThreads, kStartWarps * of_warp,
                       call.stream, rows, margins, memory, plan, of_warp);
}

}  // namespace usucl::cuda

// A bar for every anchor, from its scores with a sample of the keys.
//
// One of every `stride` keys is in the sample, which one is a hash of where. Of the `depth` hardest
// about depth / stride are in it, and the bar is the score of such a rank there that hardly ever
// `depth` keys fail to reach it (dense.cu). decide.cu asks whether they do.
#include "dense_tile.h"

namespace usucl::cuda {
namespace {

// Which key is number `place` of the sample.
__device__ inline int64_t sampled_place(int64_t place, int32_t stride) {
  const uint32_t hash = static_cast<uint32_t>(place) * 2654435761u >> 16;
  return place * stride + (hash & static_cast<uint32_t>(stride - 1));
}

struct SampledKey {
  const KeyTile* tile;
  int key;  // of the tile; beyond its count: none

  __device__ SampledKey(const DenseOperands& operands, const SamplePlan& sample,
                        int32_t tile_number, int of_tile)
      : tile(operands.tile), key(kTileKeys) {
    const int64_t place = sampled_place(int64_t{tile_number} * kTileKeys + of_tile, sample.stride);
    if (place >= int64_t{operands.tiles} * kTileKeys) return;
    tile += place / kTileKeys;
    key = static_cast<int>(place % kTileKeys);
  }

  __device__ bool there() const { return key < tile->count; }
};

struct SampledRows {
  const DenseOperands* operands;
  const SamplePlan* sample;
  int32_t tile;

  __device__ const unsigned char* operator()(int of_tile) const {
    const SampledKey sampled(*operands, *sample, tile, of_tile);
    if (!sampled.there()) return nullptr;
    return sampled.tile->rows + sampled.key * int64_t{sample->row_bytes};
  }
};

// Of a video and a patient the low bits: that two have them in common by chance costs nothing but a
// sampled key.
struct ShortTag {
  static constexpr uint32_t kNone = 0x80000000u;

  uint32_t video;
  uint32_t patient;
};

__device__ inline ShortTag short_tag(const FrameTag& tag, uint32_t unknown_patient) {
  const uint32_t video = static_cast<uint32_t>(tag.video) & ~ShortTag::kNone;
  const uint32_t patient = static_cast<uint32_t>(tag.patient) & ~ShortTag::kNone;
  return {tag.video < 0 ? ShortTag::kNone : video, tag.patient < 0 ? unknown_patient : patient};
}

struct SampleShared {
  ShortTag anchor[kTileAnchors];
  ShortTag key[kTileKeys];
  float highest[kTileAnchors];  // score that surely counts
  TileMemory tiles;
};

// The warps lie over a tile as 2 x 4, four lanes of each have columns of the same row, and a lane
// takes its columns in two halves: so many seeds a row.
static_assert(kSeedsOfTile == 4 * 4 * 2);

template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, kDenseBlocks)
    sample_kernel(const __grid_constant__ DeviceProblem device,
                  const __grid_constant__ DenseOperands operands,
                  const __grid_constant__ Margins margins,
                  const __grid_constant__ DenseMemory memory,
                  const __grid_constant__ SamplePlan sample, KeySplits splits) {
  using Sweep = DenseSweep<Elements>;
  using Product = typename Sweep::Product;
  constexpr int kHalf = Product::kLaneColumns / 2;
  SampleShared& shared = shared_memory<SampleShared>();
  const Problem problem = device.view();
  const Frames& anchors = problem.anchors;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t rows = anchors.embedding.rows;
  Sweep sweep(operands, shared.tiles);
  int64_t first_anchor = 0;
  float greatest[Product::kLaneRows][2];

  const auto rows_of = [&](int32_t tile) { return SampledRows{&operands, &sample, tile}; };
  const auto begin = [&](int32_t tile) {
    if (thread >= kTileKeys) return;
    const SampledKey sampled(operands, sample, tile, thread);
    ShortTag tag{ShortTag::kNone, ShortTag::kNone};
    if (sampled.there() && sampled.tile->video != KeyTile::kPassedOver) {
      const KeyPlace place =
          place_of(problem, sampled.tile->first_index + static_cast<uint32_t>(sampled.key));
      tag = short_tag(place.block->tag(place.row), ShortTag::kNone);
    }
    shared.key[thread] = tag;
  };
  const auto end = [&](int32_t tile, const Product& product) {
    if (operands.chunks == 1) __syncthreads();  // the tags are there
    const bool first_merged = tile % sample.merged == 0;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = Sweep::first_row() + Product::row(r);
      const ShortTag anchor = shared.anchor[row];
      const float highest = shared.highest[row];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = first_merged ? -INFINITY : greatest[r][half];
#pragma unroll
        for (int c = half * kHalf; c < (half + 1) * kHalf; ++c) {
          const float score = product.value(r, c);
          const ShortTag key = shared.key[Sweep::first_column() + Product::column(c)];
          const bool counts = key.video != anchor.video && key.video != ShortTag::kNone &&
                              key.patient != anchor.patient && score <= highest;
          if (counts) most = fmaxf(most, score);
        }
        greatest[r][half] = most;
      }
    }
    const bool last_merged = tile % sample.merged == sample.merged - 1 || tile + 1 == sample.tiles;
    if (!last_merged) return;
    const int64_t seed = sample.first_seed + int64_t{tile / sample.merged} * kSeedsOfTile +
                         Sweep::warp() % 4 * 8 + thread % 4 * 2;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int64_t i = first_anchor + Sweep::first_row() + Product::row(r);
      if (i >= rows) continue;
      float* const seeds = memory.seeds + i * sample.num_seeds + seed;
      seeds[0] = greatest[r][0];
      seeds[1] = greatest[r][1];
    }
  };
  for_each_item(operands.anchor_tiles, sample.tiles, splits,
                [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
                  first_anchor = int64_t{anchor_tile} * kTileAnchors;
                  __syncthreads();  // all are done with the item before
                  if (thread < kTileAnchors) {
                    const int64_t i = first_anchor + thread;
                    const bool there = i < rows;
                    const float norm = there ? memory.anchor_norm[i] : -1.0f;
                    const float margin = norm < 0 ? INFINITY : margins(norm);
                    const float guard = static_cast<float>(problem.max_similarity) - margin;
                    shared.anchor[thread] =
                        short_tag(there ? anchors.tag(i) : FrameTag{-1, 0, -1}, ~0u);
                    // NaN, of a guard and a margin that are infinite, is passed by.
                    shared.highest[thread] = fminf(guard, 3.4e38f);
                  }
                  sweep.run(anchor_tile, first, tiles, rows_of, begin, end);
                });
}

// Whether more than a pool holds would be nominated, as far as the seeds tell, by a warp.
__device__ bool is_crowded(const float* seeds, const AnchorStart& start, const DensePlan& plan) {
  if (start.bar == -INFINITY) return false;
  const float limit = limit_of(start.bar, start.margin);
  int32_t reach = 0;
  for (int64_t s = threadIdx.x % 32; s < plan.num_seeds; s += 32) reach += seeds[s] >= limit;
  return WarpTeam::sum(reach) > plan.most_reaching;
}

struct StartShared {
  uint32_t histogram[kThreads / 32][kDigits];
};

// One warp an anchor.
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    start_kernel(int64_t rows, const __grid_constant__ Margins margins,
                 const __grid_constant__ DenseMemory memory,
                 const __grid_constant__ DensePlan plan) {
  StartShared& shared = shared_memory<StartShared>();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  for (int64_t i = blockIdx.x * (kThreads / 32) + warp; i < rows; i += step) {
    const float norm = memory.anchor_norm[i];
    AnchorStart start{-INFINITY, -1.0f};
    if (norm >= 0) {
      start.margin = margins(norm);
      if (start.margin < INFINITY) {
        const float* seeds = memory.seeds + i * plan.num_seeds;
        start.bar = nearly_kth_greatest([&](int64_t s) { return seeds[s]; }, plan.num_seeds,
                                        plan.seed_rank, shared.histogram[warp]);
        // More than fit would be nominated: by what the sample has within two margins of the bar.
        if (is_crowded(seeds, start, plan)) start.margin = INFINITY;
      }
    }
    if (threadIdx.x % 32 == 0) memory.start[i] = start;
  }
}

}  // namespace

void score_sample(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                  const Margins& margins, const DenseMemory& memory, const SamplePlan& sample,
                  const Call& call) {
  const int64_t at_once = 2 * call.multiprocessors;
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
  launch<start_kernel>(grid_for(rows, kThreads / 32, call), kThreads, sizeof(StartShared),
                       call.stream, rows, margins, memory, plan);
}

}  // namespace usucl::cuda

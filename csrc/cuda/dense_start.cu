// What the dense pass knows before it looks at all keys: norms, anchors as tensor cores take them,
// and a bar for every anchor from the scores of a sample.
#include "dense_tile.h"

namespace usucl::cuda {
namespace {

__device__ inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Rounded to nearest, ties to even, at the lowest of `dropped` bits.
__device__ inline uint32_t round_bits(uint32_t bits, int dropped) {
  return bits + (1u << (dropped - 1)) - 1 + (bits >> dropped & 1u);
}

// A finite value as these elements; float32 keeps what TF32 has of it.
template <typename Elements>
__device__ uint32_t as_element(float value) {
  const uint32_t bits = bits_of(value);
  if (Elements::kDType == DType::kBFloat16) return round_bits(bits, 16) >> 16;
  if (Elements::kDType == DType::kFloat32) return round_bits(bits, 13) & ~0x1fffu;
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude < 0x38800000u) {  // subnormal: a multiple of 2^-24
    const float units = fabsf(value) * 0x1p24f;
    return sign | static_cast<uint32_t>(rintf(units));
  }
  return sign | ((round_bits(magnitude, 13) >> 13) - (112u << 10));
}

// Of a row, by one warp, rounded up; NaN if an element is not finite.
__device__ float norm_of(const Matrix& matrix, int64_t row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float squares = 0;
  bool finite = true;
  for (int64_t d = lane; d < matrix.dim; d += 32) {
    const float value = element<float>(matrix, row, d);
    finite &= value - value == 0.0f;
    squares = fused_multiply_add(value, value, squares);
  }
  const bool all_finite = __all_sync(kWholeWarp, finite) != 0;
  // An element whose square is lost is below 2^-74.
  const float norm =
      sqrtf(WarpTeam::sum(squares)) + sqrtf(static_cast<float>(matrix.dim)) * 0x1p-70f;
  return all_finite ? norm * (1.0f + static_cast<float>(matrix.dim + 64) * 0x1p-23f) : NAN;
}

// One warp an anchor, rows beyond the last one too, which are zeros.
template <typename Elements>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    pack_kernel(const __grid_constant__ Frames anchors,
                const __grid_constant__ DenseOperands operands, Piece* packed, float* anchor_norm) {
  constexpr int kOfWord = sizeof(uint32_t) / Elements::kBytes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t rows = int64_t{operands.anchor_tiles} * kTileAnchors;
  const int64_t words = int64_t{operands.chunks} * kChunkBytes / sizeof(uint32_t);
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  const Matrix& matrix = anchors.embedding;
  for (int64_t i = blockIdx.x * (kThreads / 32) + threadIdx.x / 32; i < rows; i += step) {
    float norm = NAN;
    if (i < matrix.rows) norm = norm_of(matrix, i);
    const bool searches = norm >= 0 && anchors.video[i] >= 0;  // NaN does not
    auto* out = reinterpret_cast<uint32_t*>(packed) + i * words;
    for (int64_t w = lane; w < words; w += 32) {
      uint32_t word = 0;
      for (int h = 0; h < kOfWord; ++h) {
        const int64_t d = w * kOfWord + h;
        if (searches && d < matrix.dim) {
          word |= as_element<Elements>(element<float>(matrix, i, d)) << (16 * h);
        }
      }
      out[w] = word;
    }
    if (lane == 0 && i < matrix.rows) anchor_norm[i] = searches ? norm : -1.0f;
  }
}

// Whether a row has, bit for bit, the elements of the row before, by one warp.
__device__ bool repeats(const Matrix& matrix, int64_t row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t start = 0; start < matrix.dim; start += 32) {
    const int64_t d = start + lane;
    const bool same = d >= matrix.dim || bits_of(element<float>(matrix, row, d)) ==
                                             bits_of(element<float>(matrix, row - 1, d));
    if (!__all_sync(kWholeWarp, same)) return false;  // most rows differ at once
  }
  return true;
}

// Norms of keys are not negative: their bits are in their order.
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    survey_kernel(const __grid_constant__ DeviceProblem device, DType elements, uint32_t* greatest,
                  uint32_t* runs) {
  const Problem problem = device.view();
  const int64_t first = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  int64_t first_index = 0;
  float norm = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Frames& keys = problem.blocks[b];
    const int64_t rows = keys.embedding.dtype == elements ? keys.embedding.rows : 0;
    for (int64_t row = first; row < rows; row += step) {
      if (keys.video[row] >= 0) norm = fmaxf(norm, norm_of(keys.embedding, row));
      if (row > 0 && repeats(keys.embedding, row) && threadIdx.x % 32 == 0) {
        const int64_t index = first_index + row;
        atomicAdd(&runs[index / 32], 1u << (index % 32));  // each bit once
      }
    }
    first_index += keys.embedding.rows;
  }
  if (threadIdx.x % 32 == 0 && norm > 0) atomicMax(greatest, bits_of(norm));
}

struct SeedShared {
  AnchorTags anchors;
  KeyTags keys;
  float margin[kTileAnchors];
  TileMemory tiles;
};

// Every lane's share of a row of one tile, 8 keys, gives its greatest score: those of different
// lanes and tiles are of different keys.
template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, kDenseBlocks)
    seed_kernel(const __grid_constant__ DeviceProblem device,
                const __grid_constant__ DenseOperands operands, Margins margins, DenseMemory memory,
                SeedPlan plan) {
  using Product = WarpProduct<Elements>;
  SeedShared& shared = shared_memory<SeedShared>();
  const Problem problem = device.view();
  const int64_t anchor_tile = blockIdx.x % operands.anchor_tiles;
  const int64_t seed = blockIdx.x / operands.anchor_tiles;
  const int64_t first_anchor = anchor_tile * kTileAnchors, rows = problem.anchors.embedding.rows;
  const auto max_similarity = static_cast<float>(problem.max_similarity);
  DenseSweep<Elements> sweep(problem, operands, shared.tiles);
  const auto begin = [&](int32_t, const KeyTile& tile) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kTileAnchors) {
      const int64_t i = first_anchor + thread;
      load_anchor(shared.anchors, thread, problem.anchors, i);
      const float norm = i < rows ? memory.anchor_norm[i] : -1.0f;
      shared.margin[thread] = norm < 0 ? INFINITY : margins(norm);
    } else {
      shared.keys.load(tile, thread - kTileAnchors);
    }
  };
  const auto end = [&](const Product& product) {
    const int share = DenseSweep<Elements>::first_column() / Product::kLaneColumns +
                      static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = sweep.first_row() + Product::row(r);
      float greatest = -INFINITY;
#pragma unroll
      for (int c = 0; c < Product::kLaneColumns; ++c) {
        const float score = product.value(r, c);
        const int key = sweep.first_column() + Product::column(c);
        if (score > greatest && score < INFINITY &&
            surely_counts(score, shared.margin[row], max_similarity) &&
            shared.anchors.has_negative(row, shared.keys, key)) {
          greatest = score;
        }
      }
      if (first_anchor + row >= rows) continue;
      float* const seeds = memory.seeds + (first_anchor + row) * plan.num_seeds + plan.first_seed;
      seeds[seed * kSeedsOfTile + share] = greatest;
    }
  };
  const int64_t tile = (2 * seed + 1) * operands.tiles / (2 * plan.tiles);
  sweep.run(static_cast<int32_t>(anchor_tile), static_cast<int32_t>(tile), 1, begin, end);
}

struct StartShared {
  uint32_t histogram[kThreads / 32][kDigits];
};

// One warp an anchor.
__global__ void __launch_bounds__(kThreads)
    start_kernel(int64_t rows, Margins margins, DenseMemory memory, DensePlan plan) {
  StartShared& shared = shared_memory<StartShared>();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  for (int64_t i = blockIdx.x * (kThreads / 32) + warp; i < rows; i += step) {
    const float norm = memory.anchor_norm[i];
    AnchorStart start{-INFINITY, -1.0f, {}};
    if (norm >= 0) {
      start.margin = margins(norm);
      if (start.margin < INFINITY) {
        const float* seeds = memory.seeds + i * plan.num_seeds;
        start.bar = kth_greatest([&](int64_t s) { return seeds[s]; }, plan.num_seeds, plan.depth,
                                 shared.histogram[warp]);
        start.scale = Scale::of(start.bar, norm * margins.greatest_key() + start.margin);
      }
    }
    if (threadIdx.x % 32 == 0) memory.start[i] = start;
  }
}

}  // namespace

void pack_anchors(DType elements, const Frames& anchors, const DenseOperands& operands,
                  Piece* packed, float* anchor_norm, const Call& call) {
  const int64_t rows = int64_t{operands.anchor_tiles} * kTileAnchors;
  with_elements(elements, [&](auto type) {
    launch<pack_kernel<decltype(type)>>(grid_for(rows, kThreads / 32, call), kThreads, 0,
                                        call.stream, anchors, operands, packed, anchor_norm);
  });
}

void survey_keys(DType elements, const DeviceProblem& device, int64_t tiles, uint32_t* greatest,
                 uint32_t* runs, const Call& call) {
  launch<survey_kernel>(grid_for(tiles * kTileKeys, kThreads / 32, call), kThreads, 0, call.stream,
                        device, elements, greatest, runs);
}

void score_seeds(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                 const Margins& margins, const DenseMemory& memory, const SeedPlan& plan,
                 const Call& call) {
  const int64_t shared_bytes =
      static_cast<int64_t>(sizeof(SeedShared)) + TileMemory::bytes_beyond(operands);
  with_elements(elements, [&](auto type) {
    launch<seed_kernel<decltype(type)>>(operands.anchor_tiles * plan.tiles, kDenseThreads,
                                        shared_bytes, call.stream, device, operands, margins,
                                        memory, plan);
  });
}

void start_anchors(int64_t rows, const Margins& margins, const DenseMemory& memory,
                   const DensePlan& plan, const Call& call) {
  launch<start_kernel>(grid_for(rows, kThreads / 32, call), kThreads, sizeof(StartShared),
                       call.stream, rows, margins, memory, plan);
}

}  // namespace usucl::cuda

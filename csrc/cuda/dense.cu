// The cross-video candidates of large problems: tensor cores nominate (nomination.h), the chain
// decides.
//
// A score below its anchor's limit costs an eighth of a comparison. What reaches the limit is asked
// for its video, appended to the anchor's list, and counted in a histogram that all thread blocks
// share: so the bar of an anchor rises by what all of them have seen, and the limit with it. Late
// news only costs time. A list that could overflow with the next tile is cut to what reaches the
// limit; where that is still too much, because more keys than fit are within the margin of the last
// rank, nobody is nominated and the chain searches.
#include "dense_tile.h"

namespace usucl::cuda {
namespace {

// --- what is known before: norms, anchors as tensor cores take them
// -------------------------------

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

template <typename T>
__device__ T sum_in_warp(T value) {
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kWholeWarp, value, bits);
  return value;
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
  const float norm = sqrtf(sum_in_warp(squares)) + sqrtf(static_cast<float>(matrix.dim)) * 0x1p-70f;
  return all_finite ? norm * (1.0f + static_cast<float>(matrix.dim + 64) * 0x1p-23f) : NAN;
}

// One warp an anchor, rows beyond the last one too, which are zeros.
template <typename Elements>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(Frames anchors, DenseOperands operands, Piece* packed, float* anchor_norm) {
  constexpr int kOfWord = Elements::kDType == DType::kFloat32 ? 1 : 2;
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

// Norms of keys are not negative: their bits are in their order.
__global__ void __launch_bounds__(kThreads)
    norm_kernel(const __grid_constant__ DeviceProblem device, DType elements, uint32_t* greatest) {
  const Problem problem = device.view();
  const int64_t first = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  float norm = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Frames& keys = problem.blocks[b];
    if (keys.embedding.dtype != elements) continue;
    for (int64_t row = first; row < keys.embedding.rows; row += step) {
      if (keys.video[row] >= 0) norm = fmaxf(norm, norm_of(keys.embedding, row));
    }
  }
  if (threadIdx.x % 32 == 0 && norm > 0) atomicMax(greatest, bits_of(norm));
}

// --- where the search starts: scores of a sample of the keys
// --------------------------------------

struct SeedShared {
  AnchorTags anchors;
  KeyTags keys;
  float margin[kTileAnchors];
  TileMemory tiles;
};

__device__ inline void load_anchor(AnchorTags& tags, int row, const Frames& anchors, int64_t i) {
  const bool there = i < anchors.embedding.rows;
  const FrameTag tag = there ? anchors.tag(i) : FrameTag{-1, 0, -1};
  tags.video[row] = tag.video;
  tags.patient[row] = tag.patient;
}

// Every lane's share of a row of one tile, 8 keys, gives its greatest score: those of different
// lanes and tiles are of different keys.
template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, 2)
    seed_kernel(const __grid_constant__ DeviceProblem device,
                const __grid_constant__ DenseOperands operands, Margins margins, DenseMemory memory,
                SeedPlan plan) {
  using Product = WarpProduct<Elements>;
  constexpr int kShares = kTileKeys / Product::kLaneColumns;
  SeedShared& shared = shared_memory<SeedShared>();
  const Problem problem = device.view();
  const int64_t anchor_tile = blockIdx.x % operands.anchor_tiles;
  const int64_t seed = blockIdx.x / operands.anchor_tiles;
  const int64_t first_anchor = anchor_tile * kTileAnchors, rows = problem.anchors.embedding.rows;
  const auto max_similarity = static_cast<float>(problem.max_similarity);
  DenseSweep<Elements> sweep(problem, operands, shared.tiles);
  const auto begin = [&](int32_t, const KeyTile& tile, bool) {
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
      memory
          .seeds[(first_anchor + row) * plan.num_seeds + plan.first_seed + seed * kShares + share] =
          greatest;
    }
  };
  const int64_t tile = (2 * seed + 1) * operands.tiles / (2 * plan.tiles);
  sweep.run(
      static_cast<int32_t>(anchor_tile), static_cast<int32_t>(tile), 1, [] { return false; }, begin,
      end);
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

// --- all keys
// -------------------------------------------------------------------------------------

struct Arrival {
  float score;
  int16_t row;
  int16_t key;
};

constexpr int kArrivals = 32 * 8;  // in one row of every lane

// What a warp needs by turns.
union WarpMemory {
  uint32_t histogram[kDigits];
  Arrival arrival[kArrivals];
};

struct NominateShared {
  AnchorTags anchors;
  KeyTags keys;
  Scale scale[kTileAnchors];
  float bar[kTileAnchors];
  float margin[kTileAnchors];
  float limit[kTileAnchors];    // of this tile
  int32_t count[kTileAnchors];  // of the list; above the capacity: the chain must search
  int32_t arrivals[kDenseWarps];
  WarpMemory warp[kDenseWarps];
  TileMemory tiles;
};

template <typename Elements>
class Nomination {
 public:
  using Product = WarpProduct<Elements>;

  __device__ Nomination(const Problem& problem, const DenseOperands& operands,
                        const DenseMemory& memory, const DensePlan& plan, NominateShared& shared)
      : problem_(problem),
        operands_(operands),
        memory_(memory),
        plan_(plan),
        shared_(shared),
        lists_(memory.lists + int64_t{blockIdx.x} * kTileAnchors * plan.capacity) {}

  // One tile of anchors with tiles first .. first + tiles - 1 of the keys.
  __device__ void run(int32_t anchor_tile, int32_t first, int32_t tiles) {
    first_anchor_ = int64_t{anchor_tile} * kTileAnchors;
    __syncthreads();
    start();
    DenseSweep<Elements> sweep(problem_, operands_, shared_.tiles);
    sweep.run(
        anchor_tile, first, tiles, [&] { return almost_full_; },
        [&](int32_t tile, const KeyTile& keys, bool asked) { begin(tile, keys, asked); },
        [&](const Product& product) { end(product); });
    __syncthreads();
    raise_bars(true);
    leave_nominees();
  }

 private:
  static constexpr int kRaiseEvery = 32;  // tiles, and after each power of two of them

  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int lane() { return thread() % 32; }
  static __device__ int warp() { return thread() / 32; }

  __device__ Nominee* list(int row) const { return lists_ + row * plan_.capacity; }
  __device__ float max_similarity() const { return static_cast<float>(problem_.max_similarity); }
  __device__ int almost_full() const { return plan_.capacity - kTileKeys; }

  __device__ void start() {
    if (thread() < kDenseWarps) shared_.arrivals[thread()] = 0;
    if (thread() >= kTileAnchors) return;
    const int64_t i = first_anchor_ + thread();
    load_anchor(shared_.anchors, thread(), problem_.anchors, i);
    AnchorStart start{INFINITY, -1.0f, {}};
    if (i < problem_.anchors.embedding.rows) start = memory_.start[i];
    const bool unsettled = !(start.margin < INFINITY);
    shared_.scale[thread()] = start.scale;
    shared_.margin[thread()] = start.margin;
    shared_.bar[thread()] = start.margin < 0 || unsettled ? INFINITY : start.bar;
    shared_.count[thread()] = unsettled ? plan_.capacity + 1 : 0;
  }

  __device__ void begin(int32_t tile, const KeyTile& keys, bool asked) {
    if (asked || (tile > 0 && (tile & (tile - 1)) == 0) || tile % kRaiseEvery == kRaiseEvery - 1) {
      raise_bars(false);
      __syncthreads();
    }
    if (thread() < kTileAnchors) {
      const bool searches = shared_.count[thread()] <= plan_.capacity;
      shared_.limit[thread()] =
          searches ? limit_of(shared_.bar[thread()], shared_.margin[thread()]) : INFINITY;
    } else {
      shared_.keys.load(keys, thread() - kTileAnchors);
    }
    almost_full_ = false;
  }

  __device__ void end(const Product& product) {
    const int first_row = DenseSweep<Elements>::first_row();
    const int first_column = DenseSweep<Elements>::first_column();
    int32_t* const arrivals = &shared_.arrivals[warp()];
    // Where one video fills the columns, all its own anchors' scores are passed over at once.
    const int64_t video = shared_.keys.video[first_column + lane()];
    const bool one_video = __all_sync(kWholeWarp, video == __shfl_sync(kWholeWarp, video, 0)) != 0;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = first_row + Product::row(r);
      const float limit = shared_.limit[row];
      const bool some = product.greatest(r) >= limit &&
                        !(one_video && (video < 0 || video == shared_.anchors.video[row]));
      if (!__any_sync(kWholeWarp, some)) continue;
      if (some) {
#pragma unroll
        for (int c = 0; c < Product::kLaneColumns; ++c) {
          const float score = product.value(r, c);
          if (!(score >= limit)) continue;
          const int column = first_column + Product::column(c);
          shared_.warp[warp()].arrival[atomicAdd(arrivals, 1)] = {score, static_cast<int16_t>(row),
                                                                  static_cast<int16_t>(column)};
        }
      }
      __syncwarp();
      admit(*arrivals);
      __syncwarp();
      if (lane() == 0) *arrivals = 0;
      __syncwarp();
    }
  }

  // The scores that reached their limit: which keys count, and in which bucket.
  __device__ void admit(int count) {
    if (memory_.statistics != nullptr && lane() == 0) {
      atomicAdd(&memory_.statistics->arrivals, static_cast<unsigned long long>(count));
    }
    for (int a = lane(); a < count; a += 32) {
      const Arrival arrival = shared_.warp[warp()].arrival[a];
      const float margin = shared_.margin[arrival.row];
      if (!may_count(arrival.score, margin, max_similarity())) continue;
      if (!shared_.anchors.has_negative(arrival.row, shared_.keys, arrival.key)) continue;
      const int at = atomicAdd(&shared_.count[arrival.row], 1);
      const auto index = shared_.keys.first_index + static_cast<uint32_t>(arrival.key);
      list(arrival.row)[at] = {arrival.score, index};
      if (at >= almost_full()) almost_full_ = true;
      if (!surely_counts(arrival.score, margin, max_similarity())) continue;
      const int bucket = shared_.scale[arrival.row].bucket(arrival.score);
      const int64_t i = first_anchor_ + arrival.row;
      if (bucket >= 0) atomicAdd(&memory_.histogram[i * Scale::kBuckets + bucket], 1u);
    }
  }

  // Between barriers. A warp takes every kDenseWarps-th row.
  __device__ void raise_bars(bool last) {
    for (int row = warp(); row < kTileAnchors; row += kDenseWarps) {
      const int64_t i = first_anchor_ + row;
      const int count = shared_.count[row];
      if (i >= problem_.anchors.embedding.rows || count > plan_.capacity) continue;
      const float margin = shared_.margin[row];
      if (margin < 0) continue;
      float bar = fmaxf(shared_.bar[row], shared_bar(i, row));
      int kept = count;
      if (last || count > almost_full()) kept = cut(row, count, bar, margin);
      if (!last && kept > almost_full()) {
        // Too many in one bucket: what this list holds tells them apart.
        bar = fmaxf(bar, own_bar(row, kept, margin));
        kept = cut(row, kept, bar, margin);
        if (kept > almost_full()) kept = plan_.capacity + 1;
      }
      __syncwarp();  // all have read
      if (lane() == 0) {
        shared_.bar[row] = bar;
        shared_.count[row] = kept;
      }
      __syncwarp();  // it is this warp that reads them next
    }
  }

  __device__ float shared_bar(int64_t i, int row) const {
    const uint32_t* histogram = memory_.histogram + i * Scale::kBuckets;
    int64_t above = 0;
    const int bucket =
        digit_of([&](int b) { return load_relaxed(histogram + b); }, plan_.depth, &above);
    return bucket < 0 ? -INFINITY : shared_.scale[row].edge(bucket);
  }

  __device__ float own_bar(int row, int count, float margin) {
    const Nominee* nominees = list(row);
    const auto score = [&](int64_t n) {
      const float score = nominees[n].score;
      return surely_counts(score, margin, max_similarity()) ? score : -INFINITY;
    };
    return kth_greatest(score, count, plan_.depth, shared_.warp[warp()].histogram);
  }

  __device__ int cut(int row, int count, float bar, float margin) {
    const float limit = limit_of(bar, margin);
    return keep_those(list(row), count, [&](const Nominee& n) { return n.score >= limit; });
  }

  __device__ void leave_nominees() {
    for (int row = warp(); row < kTileAnchors; row += kDenseWarps) {
      const int64_t i = first_anchor_ + row;
      if (i >= problem_.anchors.embedding.rows) break;
      const int count = shared_.count[row];
      if (count == 0) continue;
      const bool all = count <= plan_.capacity;
      int first = 0;
      if (lane() == 0) {
        first = atomicAdd(&memory_.pool_count[i], all ? count : plan_.pool_capacity + 1);
      }
      first = __shfl_sync(kWholeWarp, first, 0);
      if (!all) continue;
      for (int n = lane(); n < count && first + n < plan_.pool_capacity; n += 32) {
        memory_.pool[i * plan_.pool_capacity + first + n] = list(row)[n];
      }
    }
  }

  const Problem& problem_;
  const DenseOperands& operands_;
  const DenseMemory& memory_;
  const DensePlan& plan_;
  NominateShared& shared_;
  Nominee* lists_;  // [kTileAnchors, capacity]
  int64_t first_anchor_ = 0;
  bool almost_full_ = false;  // a list to which this thread has added
};

template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, 2)
    nominate_kernel(const __grid_constant__ DeviceProblem device,
                    const __grid_constant__ DenseOperands operands,
                    const __grid_constant__ DenseMemory memory,
                    const __grid_constant__ DensePlan plan, KeySplits splits) {
  NominateShared& shared = shared_memory<NominateShared>();
  const Problem problem = device.view();
  Nomination<Elements> nomination(problem, operands, memory, plan, shared);
  const int32_t items = operands.anchor_tiles * splits.count;
  // Neighbours take the same keys at the same time.
  for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items; item += gridDim.x) {
    const int32_t first = item / operands.anchor_tiles * splits.tiles_each;
    const int32_t rest = operands.tiles - first;
    nomination.run(item % operands.anchor_tiles, first,
                   rest < splits.tiles_each ? rest : splits.tiles_each);
  }
}

// --- the pass
// -------------------------------------------------------------------------------------

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t tiles_of(const Problem& problem, DType elements) {
  int64_t tiles = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& keys = problem.blocks[b].embedding;
    if (keys.dtype == elements) tiles += ceil_divide(keys.rows, kTileKeys);
  }
  return tiles;
}

// Launches for the keys of one element type.
template <typename Elements>
class DenseLaunches {
 public:
  DenseLaunches(const Problem& problem, const DeviceProblem& device, const Call& call)
      : device_(device), call_(call), anchors_(problem.anchors) {
    const Matrix& matrix = problem.anchors.embedding;
    const int64_t row_bytes = matrix.dim * bytes_of(Elements::kDType);
    operands_.anchor_tiles = static_cast<int32_t>(ceil_divide(matrix.rows, kTileAnchors));
    operands_.chunks = static_cast<int32_t>(ceil_divide(row_bytes, kChunkBytes));
    operands_.tiles = static_cast<int32_t>(tiles_of(problem, Elements::kDType));
    operands_.resident = shared_bytes<NominateShared>(true) <= call.shared_bytes;
  }

  int64_t tiles() const { return operands_.tiles; }
  int64_t anchor_tiles() const { return operands_.anchor_tiles; }

  void prepare(const DenseMemory& memory, uint32_t* key_norm) {
    const int64_t rows = int64_t{operands_.anchor_tiles} * kTileAnchors;
    auto* packed = call_.memory.array<Piece>(rows * operands_.chunks * kChunkPieces);
    launch<pack_kernel<Elements>>(grid_for(rows, kThreads / 32, call_), kThreads, 0, call_.stream,
                                  anchors_, operands_, packed, memory.anchor_norm);
    launch<norm_kernel>(grid_for(tiles() * kTileKeys, kThreads / 32, call_), kThreads, 0,
                        call_.stream, device_, Elements::kDType, key_norm);
    operands_.anchors = packed;
  }

  void seed(const Margins& margins, const DenseMemory& memory, const SeedPlan& plan) const {
    launch<seed_kernel<Elements>>(anchor_tiles() * plan.tiles, kDenseThreads,
                                  shared_bytes<SeedShared>(operands_.resident), call_.stream,
                                  device_, operands_, margins, memory, plan);
  }

  KeySplits splits() const {
    const int64_t splits = std::max<int64_t>(1, blocks_at_once(call_) / anchor_tiles());
    const int64_t each = ceil_divide(tiles(), std::min(splits, tiles()));
    return {static_cast<int32_t>(ceil_divide(tiles(), each)), static_cast<int32_t>(each)};
  }

  static int64_t blocks_at_once(const Call& call) { return 2 * call.multiprocessors; }

  int64_t grid() const { return std::min(anchor_tiles() * splits().count, blocks_at_once(call_)); }

  void nominate(const DenseMemory& memory, const DensePlan& plan) const {
    launch<nominate_kernel<Elements>>(grid(), kDenseThreads,
                                      shared_bytes<NominateShared>(operands_.resident),
                                      call_.stream, device_, operands_, memory, plan, splits());
  }

 private:
  template <typename Shared>
  int64_t shared_bytes(bool resident) const {
    return static_cast<int64_t>(sizeof(Shared)) +
           TileMemory::bytes_beyond(operands_.chunks, resident);
  }

  const DeviceProblem& device_;
  const Call& call_;
  Frames anchors_;
  DenseOperands operands_{};
};

// How many tiles of keys to take the sample from.
int64_t seed_tiles(int64_t tiles, int64_t depth) {
  constexpr int64_t kShares = kTileKeys / 8;  // seeds a tile gives
  constexpr int64_t kUsual = 32;
  constexpr int64_t kWorthwhile = 16;  // at most so much of the keys, twice for great depths
  const int64_t usual = std::min(kUsual, tiles / kWorthwhile);
  return std::max(usual, std::min(2 * ceil_divide(depth, kShares), 2 * tiles / kWorthwhile));
}

}  // namespace

bool takes_dense_pass(const Problem& problem, int64_t depth, const Call& call) {
  constexpr int64_t kMaxDepth = 1024;
  const int64_t keys = num_keys(problem), rows = problem.anchors.embedding.rows;
  if (!call.tensor_cores || rows == 0 || keys == 0 || rows >= INT32_MAX - kTileAnchors)
    return false;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    if (problem.blocks[b].embedding.dtype == DType::kFloat64) return false;
  }
  const int64_t dim = problem.anchors.embedding.dim;
  return depth <= kMaxDepth && dim > 0 && dim <= kMaxDim && keys < int64_t{UINT32_MAX} &&
         rows * keys >= call.smallest_dense;
}

Kept<float> dense_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                       const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
  DenseLaunches<BFloat16Elements> bfloat16(problem, device, call);
  DenseLaunches<Float16Elements> float16(problem, device, call);
  DenseLaunches<TF32Elements> tf32(problem, device, call);
  const auto for_each_type = [&](const auto& f) {
    if (bfloat16.tiles() > 0) f(bfloat16, DType::kBFloat16);
    if (float16.tiles() > 0) f(float16, DType::kFloat16);
    if (tf32.tiles() > 0) f(tf32, DType::kFloat32);
  };

  constexpr int64_t kShares = kTileKeys / 8;
  DensePlan plan{depth, 0, 0, 0};
  int64_t grid = 0;
  for_each_type([&](const auto& type, DType) {
    plan.num_seeds += seed_tiles(type.tiles(), depth) * kShares;
    grid = std::max(grid, type.grid());
  });
  // Beside what must be kept: one tile more, and room so that a list is not cut after every tile.
  plan.capacity = static_cast<int32_t>(depth + 2 * kTileKeys + std::max<int64_t>(depth, 64));
  plan.pool_capacity = static_cast<int32_t>(4 * depth + 512);
  const Kept<float> kept{call.memory.array<Candidate<float>>(rows * (2 * depth + 192)), 1,
                         2 * depth + 192, call.memory.array<int32_t>(rows)};

  // What begins with zeros, in one piece.
  const int64_t words = rows * Scale::kBuckets + rows + 1 + kElementTypes;
  auto* zeroed = call.memory.array<uint32_t>(words);
  cudaMemsetAsync(zeroed, 0, words * sizeof(uint32_t), call.stream);
  DenseMemory memory{};
  memory.histogram = zeroed;
  memory.pool_count = reinterpret_cast<int32_t*>(zeroed + rows * Scale::kBuckets);
  memory.num_unsettled = memory.pool_count + rows;
  auto* key_norm = zeroed + words - kElementTypes;
  memory.anchor_norm = call.memory.array<float>(rows);
  memory.seeds = call.memory.array<float>(rows * plan.num_seeds);
  memory.start = call.memory.array<AnchorStart>(rows);
  memory.lists = call.memory.array<Nominee>(grid * kTileAnchors * plan.capacity);
  memory.pool = call.memory.array<Nominee>(rows * plan.pool_capacity);
  memory.unsettled = call.memory.array<int32_t>(rows);
  memory.statistics = call.statistics;

  Margins margins{{}, key_norm};
  for_each_type([&](auto& type, DType elements) {
    margins.of[type_of(elements)] = Margin(problem.anchors.embedding.dtype, elements, dim);
    type.prepare(memory, key_norm + type_of(elements));
  });
  int64_t first_seed = 0;
  for_each_type([&](const auto& type, DType) {
    const int64_t tiles = seed_tiles(type.tiles(), depth);
    type.seed(margins, memory, {plan.num_seeds, first_seed, tiles});
    first_seed += tiles * kShares;
  });
  launch<start_kernel>(grid_for(rows, kThreads / 32, call), kThreads, sizeof(StartShared),
                       call.stream, rows, margins, memory, plan);
  for_each_type([&](const auto& type, DType) { type.nominate(memory, plan); });
  decide(problem, device, memory, plan, kept, call);
  search_by_chain(problem, device, {memory.unsettled, memory.num_unsettled}, kept, depth, call);
  return kept;
}

}  // namespace usucl::cuda

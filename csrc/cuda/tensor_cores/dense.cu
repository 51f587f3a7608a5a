// The cross-video candidates of large problems: tensor cores nominate, the chain decides.
#include "dense.h"

#include <cmath>
#include <vector>

namespace usucl::cuda {
namespace {

// Chooses the best layout of chunks that fits in shared memory, if there is one.
bool fit_in_shared(DenseOperands& operands, const Call& call) {
  for (const int32_t stages : {kMostStages, kFewestStages}) {
    for (const bool resident : {true, false}) {
      operands.stages = stages;
      operands.resident = resident;
      if (nominate_shared_bytes(operands) <= call.shared_bytes) return true;
    }
  }
  return false;
}

int64_t tiles_of(const Problem& problem, DType elements) {
  int64_t tiles = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& keys = problem.blocks[b].embedding;
    if (keys.dtype == elements) tiles += ceil_divide(keys.rows, kTileKeys);
  }
  return tiles;
}

// The keys of one element type, if any.
struct KeysOfType {
  DType elements;
  DenseOperands operands;
  SamplePlan sample;

  KeysOfType(DType type, const Problem& problem, const Call& call)
      : elements(type), operands{}, sample{} {
    const Matrix& anchors = problem.anchors.embedding;
    operands.dim = static_cast<int32_t>(anchors.dim);
    operands.anchor_tiles = static_cast<int32_t>(ceil_divide(anchors.rows, kTileAnchors));
    operands.chunks = static_cast<int32_t>(ceil_divide(anchors.dim * bytes_of(type), kChunkBytes));
    operands.tiles = static_cast<int32_t>(tiles_of(problem, type));
    fit_in_shared(operands, call);  // always fits: takes_dense_pass() has checked
  }
};

constexpr int64_t kMostSeeds = 512;

// How sparse the sample is. A sparse one is scored quickly but locates the hardest keys less
// precisely, so more keys are nominated.
int32_t stride_of(int64_t keys) {
  constexpr int32_t kThinnest = 64;
  int32_t stride = 1;
  while (stride < kThinnest && keys / (2 * stride) >= (stride < 4 ? 2048 : 8192)) stride *= 2;
  return stride;
}

// The least rank such that almost never as many of the `depth` hardest keys are in the sample, and
// so at least `depth` keys reach the score of that rank. Each is in the sample with probability
// 1 / stride, so their number has at most the tail of a Poisson distribution,
// P(>= r) <= e^-m (e m / r)^r for r > m, the mean (Mitzenmacher and Upfal, Probability and
// Computing, theorem 5.4).
int64_t seed_rank(int64_t depth, int32_t stride) {
  if (stride == 1) return depth;
  constexpr double kLogHardlyEver = -11.5;  // 1e-5
  const double mean = static_cast<double>(depth) / stride;
  int64_t rank = static_cast<int64_t>(mean) + 1;
  for (;; ++rank) {
    const auto r = static_cast<double>(rank);
    if (r * (1 + std::log(mean / r)) - mean < kLogHardlyEver) return rank;
  }
}

int64_t smallest_pool(int64_t depth) { return 4 * depth + 512; }

}  // namespace

bool takes_dense_pass(const Problem& problem, int64_t depth, const Call& call) {
  constexpr int64_t kMaxDepth = 1024;
  const int64_t keys = problem.num_keys(), rows = problem.anchors.embedding.rows;
  if (!call.tensor_cores || rows == 0 || keys == 0 || rows >= INT32_MAX - kTileAnchors) {
    return false;
  }
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& block = problem.blocks[b].embedding;
    if (block.dtype == DType::kFloat64 || block.rows > INT32_MAX) return false;
  }
  DenseOperands rows_of_any_length{};  // longer rows take no more
  rows_of_any_length.chunks = 2;
  if (!fit_in_shared(rows_of_any_length, call)) return false;
  // A seed is the best of eight keys. If more than a few of each eight were wanted, the bar would
  // be useless unless there is room for all keys.
  if (keys < 16 * depth && keys > smallest_pool(depth)) return false;
  const int64_t dim = problem.anchors.embedding.dim;
  return depth <= kMaxDepth && dim > 0 && dim <= kMaxDim && keys < int64_t{UINT32_MAX} &&
         rows * keys >= call.smallest_dense;
}

CandidateLists<float> dense_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                                 const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
  std::vector<KeysOfType> types;
  int64_t tiles = 0;
  for (const DType type : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    if (tiles_of(problem, type) > 0) types.emplace_back(type, problem, call);
  }
  const int32_t stride = stride_of(problem.num_keys());
  int64_t sampled = 0;
  for (KeysOfType& keys : types) {
    keys.sample.stride = stride;
    keys.sample.row_bytes = static_cast<int32_t>(dim * bytes_of(keys.elements));
    keys.sample.tiles = static_cast<int32_t>(ceil_divide(keys.operands.tiles, stride));
    sampled += keys.sample.tiles;
    tiles += keys.operands.tiles;
  }
  DensePlan plan{};
  plan.depth = depth;
  for (KeysOfType& keys : types) {
    SamplePlan& sample = keys.sample;
    sample.merged = static_cast<int32_t>(ceil_divide(sampled * kSeedsOfTile, kMostSeeds));
    const int64_t groups = ceil_divide(sample.tiles, sample.merged);
    sample.tiles = static_cast<int32_t>(groups * sample.merged);
    sample.first_seed = plan.num_seeds;
    plan.num_seeds += groups * kSeedsOfTile;
  }
  for (KeysOfType& keys : types) keys.sample.num_seeds = plan.num_seeds;
  plan.seed_rank = seed_rank(depth, stride);
  // Each sampled key above that rank's score stands for `stride` keys, with a spread of a few times
  // the square root of the rank; keys within the margin come in addition.
  const double spread = 8 * std::sqrt(static_cast<double>(plan.seed_rank));
  const int64_t expected =
      stride * (plan.seed_rank + static_cast<int64_t>(stride == 1 ? 0 : spread));
  plan.pool_capacity = static_cast<int32_t>(std::max(smallest_pool(depth), expected + 512));
  plan.most_reaching = plan.pool_capacity / stride;
  const CandidateLists<float> kept{call.memory.array<Candidate<float>>(rows * (2 * depth + 192)), 1,
                                   2 * depth + 192, call.memory.array<int32_t>(rows)};

  DenseMemory memory{};
  memory.pool_count = call.memory.zeros<int32_t>(rows);
  memory.num_unsettled = call.memory.zeros<int32_t>(1);
  auto* key_norm = call.memory.zeros<uint32_t>(kElementTypes);
  memory.anchor_norm = call.memory.array<float>(rows);
  memory.seeds = call.memory.array<float>(rows * plan.num_seeds);
  memory.start = call.memory.array<AnchorStart>(rows);
  memory.pool = call.memory.array<Nominee>(rows * plan.pool_capacity);
  memory.unsettled = call.memory.array<int32_t>(rows);
  memory.statistics = call.statistics;

  auto* tile = call.memory.array<KeyTile>(tiles);
  auto* bits = call.memory.array<KeyBits>(tiles);
  auto* tag = call.memory.array<ShortTag>(tiles * kTileKeys);
  Margins margins{{}, key_norm};
  for (KeysOfType& keys : types) {
    DenseOperands& operands = keys.operands;
    const int type = type_of(keys.elements);
    margins.of[type] =
        NominationMargin(tensor_core_errors(problem.anchors.embedding.dtype, keys.elements, dim));
    auto* packed = call.memory.array<Piece>(int64_t{operands.anchor_tiles} * kTileAnchors *
                                            operands.chunks * kChunkPieces);
    operands.anchors = packed;
    operands.tile = tile;
    operands.bits = bits;
    operands.tag = tag;
    tile += operands.tiles;
    bits += operands.tiles;
    tag += int64_t{operands.tiles} * kTileKeys;
    pack_anchors(keys.elements, problem.anchors, operands, packed, memory.anchor_norm, call);
    survey_keys(keys.elements, device, operands, key_norm + type, call);
    keys.sample.key = call.memory.array<SampledKey>(int64_t{keys.sample.tiles} * kTileKeys);
    choose_sample(operands, keys.sample, depth, call);
  }
  for (const KeysOfType& keys : types) {
    score_sample(keys.elements, device, keys.operands, margins, memory, keys.sample, call);
  }
  start_anchors(rows, margins, memory, plan, call);
  for (const KeysOfType& keys : types) {
    const DenseOperands& operands = keys.operands;
    if (fits_warpgroups(keys.elements, problem, operands, call)) {
      nominate_by_warpgroups(keys.elements, problem, device, operands, memory, plan, call);
    } else {
      nominate(keys.elements, device, operands, memory, plan, call);
    }
  }
  decide(problem, device, memory, plan, kept, call);
  search_by_chain(problem, device, {memory.unsettled, memory.num_unsettled}, kept, depth, call);
  return kept;
}

}  // namespace usucl::cuda

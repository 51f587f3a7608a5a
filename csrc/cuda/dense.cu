// The cross-video candidates of large problems: tensor cores nominate, the chain decides.
#include "dense.h"

#include <vector>

namespace usucl::cuda {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of the ways to have chunks in shared memory the best that it has room for, if any.
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

// The keys of one element type, if there are any.
struct KeysOfType {
  DType elements;
  DenseOperands operands;
  bool by_warpgroups;

  KeysOfType(DType type, const Problem& problem, const Call& call) : elements(type), operands{} {
    const Matrix& anchors = problem.anchors.embedding;
    operands.anchor_tiles = static_cast<int32_t>(ceil_divide(anchors.rows, kTileAnchors));
    operands.chunks = static_cast<int32_t>(ceil_divide(anchors.dim * bytes_of(type), kChunkBytes));
    operands.tiles = static_cast<int32_t>(tiles_of(problem, type));
    fit_in_shared(operands, call);  // they do: takes_dense_pass() has asked
    by_warpgroups = fits_warpgroups(type, problem, operands, call);
  }

  // So that all thread blocks that run at once have work.
  KeySplits splits(const Call& call) const {
    const int64_t tiles = operands.tiles;
    const int64_t splits = std::max<int64_t>(1, blocks_at_once(call) / operands.anchor_tiles);
    const int64_t each = ceil_divide(tiles, std::min(splits, tiles));
    return {static_cast<int32_t>(ceil_divide(tiles, each)), static_cast<int32_t>(each)};
  }

  int64_t grid(const Call& call) const {
    return std::min<int64_t>(int64_t{operands.anchor_tiles} * splits(call).count,
                             blocks_at_once(call));
  }

  int64_t blocks_at_once(const Call& call) const {
    return (by_warpgroups ? 1 : 2) * call.multiprocessors;
  }
};

// How many tiles of keys to take the sample from.
int64_t seed_tiles(int64_t tiles, int64_t depth) {
  constexpr int64_t kUsual = 32;
  constexpr int64_t kWorthwhile = 16;  // at most so much of the keys, twice for great depths
  const int64_t usual = std::min(kUsual, tiles / kWorthwhile);
  return std::max(usual, std::min(2 * ceil_divide(depth, kSeedsOfTile), 2 * tiles / kWorthwhile));
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
  DenseOperands rows_of_any_length{nullptr, 1, 2, 0, false, 0};  // longer ones take no more
  if (!fit_in_shared(rows_of_any_length, call)) return false;
  const int64_t dim = problem.anchors.embedding.dim;
  return depth <= kMaxDepth && dim > 0 && dim <= kMaxDim && keys < int64_t{UINT32_MAX} &&
         rows * keys >= call.smallest_dense;
}

Kept<float> dense_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                       const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
  std::vector<KeysOfType> types;
  for (const DType type : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    if (tiles_of(problem, type) > 0) types.emplace_back(type, problem, call);
  }
  DensePlan plan{depth, 0, 0, 0, 0};
  int64_t grid = 0;
  for (const KeysOfType& keys : types) {
    plan.num_seeds += seed_tiles(keys.operands.tiles, depth) * kSeedsOfTile;
    grid = std::max(grid, keys.grid(call));
  }
  plan.list_rows = static_cast<int32_t>(std::min<int64_t>(rows, kTileAnchors));
  // Beside what must be kept: two tiles more, and room so that a list is seldom cut.
  const int64_t room = std::min<int64_t>(std::max<int64_t>(depth, 64), 2 * kTileKeys);
  plan.capacity = static_cast<int32_t>(depth + 2 * kTileKeys + room);
  plan.pool_capacity = static_cast<int32_t>(4 * depth + 512);
  const Kept<float> kept{call.memory.array<Candidate<float>>(rows * (2 * depth + 192)), 1,
                         2 * depth + 192, call.memory.array<int32_t>(rows)};

  // What begins with zeros, in one piece.
  const int64_t run_words = ceil_divide(num_keys(problem), 32);
  const int64_t words = rows * Scale::kBuckets + rows + 1 + kElementTypes + run_words;
  auto* zeroed = call.memory.array<uint32_t>(words);
  cudaMemsetAsync(zeroed, 0, words * sizeof(uint32_t), call.stream);
  DenseMemory memory{};
  memory.histogram = zeroed;
  memory.pool_count = reinterpret_cast<int32_t*>(zeroed + rows * Scale::kBuckets);
  memory.num_unsettled = memory.pool_count + rows;
  auto* runs = zeroed + words - run_words;
  auto* key_norm = runs - kElementTypes;
  memory.anchor_norm = call.memory.array<float>(rows);
  memory.seeds = call.memory.array<float>(rows * plan.num_seeds);
  memory.start = call.memory.array<AnchorStart>(rows);
  memory.lists = call.memory.array<Nominee>(grid * plan.list_rows * plan.capacity);
  memory.pool = call.memory.array<Nominee>(rows * plan.pool_capacity);
  memory.unsettled = call.memory.array<int32_t>(rows);
  memory.statistics = call.statistics;

  Margins margins{{}, key_norm};
  for (KeysOfType& keys : types) {
    DenseOperands& operands = keys.operands;
    const int type = type_of(keys.elements);
    margins.of[type] = Margin(problem.anchors.embedding.dtype, keys.elements, dim);
    auto* packed = call.memory.array<Piece>(int64_t{operands.anchor_tiles} * kTileAnchors *
                                            operands.chunks * kChunkPieces);
    pack_anchors(keys.elements, problem.anchors, operands, packed, memory.anchor_norm, call);
    survey_keys(keys.elements, device, operands.tiles, key_norm + type, runs, call);
    operands.anchors = packed;
  }
  int64_t first_seed = 0;
  for (const KeysOfType& keys : types) {
    const int64_t tiles = seed_tiles(keys.operands.tiles, depth);
    score_seeds(keys.elements, device, keys.operands, margins, memory,
                {plan.num_seeds, first_seed, tiles}, call);
    first_seed += tiles * kSeedsOfTile;
  }
  start_anchors(rows, margins, memory, plan, call);
  for (const KeysOfType& keys : types) {
    const KeySplits splits = keys.splits(call);
    if (keys.by_warpgroups) {
      nominate_by_warpgroups(keys.elements, problem, device, keys.operands, memory, plan, splits,
                             keys.grid(call), call);
    } else {
      nominate(keys.elements, device, keys.operands, memory, plan, splits, keys.grid(call), call);
    }
  }
  decide(problem, device, memory, plan, kept, call);
  search_by_chain(problem, device, {memory.unsettled, memory.num_unsettled}, {runs}, kept, depth,
                  call);
  return kept;
}

}  // namespace usucl::cuda

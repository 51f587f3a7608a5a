// The steps of the dense pass in order; dense.cu runs them. A step that takes an element type
// handles the keys of that type.
#pragma once

#include "../../core/relation.h"
#include "bars.h"

namespace usucl::cuda {

constexpr int kMostStages = 3, kFewestStages = 2;

// Up to kTileKeys keys of one block. Tiles are numbered over the blocks of one element type, in
// order.
struct KeyTile {
  static constexpr int64_t kPassedOver = -1, kSeveralVideos = -2;

  const unsigned char* rows;  // of the first key
  int64_t only_video;         // of all keys, or one of the constants above
  uint32_t first_index;
  int32_t count;
  int32_t row;    // of the first key in its block
  int32_t block;  // number among the nonempty ones of the element type

  __device__ bool passed_over() const { return only_video == kPassedOver; }
  __device__ CommonIds common_ids() const { return {only_video, CommonIds::kNone}; }
};

// One bit per key of a tile.
struct KeyBits {
  static constexpr int kWords = kTileKeys / 32;

  uint32_t repeats[kWords];  // same bits as the previous key of its block
  // Ends a group of neighbours of which every anchor has at least one as a negative.
  uint32_t last_of_group[kWords];
};

// The operands on the device: the anchors as these elements, and the keys.
struct DenseOperands {
  const Piece* anchors;  // [tiles * kTileAnchors, chunks * kChunkPieces]
  KeyTile* tile;         // [tiles]
  KeyBits* bits;         // [tiles]
  ShortTag* tag;         // [tiles * kTileKeys]
  int32_t anchor_tiles;
  int32_t dim;
  int32_t chunks;  // per row
  int32_t stages;  // chunks in shared memory: one being multiplied, the others in flight
  bool resident;   // all chunks of the anchors stay there
  int32_t tiles;   // of keys
};

// The device memory of a dense pass.
struct DenseMemory {
  float* anchor_norm;      // [N]; negative: there is nothing to find
  float* seeds;            // [N, num_seeds]: greatest scores of groups of keys
  AnchorStart* start;      // [N]
  Nominee* pool;           // [N, pool_capacity]: the nominees
  int32_t* pool_count;     // [N]; above the capacity: some were dropped
  int32_t* unsettled;      // [N]: anchors that the chain must search
  int32_t* num_unsettled;  // []
  Statistics* statistics;  // or null
};

struct DensePlan {
  int64_t depth;  // candidates that every anchor must keep
  int64_t num_seeds;
  int64_t seed_rank;      // of the seed that becomes the bar
  int64_t most_reaching;  // seeds that may reach the limit: with more, a pool would overflow
  int32_t pool_capacity;
};

// A key of the sample.
struct SampledKey {
  const unsigned char* row;  // null: no key
  ShortTag tag;              // none() if it cannot be among the hardest
};

// One of every `stride` keys is in the sample. A seed is the greatest score of a group of them that
// surely count.
struct SamplePlan {
  SampledKey* key;     // [tiles * kTileKeys]
  int32_t stride;      // a power of two
  int32_t row_bytes;   // per key
  int32_t merged;      // tiles that share their seeds
  int32_t tiles;       // of sampled keys, a multiple of merged
  int64_t num_seeds;   // of all types
  int64_t first_seed;  // of this type
};

constexpr int kSeedsOfTile = 16;

struct KeySplits {
  int32_t count;
  int32_t tiles_each;

  // The tiles of the split that begins at tile `first`, of `tiles` in all.
  USUCL_HD int32_t tiles_of(int32_t first, int32_t tiles) const {
    return tiles - first < tiles_each ? tiles - first : tiles_each;
  }
};

// At most `splits` splits, each a multiple of `unit` tiles.
inline KeySplits split_keys(int64_t tiles, int64_t splits, int64_t unit) {
  const int64_t units = ceil_divide(tiles, unit);
  const int64_t each = ceil_divide(units, std::max<int64_t>(1, std::min(splits, units))) * unit;
  return {static_cast<int32_t>(ceil_divide(tiles, each)), static_cast<int32_t>(each)};
}

// Packs the anchors as these elements [anchor_tiles * kTileAnchors, chunks], padded with zeros.
void pack_anchors(DType elements, const Frames& anchors, const DenseOperands& operands,
                  Piece* packed, float* anchor_norm, const Call& call);

// Fills operands.tile, .bits and .tag. greatest: bits of a norm, raised to that of these keys.
void survey_keys(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                 uint32_t* greatest, const Call& call);

// Fills sample.key. Tiles whose keys repeat so many equal keys before them that none can be among
// the hardest are skipped from here on.
void choose_sample(const DenseOperands& operands, const SamplePlan& sample, int64_t depth,
                   const Call& call);

void score_sample(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                  const Margins& margins, const DenseMemory& memory, const SamplePlan& sample,
                  const Call& call);

void start_anchors(int64_t rows, const Margins& margins, const DenseMemory& memory,
                   const DensePlan& plan, const Call& call);

// Bytes of shared memory per thread block of nominate().
int64_t nominate_shared_bytes(const DenseOperands& operands);

void nominate(DType elements, const DeviceProblem& device, const DenseOperands& operands,
              const DenseMemory& memory, const DensePlan& plan, const Call& call);

// Whether warpgroups support these keys; if so, they replace nominate().
bool fits_warpgroups(DType elements, const Problem& problem, const DenseOperands& operands,
                     const Call& call);

void nominate_by_warpgroups(DType elements, const Problem& problem, const DeviceProblem& device,
                            const DenseOperands& operands, const DenseMemory& memory,
                            const DensePlan& plan, const Call& call);

// Scores the nominees by the chain and keeps the candidates: sets kept.count of each anchor, or
// adds the anchor to memory.unsettled.
void decide(const Problem& problem, const DeviceProblem& device, const DenseMemory& memory,
            const DensePlan& plan, const CandidateLists<float>& kept, const Call& call);

// Calls f(elements) with the class of mma_core.h for this type.
template <typename Function>
void with_elements(DType type, const Function& f) {
  if (type == DType::kBFloat16) return f(BFloat16Elements());
  if (type == DType::kFloat16) return f(Float16Elements());
  f(TF32Elements());
}

}  // namespace usucl::cuda

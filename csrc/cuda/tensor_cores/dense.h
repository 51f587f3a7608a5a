// The steps of the dense pass, in their order; dense.cu takes them. A step that is given an element
// type is for the keys of that type.
#pragma once

#include "../../core/relation.h"
#include "bars.h"

namespace usucl::cuda {

constexpr int kMostStages = 3, kFewestStages = 2;

// Up to kTileKeys keys of one block. Tiles are counted over the blocks of one element type only, in
// their order.
struct KeyTile {
  static constexpr int64_t kPassedOver = -1, kSeveralVideos = -2;

  const unsigned char* rows;  // of the first key
  int64_t only_video;         // of all of them, or one of the above
  uint32_t first_index;
  int32_t count;
  int32_t row;    // of the first key in its block
  int32_t block;  // which, of those of the element type that are not empty

  __device__ bool passed_over() const { return only_video == kPassedOver; }
  __device__ CommonIds common_ids() const { return {only_video, CommonIds::kNone}; }
};

// A bit for each of a tile's keys.
struct KeyBits {
  static constexpr int kWords = kTileKeys / 32;

  uint32_t repeats[kWords];  // has, bit for bit, the embedding of the key before it in its block
  // The last of some neighbours of which every anchor has one at least as a negative.
  uint32_t last_of_group[kWords];
};

// What is multiplied, on the device: the anchors as these elements, and which keys.
struct DenseOperands {
  const Piece* anchors;  // [tiles * kTileAnchors, chunks * kChunkPieces]
  KeyTile* tile;         // [tiles]
  KeyBits* bits;         // [tiles]
  ShortTag* tag;         // [tiles * kTileKeys]
  int32_t anchor_tiles;
  int32_t dim;
  int32_t chunks;  // of a row
  int32_t stages;  // chunks in shared memory: one is multiplied, the others are under way
  bool resident;   // but all chunks of the anchors stay there
  int32_t tiles;   // of keys
};

// Device memory of a dense pass.
struct DenseMemory {
  float* anchor_norm;      // [N]; negative: nothing is to be found
  float* seeds;            // [N, num_seeds]: scores of so many keys that count
  AnchorStart* start;      // [N]
  Nominee* pool;           // [N, pool_capacity]: those nominated
  int32_t* pool_count;     // [N]; above the capacity: not all were kept
  int32_t* unsettled;      // [N]: the anchors that the chain must search
  int32_t* num_unsettled;  // []
  Statistics* statistics;  // or null
};

struct DensePlan {
  int64_t depth;  // candidates that every anchor must keep
  int64_t num_seeds;
  int64_t seed_rank;      // of the seed that is the bar
  int64_t most_reaching;  // seeds that may reach the limit: else a pool would overflow
  int32_t pool_capacity;
};

// A key of the sample.
struct SampledKey {
  const unsigned char* row;  // null: no key
  ShortTag tag;              // no key's, if it cannot be among the hardest
};

// One of every `stride` keys is in the sample. A seed is the greatest score of so many of them that
// count.
struct SamplePlan {
  SampledKey* key;     // [tiles * kTileKeys]
  int32_t stride;      // a power of two
  int32_t row_bytes;   // of a key
  int32_t merged;      // tiles that have their seeds in common
  int32_t tiles;       // of sampled keys, a multiple of it
  int64_t num_seeds;   // of all types
  int64_t first_seed;  // of this one
};

constexpr int kSeedsOfTile = 16;

struct KeySplits {
  int32_t count;
  int32_t tiles_each;

  // From tile `first` on, of `tiles` in all.
  USUCL_HD int32_t tiles_of(int32_t first, int32_t tiles) const {
    return tiles - first < tiles_each ? tiles - first : tiles_each;
  }
};

// So many splits at most, each of a multiple of `unit` tiles.
inline KeySplits split_keys(int64_t tiles, int64_t splits, int64_t unit) {
  const int64_t units = ceil_divide(tiles, unit);
  const int64_t each = ceil_divide(units, std::max<int64_t>(1, std::min(splits, units))) * unit;
  return {static_cast<int32_t>(ceil_divide(tiles, each)), static_cast<int32_t>(each)};
}

// The anchors as these elements [anchor_tiles * kTileAnchors, chunks], zeros beyond the last one.
void pack_anchors(DType elements, const Frames& anchors, const DenseOperands& operands,
                  Piece* packed, float* anchor_norm, const Call& call);

// Fills operands.tile, .bits and .tag. greatest: bits of the norm, raised to that of these keys.
void survey_keys(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                 uint32_t* greatest, const Call& call);

// Fills sample.key. Tiles none of whose keys can be of the hardest, as so many that equal them come
// before, are passed over from here on.
void choose_sample(const DenseOperands& operands, const SamplePlan& sample, int64_t depth,
                   const Call& call);

void score_sample(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                  const Margins& margins, const DenseMemory& memory, const SamplePlan& sample,
                  const Call& call);

void start_anchors(int64_t rows, const Margins& margins, const DenseMemory& memory,
                   const DensePlan& plan, const Call& call);

// What a thread block of nominate() takes of shared memory.
int64_t nominate_shared_bytes(const DenseOperands& operands);

void nominate(DType elements, const DeviceProblem& device, const DenseOperands& operands,
              const DenseMemory& memory, const DensePlan& plan, const Call& call);

// Whether warpgroups can take these keys, and what they then do instead of nominate().
bool fits_warpgroups(DType elements, const Problem& problem, const DenseOperands& operands,
                     const Call& call);

void nominate_by_warpgroups(DType elements, const Problem& problem, const DeviceProblem& device,
                            const DenseOperands& operands, const DenseMemory& memory,
                            const DensePlan& plan, const Call& call);

// The similarities of the nominees, and which of them are candidates: kept.count of each anchor, or
// its entry in memory.unsettled.
void decide(const Problem& problem, const DeviceProblem& device, const DenseMemory& memory,
            const DensePlan& plan, const CandidateLists<float>& kept, const Call& call);

// f(elements) with what mma_core.h calls the elements of this type.
template <typename Function>
void with_elements(DType type, const Function& f) {
  if (type == DType::kBFloat16) return f(BFloat16Elements());
  if (type == DType::kFloat16) return f(Float16Elements());
  f(TF32Elements());
}

}  // namespace usucl::cuda

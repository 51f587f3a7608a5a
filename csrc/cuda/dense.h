// The steps of the dense pass, in their order; dense.cu takes them. Of one element type of the keys
// each, where it is named.
#pragma once

#include "nomination.h"

namespace usucl::cuda {

constexpr int kMostStages = 3, kFewestStages = 2;

// What is multiplied, on the device: the anchors as these elements, and which keys.
struct DenseOperands {
  const Piece* anchors;  // [tiles * kTileAnchors, chunks * kChunkPieces]
  int32_t anchor_tiles;
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
  uint32_t* histogram;     // [N, Scale::kBuckets]
  Nominee* lists;          // [grid, list_rows, capacity]: of the thread blocks at work
  Nominee* pool;           // [N, pool_capacity]: what they have left
  int32_t* pool_count;     // [N]; above the capacity: not all were kept
  int32_t* unsettled;      // [N]: the anchors that the chain must search
  int32_t* num_unsettled;  // []
  Statistics* statistics;  // or null
};

struct DensePlan {
  int64_t depth;  // candidates an anchor must keep
  int64_t num_seeds;
  int32_t list_rows;  // lists of a thread block: min(N, kTileAnchors)
  int32_t capacity;
  int32_t pool_capacity;
};

constexpr int64_t kSeedsOfTile = kTileKeys / kGroup;

// The sample of keys of one element type.
struct SeedPlan {
  int64_t num_seeds;   // of all types
  int64_t first_seed;  // of this one
  int64_t tiles;
};

struct KeySplits {
  int32_t count;
  int32_t tiles_each;

  // From tile `first` on, of `tiles` in all.
  USUCL_HD int32_t tiles_of(int32_t first, int32_t tiles) const {
    return tiles - first < tiles_each ? tiles - first : tiles_each;
  }
};

// The anchors as these elements [anchor_tiles * kTileAnchors, chunks], zeros beyond the last one.
void pack_anchors(DType elements, const Frames& anchors, const DenseOperands& operands,
                  Piece* packed, float* anchor_norm, const Call& call);

// greatest: bits of the norm, raised to that of these keys. runs: theirs, of zeros.
void survey_keys(DType elements, const DeviceProblem& device, int64_t tiles, uint32_t* greatest,
                 uint32_t* runs, const Call& call);

void score_seeds(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                 const Margins& margins, const DenseMemory& memory, const SeedPlan& plan,
                 const Call& call);

void start_anchors(int64_t rows, const Margins& margins, const DenseMemory& memory,
                   const DensePlan& plan, const Call& call);

// What a thread block of nominate() takes of shared memory.
int64_t nominate_shared_bytes(const DenseOperands& operands);

void nominate(DType elements, const DeviceProblem& device, const DenseOperands& operands,
              const DenseMemory& memory, const DensePlan& plan, const KeySplits& splits,
              int64_t grid, const Call& call);

// The similarities of the nominees, and which of them are candidates: kept.count of each anchor, or
// its entry in memory.unsettled.
void decide(const Problem& problem, const DeviceProblem& device, const DenseMemory& memory,
            const DensePlan& plan, const Kept<float>& kept, const Call& call);

// Whether warpgroups can take these keys, and what they then do instead of nominate().
bool fits_warpgroups(DType elements, const Problem& problem, const DenseOperands& operands,
                     const Call& call);

void nominate_by_warpgroups(DType elements, const Problem& problem, const DeviceProblem& device,
                            const DenseOperands& operands, const DenseMemory& memory,
                            const DensePlan& plan, const KeySplits& splits, int64_t grid,
                            const Call& call);

// f(elements) with what mma_core.h calls the elements of this type.
template <typename Function>
void with_elements(DType type, const Function& f) {
  if (type == DType::kBFloat16) return f(BFloat16Elements());
  if (type == DType::kFloat16) return f(Float16Elements());
  f(TF32Elements());
}

}  // namespace usucl::cuda

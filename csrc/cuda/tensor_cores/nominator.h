// What a warp does with its scores of one tile after another: those that reach their anchor's limit
// become nominees.
//
// A limit is constant during the pass unless the anchor's pool is full: then nothing is
// nominated for it any more, and the chain will search. So a score below the limit costs an eighth
// of a comparison. If one of eight scores reaches it, all eight go into the warp's queue. Once a
// few have gathered, each score is checked by itself, and once 32 have reached their limit their
// keys are looked up, so that a whole warp waits for memory together.
#pragma once

#include "../../core/relation.h"
#include "sweep.h"

namespace usucl::cuda {

// Eight neighbouring scores of one anchor, of which at least one reaches the limit.
struct alignas(16) QueuedScores {
  float score[kGroup];
  uint32_t first_key;    // index of the first score's key
  uint32_t first_place;  // the same key among all tiles
  int16_t row;           // of the anchor, among the warp's
  int16_t columns;       // from the first key to the end of the tile
};

// One score that reaches the limit.
struct alignas(16) Arrival {
  float score;
  uint32_t key;
  uint32_t place;
  int32_t row;
};

// The nominator of one warp, for the anchors of its scores.
template <typename Product>
struct NominatorShared {
  static constexpr int kQueued = 32;

  QueuedScores queue[kQueued];
  Arrival arrival[2 * 32];
  ShortTag tag[Product::kWarpRows];
  int64_t video[Product::kWarpRows];
  float limit[Product::kWarpRows];
  float margin[Product::kWarpRows];
};

template <typename Product>
class Nominator {
 public:
  using Shared = NominatorShared<Product>;

  __device__ Nominator(const Problem& problem, const DenseOperands& operands,
                       const DenseMemory& memory, const DensePlan& plan, Shared& shared)
      : problem_(problem), operands_(operands), memory_(memory), plan_(plan), shared_(shared) {}

  // To be called before the first tile of keys: row 0 of the product is this anchor.
  __device__ void start(int64_t first_anchor) {
    first_anchor_ = first_anchor;
    queued_ = arrived_ = 0;
    __syncwarp();  // the previous anchors are done
    for (int row = lane(); row < Product::kWarpRows; row += 32) {
      const int64_t i = first_anchor + Product::row_of_warp(row);
      const bool there = i < problem_.anchors.embedding.rows;
      const AnchorStart start = there ? memory_.start[i] : AnchorStart{INFINITY, -1.0f};
      const bool searches = start.margin >= 0 && start.margin < INFINITY;
      const FrameTag tag = there ? problem_.anchors.tag(i) : FrameTag{-1, 0, -1};
      shared_.limit[row] = searches ? limit_of(start.bar, start.margin) : INFINITY;
      shared_.margin[row] = start.margin;
      shared_.video[row] = tag.video;
      shared_.tag[row] = ShortTag::of_anchor(tag);
    }
    __syncwarp();
  }

  // Takes the scores of tile `number`, in which the product's column 0 is `first_column`.
  __device__ void add(const Product& product, int32_t number, const KeyTile& tile,
                      int first_column) {
    if (tile.passed_over()) return;
    // One bit per group of this thread's scores.
    uint32_t own = 0;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = Product::warp_row(r);
      const bool excluded = never_cross(tile.common_ids(), {shared_.video[row], CommonIds::kNone});
      const float limit = excluded ? INFINITY : shared_.limit[row];
#pragma unroll
      for (int group = 0; group < Product::kGroups; ++group) {
        if (greatest(product, r, group) >= limit) own |= 1u << (r * Product::kGroups + group);
      }
    }
    const uint32_t of_any = __reduce_or_sync(kWholeWarp, own);
    if (of_any == 0) return;
    const int column_of_own = first_column + column_of_lane(lane());
    const auto first_place =
        static_cast<uint32_t>(number) * kTileKeys + static_cast<uint32_t>(column_of_own);
    const uint32_t first_key = tile.first_index + static_cast<uint32_t>(column_of_own);
    // The queue may be too short for all groups: the rest are taken in another round.
    for (int done = 0;;) {
      int found = 0;
#pragma unroll
      for (int r = 0; r < Product::kLaneRows; ++r) {
#pragma unroll
        for (int group = 0; group < Product::kGroups; ++group) {
          const uint32_t bit = 1u << (r * Product::kGroups + group);
          if ((of_any & bit) == 0) continue;
          const unsigned lanes = __ballot_sync(kWholeWarp, (own & bit) != 0);
          const int place = queued_ + found - done + place_among(lanes);
          if ((own & bit) != 0 && place >= 0 && place < Shared::kQueued) {
            QueuedScores& queued = shared_.queue[place];
#pragma unroll
            for (int c = 0; c < kGroup; ++c) queued.score[c] = product.value(r, group * kGroup + c);
            const int column = column_of_group(group);
            queued.first_key = first_key + static_cast<uint32_t>(column);
            queued.first_place = first_place + static_cast<uint32_t>(column);
            queued.row = static_cast<int16_t>(Product::warp_row(r));
            queued.columns = static_cast<int16_t>(tile.count - column_of_own - column);
          }
          found += __popc(lanes);
        }
      }
      const int held = queued_ + found - done;
      if (held <= Shared::kQueued / 2) {
        queued_ = held;
        return;
      }
      done += Shared::kQueued - queued_;
      queued_ = held < Shared::kQueued ? held : Shared::kQueued;
      tell_apart();
      if (done >= found) return;
    }
  }

  // To be called after the last tile.
  __device__ void finish() {
    tell_apart();
    nominate(arrived_);
    arrived_ = 0;
  }

 private:
  // Empties the queue: scores that reach the limit become arrivals.
  __device__ void tell_apart() {
    __syncwarp();
#pragma unroll 1
    for (int first = 0; first < queued_ * kGroup; first += 32) {
      const QueuedScores& queued = shared_.queue[(first + lane()) / kGroup];
      const int of_group = lane() % kGroup, offset = column_in_group(of_group);
      const bool there = first + lane() < queued_ * kGroup && offset < queued.columns;
      const float score = there ? queued.score[of_group] : -INFINITY;
      const int row = there ? queued.row : 0;
      const int64_t anchor = first_anchor_ + Product::row_of_warp(row);
      const bool arrives =
          there && score >= shared_.limit[row] &&
          may_count(score, shared_.margin[row], problem_.greatest_valid<float>(anchor));
      const unsigned lanes = __ballot_sync(kWholeWarp, arrives);
      if (arrives) {
        shared_.arrival[arrived_ + place_among(lanes)] = {
            score, queued.first_key + static_cast<uint32_t>(offset),
            queued.first_place + static_cast<uint32_t>(offset), row};
      }
      arrived_ += __popc(lanes);
      __syncwarp();
      if (arrived_ >= 32) {
        nominate(32);
        arrived_ -= 32;
        Arrival rest{};
        if (lane() < arrived_) rest = shared_.arrival[32 + lane()];
        __syncwarp();  // all lanes have read
        if (lane() < arrived_) shared_.arrival[lane()] = rest;
        __syncwarp();
      }
    }
    __syncwarp();  // all lanes have read the queue
    queued_ = 0;
  }

  // Nominates those of the first `count` arrivals, one per lane, that are negatives of their
  // anchor.
  __device__ void nominate(int count) {
    bool full = false;
    int row = 0;
    if (memory_.statistics != nullptr && lane() == 0) {
      atomicAdd(&memory_.statistics->arrivals, static_cast<unsigned long long>(count));
    }
    if (lane() < count) {
      const Arrival arrival = shared_.arrival[lane()];
      row = arrival.row;
      const int64_t i = first_anchor_ + Product::row_of_warp(row);
      if (is_negative(i, shared_.tag[row], arrival)) {
        const int32_t at = atomicAdd(&memory_.pool_count[i], 1);
        full = at >= plan_.pool_capacity;
        if (!full) memory_.pool[i * plan_.pool_capacity + at] = {arrival.score, arrival.key};
      }
    }
    close(__ballot_sync(kWholeWarp, full), row);
  }

  __device__ bool is_negative(int64_t i, const ShortTag& anchor, const Arrival& arrival) const {
    const ShortTag key = operands_.tag[arrival.place];
    if (key.is_empty()) return false;
    if (surely_crosses(anchor, key)) return true;
    const KeyPlace place = place_of(problem_.blocks, arrival.key);
    return crosses(problem_.anchors.tag(i), place.block->tag(place.row));
  }

  // Stops nomination for the anchors of these lanes.
  __device__ void close(unsigned lanes, int row) {
    if (lanes != 0) __syncwarp();  // all lanes have read the limits
    for (; lanes != 0; lanes &= lanes - 1) {
      const int closed = __shfl_sync(kWholeWarp, row, __ffs(static_cast<int>(lanes)) - 1);
      if (lane() == 0) shared_.limit[closed] = INFINITY;
      __syncwarp();
    }
  }

  const Problem& problem_;
  const DenseOperands& operands_;
  const DenseMemory& memory_;
  const DensePlan& plan_;
  Shared& shared_;
  int64_t first_anchor_ = 0;
  int queued_ = 0;   // same in all lanes
  int arrived_ = 0;  // same in all lanes
};

}  // namespace usucl::cuda

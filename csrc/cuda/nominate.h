// What a warp does with its scores of one tile after the other: those that reach their anchor's
// limit become nominees.
//
// A limit does not change during the pass, but for that of an anchor whose pool is full: nobody is
// nominated for it any more, and the chain will search. So a score below it costs an eighth of a
// comparison. Eight scores one of which reaches it go into the warp's queue as they are; once the
// queue has enough of them to keep all lanes busy, each is looked at: its video, its patient, the
// guard.
#pragma once

#include "../core/relation.h"
#include "dense_tile.h"

namespace usucl::cuda {

// Eight neighbouring scores of one anchor.
struct alignas(16) QueuedScores {
  float score[kGroup];
  uint32_t first_key;  // index of the key of the first
  int16_t row;         // of the anchor among the warp's
  int16_t columns;     // from the first key to the end of the tile's keys
};

// Of one warp, for the anchors that it has scores of.
template <typename Product>
struct NominatorShared {
  static constexpr int kQueued = 32;

  QueuedScores queue[kQueued];
  int64_t video[Product::kWarpRows];
  float limit[Product::kWarpRows];
  float margin[Product::kWarpRows];
};

template <typename Product>
class Nominator {
 public:
  using Shared = NominatorShared<Product>;

  __device__ Nominator(const Problem& problem, const DenseMemory& memory, const DensePlan& plan,
                       Shared& shared)
      : problem_(problem), memory_(memory), plan_(plan), shared_(shared) {}

  // Before the first tile of keys: the product's row 0 is this anchor.
  __device__ void start(int64_t first_anchor) {
    first_anchor_ = first_anchor;
    queued_ = 0;
    __syncwarp();  // all are done with the anchors before
    for (int row = lane(); row < Product::kWarpRows; row += 32) {
      const int64_t i = first_anchor + Product::row_of_warp(row);
      const bool there = i < problem_.anchors.embedding.rows;
      const AnchorStart start = there ? memory_.start[i] : AnchorStart{INFINITY, -1.0f};
      const bool searches = start.margin >= 0 && start.margin < INFINITY;
      shared_.limit[row] = searches ? limit_of(start.bar, start.margin) : INFINITY;
      shared_.margin[row] = start.margin;
      shared_.video[row] = there ? problem_.anchors.video[i] : -1;
    }
    __syncwarp();
  }

  // The scores of a tile; its first key has the product's column 0 at `first_column`.
  __device__ void add(const Product& product, const KeyTile& tile, int first_column) {
    if (tile.video == KeyTile::kPassedOver) return;
    const int columns = tile.count - first_column - column_of_lane(lane());
    const uint32_t first_key =
        tile.first_index + static_cast<uint32_t>(first_column + column_of_lane(lane()));
    // A queue may not have room for all: those it had none for are taken in another round.
    for (int done = 0;;) {
      int found = 0;
#pragma unroll
      for (int r = 0; r < Product::kLaneRows; ++r) {
        const int row = Product::warp_row(r);
        const bool own_video = tile.video >= 0 && tile.video == shared_.video[row];
        const float limit = own_video ? INFINITY : shared_.limit[row];
#pragma unroll
        for (int group = 0; group < Product::kGroups; ++group) {
          const bool some = greatest(product, r, group) >= limit;
          const unsigned lanes = __ballot_sync(kWholeWarp, some);
          if (lanes == 0) continue;
          const int place = queued_ + found - done + __popc(lanes & ((1u << lane()) - 1));
          if (some && place >= 0 && place < Shared::kQueued) {
            QueuedScores& queued = shared_.queue[place];
#pragma unroll
            for (int c = 0; c < kGroup; ++c) queued.score[c] = product.value(r, group * kGroup + c);
            const int column = column_of_group(group);
            queued.first_key = first_key + static_cast<uint32_t>(column);
            queued.row = static_cast<int16_t>(row);
            queued.columns = static_cast<int16_t>(columns - column);
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
      deliver();
      if (done >= found) return;
    }
  }

  // After the last tile.
  __device__ void finish() { deliver(); }

 private:
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }

  // Empties the queue: nominates whoever counts.
  __device__ void deliver() {
    __syncwarp();
    const auto max_similarity = static_cast<float>(problem_.max_similarity);
    const Window no_window{1.0f, 0.0f};
#pragma unroll 1
    for (int first = 0; first < queued_ * kGroup; first += 32) {
      const QueuedScores& queued = shared_.queue[(first + lane()) / kGroup];
      const int of_group = lane() % kGroup, offset = column_in_group(of_group);
      const bool there = first + lane() < queued_ * kGroup && offset < queued.columns;
      const float score = there ? queued.score[of_group] : -INFINITY;
      const int row = there ? queued.row : 0;
      const bool arrived = there && score >= shared_.limit[row];
      if (memory_.statistics != nullptr && arrived) atomicAdd(&memory_.statistics->arrivals, 1ull);
      bool full = false;
      if (arrived && may_count(score, shared_.margin[row], max_similarity)) {
        const uint32_t key = queued.first_key + static_cast<uint32_t>(offset);
        const int64_t i = first_anchor_ + Product::row_of_warp(row);
        const KeyPlace place = place_of(problem_, key);
        const FrameTag tag = place.block->tag(place.row);
        if (relation(problem_.anchors.tag(i), tag, no_window) == Relation::kCrossVideo) {
          const int32_t at = atomicAdd(&memory_.pool_count[i], 1);
          full = at >= plan_.pool_capacity;
          if (!full) memory_.pool[i * plan_.pool_capacity + at] = {score, key};
        }
      }
      close(__ballot_sync(kWholeWarp, full), row);
    }
    __syncwarp();  // all have read
    queued_ = 0;
  }

  // The anchors of these lanes get nobody nominated any more.
  __device__ void close(unsigned lanes, int row) {
    if (lanes != 0) __syncwarp();  // all have read the limits
    for (; lanes != 0; lanes &= lanes - 1) {
      const int closed = __shfl_sync(kWholeWarp, row, __ffs(static_cast<int>(lanes)) - 1);
      if (lane() == 0) shared_.limit[closed] = INFINITY;
      __syncwarp();
    }
  }

  const Problem& problem_;
  const DenseMemory& memory_;
  const DensePlan& plan_;
  Shared& shared_;
  int64_t first_anchor_ = 0;
  int queued_ = 0;  // the same in all lanes
};

}  // namespace usucl::cuda

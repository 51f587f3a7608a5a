// What a team of threads does with one tile of scores after the other.
//
// A score below its anchor's limit costs an eighth of a comparison. What reaches the limit is asked
// for its video, appended to the anchor's list, and counted in a histogram that all thread blocks
// share: so the bar of an anchor rises by what all of them have seen, and the limit with it. Late
// news only costs time. A list that could overflow with the next tile is cut to what reaches the
// limit; where that is still too much, because more keys than fit are within the margin of the last
// rank, nobody is nominated and the chain searches.
#pragma once

#include "dense_tile.h"

namespace usucl::cuda {

struct Arrival {
  float score;
  int16_t row;
  int16_t key;
};

constexpr int kArrivals = 32 * kGroup;  // a group of every lane

// What a warp needs by turns.
union WarpMemory {
  uint32_t histogram[kDigits];
  Arrival arrival[kArrivals];
};

// Of one team.
template <typename Team>
struct NominateShared {
  static constexpr int kWarps = Team::kThreads / 32;

  AnchorTags anchors;
  KeyTags keys;
  Scale scale[Team::kRows];
  float bar[Team::kRows];
  float margin[Team::kRows];
  float limit[Team::kRows];    // of this tile
  int32_t count[Team::kRows];  // of the list; above the capacity: the chain must search
  int32_t almost_full[2];      // whether a list is, of this tile and the one before by turns
  int32_t arrivals[kWarps];
  WarpMemory warp[kWarps];
};

// A team has Team::kThreads threads for Team::kRows anchors of a tile of them. Team says which
// thread of it this is, the team's number in its block, and how its threads wait for each other.
template <typename Team, typename Product>
class Nomination {
 public:
  using Shared = NominateShared<Team>;

  __device__ Nomination(const Problem& problem, const DenseMemory& memory, const DensePlan& plan,
                        Shared& shared)
      : problem_(problem),
        memory_(memory),
        plan_(plan),
        shared_(shared),
        lists_(memory.lists +
               (int64_t{blockIdx.x} * plan.list_rows + Team::number() * Team::kRows) *
                   plan.capacity) {}

  // Before the first tile of keys.
  __device__ void start(int32_t anchor_tile) {
    first_anchor_ = int64_t{anchor_tile} * kTileAnchors + Team::number() * Team::kRows;
    Team::sync();
    const int row = Team::thread();
    if (row < Shared::kWarps) shared_.arrivals[row] = 0;
    if (row >= Team::kRows) return;
    const int64_t i = first_anchor_ + row;
    load_anchor(shared_.anchors, row, problem_.anchors, i);
    AnchorStart start{INFINITY, -1.0f, {}};
    if (i < problem_.anchors.embedding.rows) start = memory_.start[i];
    const bool unsettled = !(start.margin < INFINITY);
    shared_.scale[row] = start.scale;
    shared_.margin[row] = start.margin;
    shared_.bar[row] = start.margin < 0 || unsettled ? INFINITY : start.bar;
    shared_.count[row] = unsettled ? plan_.capacity + 1 : 0;
  }

  // Before the scores of a tile, number `tile` from 0: after a sync() that follows the end() of the
  // tile before, and before another one.
  __device__ void begin(int32_t tile, const KeyTile& keys) {
    const bool asked = tile > 0 && shared_.almost_full[(tile - 1) % 2] != 0;
    if (asked || (tile > 0 && (tile & (tile - 1)) == 0) || tile % kRaiseEvery == kRaiseEvery - 1) {
      raise_bars(false);
      Team::sync();
    }
    for (int t = Team::thread(); t < Team::kRows + kTileKeys; t += Team::kThreads) {
      if (t < Team::kRows) {
        const bool searches = shared_.count[t] <= plan_.capacity;
        shared_.limit[t] = searches ? limit_of(shared_.bar[t], shared_.margin[t]) : INFINITY;
      } else {
        shared_.keys.load(keys, t - Team::kRows);
      }
    }
    turn_ = tile % 2;
    if (Team::thread() == 0) shared_.almost_full[turn_] = 0;
  }

  // The scores of a tile: the product's row 0 and column 0 are these of the team's.
  __device__ void end(const Product& product, int first_row, int first_column) {
    int32_t* const arrivals = &shared_.arrivals[warp()];
    // Where one video fills the columns, all its own anchors' scores are passed over at once.
    const int64_t video = shared_.keys.video[first_column];
    bool one_video = true;
#pragma unroll
    for (int c = 0; c < Product::kColumns; c += 32) {
      one_video &= shared_.keys.video[first_column + c + lane()] == video;
    }
    one_video = __all_sync(kWholeWarp, one_video) != 0;
#pragma unroll
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int row = first_row + Product::row(r);
      const float limit = shared_.limit[row];
#pragma unroll
      for (int group = 0; group < Product::kGroups; ++group) {
        const bool some = greatest(product, r, group) >= limit &&
                          !(one_video && (video < 0 || video == shared_.anchors.video[row]));
        if (!__any_sync(kWholeWarp, some)) continue;
        if (some) {
#pragma unroll
          for (int c = group * kGroup; c < (group + 1) * kGroup; ++c) {
            const float score = product.value(r, c);
            if (!(score >= limit)) continue;
            const int column = first_column + Product::column(c);
            shared_.warp[warp()].arrival[atomicAdd(arrivals, 1)] = {
                score, static_cast<int16_t>(row), static_cast<int16_t>(column)};
          }
        }
        __syncwarp();
        admit(*arrivals);
        __syncwarp();
        if (lane() == 0) *arrivals = 0;
        __syncwarp();
      }
    }
  }

  // After the last tile.
  __device__ void finish() {
    Team::sync();
    raise_bars(true);
    leave_nominees();
  }

 private:
  static constexpr int kRaiseEvery = 32;  // tiles, and after each power of two of them

  static __device__ int lane() { return Team::thread() % 32; }
  static __device__ int warp() { return Team::thread() / 32; }

  __device__ Nominee* list(int row) const { return lists_ + row * plan_.capacity; }
  __device__ float max_similarity() const { return static_cast<float>(problem_.max_similarity); }
  __device__ int almost_full() const { return plan_.capacity - kTileKeys; }

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
      if (at >= almost_full()) atomicMax(&shared_.almost_full[turn_], 1);
      if (!surely_counts(arrival.score, margin, max_similarity())) continue;
      const int bucket = shared_.scale[arrival.row].bucket(arrival.score);
      const int64_t i = first_anchor_ + arrival.row;
      if (bucket >= 0) {
        atomicAdd(&memory_.histogram[i * Scale::kBuckets + Scale::place(bucket)], 1u);
      }
    }
  }

  // Between two sync()s. A warp takes every kWarps-th row.
  __device__ void raise_bars(bool last) {
    for (int row = warp(); row < Team::kRows; row += Shared::kWarps) {
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
    const int bucket = digit_of([&](int b) { return load_relaxed(histogram + Scale::place(b)); },
                                plan_.depth, &above);
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
    for (int row = warp(); row < Team::kRows; row += Shared::kWarps) {
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
  const DenseMemory& memory_;
  const DensePlan& plan_;
  Shared& shared_;
  Nominee* lists_;  // [kRows, capacity], but none of rows beyond the last anchor
  int64_t first_anchor_ = 0;
  int turn_ = 0;
};

}  // namespace usucl::cuda

// The keys of all blocks by index, and the few of them that are scored at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/problem.h"
#include "rows.h"
#include "tile.h"

namespace usucl::cpu {

constexpr int64_t kSeveral = -1;

// The id >= 0 that all of `count` > 0 rows have, or kSeveral where there is no such one. ids: of
// videos or patients, or null.
inline int64_t only_id(const int64_t* ids, const int64_t* rows, int64_t count) {
  if (ids == nullptr || ids[rows[0]] < 0) return kSeveral;
  const auto same = [&](int64_t row) { return ids[row] == ids[rows[0]]; };
  return std::all_of(rows, rows + count, same) ? ids[rows[0]] : kSeveral;
}

// Up to tile_keys keys of one block, in ascending order of index.
struct KeyPanel {
  const Frames* block = nullptr;
  int64_t block_begin = 0;  // index of the block's first key
  int count = 0;
  int64_t row[kMaxTileKeys];  // within the block

  int64_t index(int j) const { return block_begin + row[j]; }

  int64_t only(const int64_t* ids) const { return only_id(ids, row, count); }

  bool all_slots_empty() const {
    return std::all_of(row, row + count, [&](int64_t r) { return block->video[r] < 0; });
  }
};

class Keys {
 public:
  explicit Keys(const Problem& problem) : blocks_(problem.blocks) {
    begin_.push_back(0);
    for (int64_t b = 0; b < problem.num_blocks; ++b) {
      begin_.push_back(begin_.back() + problem.blocks[b].embedding.rows);
    }
  }

  int64_t count() const { return begin_.back(); }

  // The block that holds key `index`; empty blocks hold none.
  const Frames& block_of(int64_t index, int64_t* block_begin) const {
    const auto after = std::upper_bound(begin_.begin(), begin_.end(), index);
    *block_begin = *(after - 1);
    return blocks_[after - 1 - begin_.begin()];
  }

  // Calls use(block, block_begin, first_row, last_row) for what each block has of [begin, end).
  template <typename Use>
  void for_each_block(int64_t begin, int64_t end, const Use& use) const {
    for (size_t b = 0; b + 1 < begin_.size(); ++b) {
      const int64_t first = std::max(begin, begin_[b]), last = std::min(end, begin_[b + 1]);
      if (first < last) use(blocks_[b], begin_[b], first - begin_[b], last - begin_[b]);
    }
  }

 private:
  const Frames* blocks_;
  std::vector<int64_t> begin_;  // [num_blocks + 1]
};

// Consecutive panels of the keys [begin, end): each of `width` but the last of a block.
class PanelSequence {
 public:
  PanelSequence(const Keys& keys, int64_t begin, int64_t end, int width) : width_(width) {
    keys.for_each_block(begin, end,
                        [&](const Frames& block, int64_t block_begin, int64_t first, int64_t last) {
                          runs_.push_back({&block, block_begin, first, last, count_});
                          count_ += (last - first + width_ - 1) / width_;
                        });
  }

  int64_t count() const { return count_; }

  KeyPanel operator[](int64_t number) const {
    const auto run = std::upper_bound(runs_.begin(), runs_.end(), number,
                                      [](int64_t n, const Run& r) { return n < r.first_panel; }) -
                     1;
    KeyPanel panel;
    panel.block = run->block;
    panel.block_begin = run->block_begin;
    const int64_t row = run->first_row + (number - run->first_panel) * width_;
    panel.count = static_cast<int>(std::min<int64_t>(width_, run->last_row - row));
    for (int j = 0; j < panel.count; ++j) panel.row[j] = row + j;
    return panel;
  }

 private:
  struct Run {
    const Frames* block;
    int64_t block_begin;
    int64_t first_row;
    int64_t last_row;
    int64_t first_panel;
  };

  int width_;
  int64_t count_ = 0;
  std::vector<Run> runs_;
};

// Panels of keys that lie anywhere, by their ascending indices; each of `width` but the last of a
// block.
class PanelsOfIndices {
 public:
  PanelsOfIndices(const Keys& keys, const uint32_t* indices, int64_t count, int width)
      : keys_(keys), indices_(indices) {
    int64_t block_end = 0;
    for (int64_t i = 0; i < count; ++i) {
      const bool full = !first_.empty() && i - first_.back() == width;
      if (indices[i] >= block_end || full) first_.push_back(i);
      if (indices[i] < block_end) continue;
      int64_t block_begin;
      const Frames& block = keys.block_of(indices[i], &block_begin);
      block_end = block_begin + block.embedding.rows;
    }
    first_.push_back(count);
  }

  int64_t count() const { return static_cast<int64_t>(first_.size()) - 1; }

  KeyPanel operator[](int64_t number) const {
    const int64_t first = first_[number];
    KeyPanel panel;
    panel.block = &keys_.block_of(indices_[first], &panel.block_begin);
    panel.count = static_cast<int>(first_[number + 1] - first);
    for (int j = 0; j < panel.count; ++j) panel.row[j] = indices_[first + j] - panel.block_begin;
    return panel;
  }

 private:
  const Keys& keys_;
  const uint32_t* indices_;
  std::vector<int64_t> first_;  // of each panel, and their end
};

}  // namespace usucl::cpu

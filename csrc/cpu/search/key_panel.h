// The keys of all blocks by index, and the few of them that are scored at once.
#pragma once

#include <algorithm>
#include <vector>

#include "../../core/divide.h"
#include "../../core/relation.h"
#include "../tile/rows.h"
#include "../tile/tile.h"

namespace usucl::cpu {

// Up to tile_keys keys of one block, in ascending order of index.
struct KeyPanel {
  const Frames* block = nullptr;
  int64_t block_begin = 0;  // index of the block's first key
  int count = 0;
  int64_t row[kMaxTileKeys];  // within the block

  int64_t index(int j) const { return block_begin + row[j]; }

  CommonIds common_ids() const {
    return {common_id(block->video, row, count), common_id(block->patient, row, count)};
  }

  bool all_slots_empty() const {
    return std::all_of(row, row + count, [&](int64_t r) { return block->is_empty(r); });
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

  // Like place_of in core/problem.h, by bisection.
  KeyPlace place_of(int64_t index) const {
    const auto begin = std::upper_bound(begin_.begin(), begin_.end(), index) - 1;
    return {blocks_ + (begin - begin_.begin()), index - *begin};
  }

  // Calls use(block, block_begin, first_row, last_row) for each block's part of [begin, end).
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

// Consecutive panels of the keys [begin, end), each of `width` except the last of a block.
class PanelSequence {
 public:
  PanelSequence(const Keys& keys, int64_t begin, int64_t end, int width) : width_(width) {
    keys.for_each_block(begin, end,
                        [&](const Frames& block, int64_t block_begin, int64_t first, int64_t last) {
                          runs_.push_back({&block, block_begin, first, last, count_});
                          count_ += ceil_divide(last - first, width_);
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

// Panels of keys that lie anywhere, given by ascending indices; each of `width` except the last of
// a block.
class PanelsOfIndices {
 public:
  PanelsOfIndices(const Keys& keys, const uint32_t* indices, int64_t count, int width)
      : keys_(keys), indices_(indices) {
    int64_t block_end = 0;
    for (int64_t i = 0; i < count; ++i) {
      const bool full = !first_.empty() && i - first_.back() == width;
      if (indices[i] >= block_end || full) first_.push_back(i);
      if (indices[i] < block_end) continue;
      const KeyPlace key = keys.place_of(indices[i]);
      block_end = indices[i] - key.row + key.block->embedding.rows;
    }
    first_.push_back(count);
  }

  int64_t count() const { return static_cast<int64_t>(first_.size()) - 1; }

  KeyPanel operator[](int64_t number) const {
    const int64_t first = first_[number];
    KeyPanel panel;
    const KeyPlace key = keys_.place_of(indices_[first]);
    panel.block = key.block;
    panel.block_begin = indices_[first] - key.row;
    panel.count = static_cast<int>(first_[number + 1] - first);
    for (int j = 0; j < panel.count; ++j) panel.row[j] = indices_[first + j] - panel.block_begin;
    return panel;
  }

 private:
  const Keys& keys_;
  const uint32_t* indices_;
  std::vector<int64_t> first_;  // the first key of each panel, and the end
};

}  // namespace usucl::cpu

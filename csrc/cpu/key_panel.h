// The keys of all blocks by index, and the few of them that are scored at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/problem.h"
#include "rows.h"
#include "tile.h"

namespace usucl::cpu {

constexpr int64_t kNoVideo = -1;

// Up to tile_keys keys of one block, in ascending order of index.
struct KeyPanel {
  const Frames* block = nullptr;
  int64_t block_begin = 0;  // index of the block's first key
  int count = 0;
  int64_t row[kMaxTileKeys];  // within the block

  int64_t index(int j) const { return block_begin + row[j]; }

  // The video of all keys, or kNoVideo where they have several, or none.
  int64_t only_video() const {
    const int64_t video = block->video[row[0]];
    for (int j = 1; j < count; ++j) {
      if (block->video[row[j]] != video) return kNoVideo;
    }
    return video < 0 ? kNoVideo : video;
  }

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

  // As many of `count` > 0 ascending indices as make one panel of at most `width`.
  KeyPanel gather(const uint32_t* indices, int64_t count, int width) const {
    KeyPanel panel;
    panel.block = &block_of(indices[0], &panel.block_begin);
    const int64_t end = panel.block_begin + panel.block->embedding.rows;
    while (panel.count < std::min<int64_t>(width, count)) {
      const int64_t index = indices[panel.count];
      if (index >= end) break;
      panel.row[panel.count++] = index - panel.block_begin;
    }
    return panel;
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

}  // namespace usucl::cpu

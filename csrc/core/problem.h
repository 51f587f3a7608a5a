// What every operator takes: plain pointers to contiguous rows, with counts.
#pragma once

#include <cstdint>

#include "dtypes.h"

namespace usucl {

// Contiguous rows of embeddings. [rows, dim]
struct Matrix {
  const void* data;
  DType dtype;
  int64_t rows;
  int64_t dim;

  // In elements; 64-bit because rows * dim exceeds 2^31 in large banks.
  USUCL_HD int64_t offset(int64_t row, int64_t column) const { return row * dim + column; }
};

// Element (row, column), upcast.
template <typename T>
USUCL_HD T element(const Matrix& matrix, int64_t row, int64_t column) {
  const int64_t offset = matrix.offset(row, column);
  switch (matrix.dtype) {
    case DType::kFloat32:
      return static_cast<T>(upcast(static_cast<const float*>(matrix.data)[offset]));
    case DType::kFloat64:
      return static_cast<T>(upcast(static_cast<const double*>(matrix.data)[offset]));
    case DType::kBFloat16:
      return static_cast<T>(upcast(static_cast<const BFloat16*>(matrix.data)[offset]));
    default:
      return static_cast<T>(upcast(static_cast<const Float16*>(matrix.data)[offset]));
  }
}

// Where a frame comes from.
struct FrameTag {
  int64_t video;    // negative: empty slot
  float time;       // NaN: inside no window
  int64_t patient;  // negative: unknown

  USUCL_HD bool is_empty() const { return video < 0; }
};

// Embedded frames. patient is null if a call has no patient ids.
struct Frames {
  Matrix embedding;        // [M, D]
  const int64_t* video;    // [M]
  const float* time;       // [M]
  const int64_t* patient;  // [M] or null

  USUCL_HD bool is_empty(int64_t row) const { return video[row] < 0; }

  USUCL_HD FrameTag tag(int64_t row) const {
    return {video[row], time[row], patient == nullptr ? -1 : patient[row]};
  }
};

// A closed interval of temporal distances.
struct Window {
  float lo;
  float hi;
};

// Which negatives of one group are wanted: ranks skip .. skip + k - 1.
struct Ranks {
  int64_t k;
  int64_t skip;

  // How many of `count` candidates, the hardest ones, must be kept to know these ranks; 0 if
  // `count` does not reach them.
  USUCL_HD int64_t depth(int64_t count) const {
    if (k == 0 || skip >= count) return 0;
    return skip + (k < count - skip ? k : count - skip);
  }
};

// A key, as its block and its row in the block.
struct KeyPlace {
  const Frames* block;
  int64_t row;
};

// The place of key `index`, counted through all blocks; empty blocks hold none.
USUCL_HD KeyPlace place_of(const Frames* blocks, int64_t index) {
  while (index >= blocks->embedding.rows) index -= (blocks++)->embedding.rows;
  return {blocks, index};
}

struct Problem {
  Frames anchors;        // N
  const Frames* blocks;  // num_blocks of them, M keys in all
  int64_t num_blocks;
  const float* windows;  // [N, 2], one pair, or null: no key is inside
  bool window_per_anchor;
  Ranks intra;
  Ranks cross;
  double max_similarity;  // +infinity: no limit
  // [N] of the accumulation type: one more limit per anchor, NaN for none; or null.
  const void* limits = nullptr;

  USUCL_HD Window window(int64_t anchor) const {
    if (windows == nullptr) return {1.0f, 0.0f};
    const float* pair = windows + (window_per_anchor ? 2 * anchor : 0);
    return {pair[0], pair[1]};
  }

  // The greatest similarity that a negative of this anchor may have. Every kernel asks here.
  template <typename T>
  USUCL_HD T greatest_valid(int64_t anchor) const {
    const T common = static_cast<T>(max_similarity);
    if (limits == nullptr) return common;
    const T own = static_cast<const T*>(limits)[anchor];
    return own < common ? own : common;
  }

  USUCL_HD int64_t num_keys() const {
    int64_t count = 0;
    for (int64_t b = 0; b < num_blocks; ++b) count += blocks[b].embedding.rows;
    return count;
  }
};

}  // namespace usucl

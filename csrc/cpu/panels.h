// Keys and anchors upcast and transposed into the panels that the score tile reads.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/problem.h"

namespace usucl::cpu {

// Column `column` of a panel [dim, width] becomes row `row` of the matrix.
template <typename T>
void pack_row(const Matrix& matrix, int64_t row, T* panel, int64_t width, int64_t column) {
  const auto copy = [&](const auto* elements) {
    const auto* source = elements + row * matrix.dim;
    for (int64_t d = 0; d < matrix.dim; ++d) {
      panel[d * width + column] = static_cast<T>(upcast(source[d]));
    }
  };
  switch (matrix.dtype) {
    case DType::kFloat32:
      return copy(static_cast<const float*>(matrix.data));
    case DType::kFloat64:
      return copy(static_cast<const double*>(matrix.data));
    case DType::kBFloat16:
      return copy(static_cast<const BFloat16*>(matrix.data));
    case DType::kFloat16:
      return copy(static_cast<const Float16*>(matrix.data));
  }
}

// Up to `width` consecutive keys of one block.
struct KeyPanel {
  const Frames* block;
  int64_t row;          // first key, within the block
  int64_t first_index;  // of that key, through all blocks
  int count;
};

// All keys in panels of `width`; a panel never spans two blocks.
class KeyPanels {
 public:
  KeyPanels(const Problem& problem, int64_t width) : problem_(problem), width_(width) {
    int64_t panels = 0, index = 0;
    for (int64_t b = 0; b < problem.num_blocks; ++b) {
      first_panel_.push_back(panels);
      first_index_.push_back(index);
      panels += (problem.blocks[b].embedding.rows + width - 1) / width;
      index += problem.blocks[b].embedding.rows;
    }
    first_panel_.push_back(panels);
    first_index_.push_back(index);
  }

  int64_t count() const { return first_panel_.back(); }
  int64_t num_keys() const { return first_index_.back(); }

  KeyPanel operator[](int64_t panel) const {
    const int64_t b = holder(first_panel_, panel);
    const int64_t row = (panel - first_panel_[b]) * width_;
    const Frames& block = problem_.blocks[b];
    const int64_t left = block.embedding.rows - row;
    return {&block, row, first_index_[b] + row, static_cast<int>(std::min(width_, left))};
  }

  // The one key of index `index`, as a panel of one.
  KeyPanel key(int64_t index) const {
    const int64_t b = holder(first_index_, index);
    return {&problem_.blocks[b], index - first_index_[b], index, 1};
  }

 private:
  // The last block that begins at or before `position`; empty blocks begin where the next does.
  static int64_t holder(const std::vector<int64_t>& first, int64_t position) {
    return std::upper_bound(first.begin(), first.end() - 1, position) - first.begin() - 1;
  }

  const Problem& problem_;
  int64_t width_;
  std::vector<int64_t> first_panel_;  // [num_blocks + 1]
  std::vector<int64_t> first_index_;  // [num_blocks + 1]
};

}  // namespace usucl::cpu

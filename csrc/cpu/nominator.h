// A group's anchors in bfloat16, which nominate keys for the canonical chain to decide.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/problem.h"
#include "aligned.h"
#include "nominate.h"
#include "rows.h"
#include "tile.h"

namespace usucl::cpu {

class Nominator {
 public:
  // anchors: rows of the matrix. Without kernels it never nominates.
  template <typename T>
  Nominator(const Matrix& matrix, const std::vector<int64_t>& anchors, const TileKernels<T>& tile)
      : kernels_(matrix.dim <= NominationMargin::kMaxDim ? tile.nominate : nullptr),
        matrix_(matrix),
        height_(tile.tile_anchors),
        width_(tile.tile_keys),
        steps_((matrix.dim + 1) / 2) {
    if (kernels_ == nullptr) return;
    const auto rows = static_cast<int64_t>(anchors.size());
    tiles_ = (rows + height_ - 1) / height_;
    packed_ = aligned_array<uint32_t>(tiles_ * height_ * steps_);
    std::fill_n(packed_.get(), tiles_ * height_ * steps_, 0u);
    panel_ = aligned_array<uint32_t>(width_ * steps_);
    limit_.assign(tiles_ * height_, std::numeric_limits<float>::infinity());
    std::vector<float> query(matrix.dim);
    for (int64_t row = 0; row < rows; ++row) {
      upcast_row(matrix, anchors[row], query.data());
      pack_anchor(row, query);
    }
  }

  // Readies a panel of keys for nominate: false where it must be scored by the chain. Other dtypes
  // are: rounding float32 keys would take longer than it saves where their norms are large. So is
  // what could overflow, and for a while what follows a panel most of whose pairs were nominated.
  // limit [tiles * tile_anchors]: of each anchor.
  bool load(const void* const* rows, DType dtype, int count, const std::vector<float>& limit) {
    if (kernels_ == nullptr || (dtype != DType::kBFloat16 && dtype != DType::kFloat16)) {
      return false;
    }
    if (rest_ > 0) {
      --rest_;
      return false;
    }
    if (count < width_) std::fill_n(panel_.get(), width_ * steps_, 0u);
    const float key_norm = kernels_->pack_keys(rows, dtype, count, matrix_.dim, panel_.get());
    if (!(greatest_norm_ < kMaxNorm && key_norm * greatest_norm_ < kMaxProduct)) return false;
    const NominationMargin margin(matrix_.dtype, dtype, matrix_.dim);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (size_t row = 0; row < norm_.size(); ++row) {
      limit_[row] = std::nextafter(limit[row] - margin(norm_[row], key_norm), -kInfinity);
    }
    pairs_ += count * static_cast<int64_t>(norm_.size());
    return true;
  }

  // As NominateKernels::nominate_tile, of the panel that was loaded.
  bool nominate(int64_t tile, uint64_t* hits) const {
    return kernels_->nominate_tile(packed_.get() + tile * height_ * steps_, panel_.get(), steps_,
                                   &limit_[tile * height_], hits);
  }

  // To be called after each panel with the number of its pairs that were nominated.
  void report(int64_t nominated) {
    if (nominated > pairs_ / kWorthwhile) rest_ = kRest;
    pairs_ = 0;
  }

 private:
  static constexpr float kMaxNorm = 1e38f;     // no element below it is rounded to infinity
  static constexpr float kMaxProduct = 1e37f;  // no sum of products overflows below it
  static constexpr int64_t kWorthwhile = 16;   // a nominee costs as much as so many pairs of a tile
  static constexpr int kRest = 8;              // panels

  void pack_anchor(int64_t row, const std::vector<float>& query) {
    double squared = 0;
    uint32_t* out = packed_.get() + row / height_ * height_ * steps_ + row % height_;
    for (int64_t d = 0; d < matrix_.dim; ++d) {
      squared += double{query[d]} * double{query[d]};
      out[d / 2 * height_] |= uint32_t{round_to_bfloat16(query[d])} << (d % 2 == 0 ? 0 : 16);
    }
    norm_.push_back(static_cast<float>(std::sqrt(squared)));
    greatest_norm_ = std::max(greatest_norm_, norm_.back());
  }

  const NominateKernels* kernels_;
  const Matrix& matrix_;
  int64_t height_;
  int64_t width_;
  int64_t steps_;
  int64_t tiles_ = 0;
  int64_t pairs_ = 0;  // of the panel that was loaded
  int rest_ = 0;       // panels that will be scored by the chain without asking
  float greatest_norm_ = 0;
  AlignedArray<uint32_t> packed_;  // [tiles, steps, tile_anchors]
  AlignedArray<uint32_t> panel_;   // [steps, tile_keys]
  std::vector<float> norm_;        // [anchors]
  std::vector<float> limit_;       // [tiles * tile_anchors] less the margin of the panel
};

}  // namespace usucl::cpu

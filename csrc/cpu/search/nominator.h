// A group's anchors in bfloat16, which nominate keys for the canonical chain to decide on.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../../core/divide.h"
#include "../../core/problem.h"
#include "../tile/bfloat16.h"
#include "../tile/rows.h"
#include "../tile/tile.h"
#include "aligned.h"

namespace usucl::cpu {

class Nominator {
 public:
  // anchors: rows of the matrix. num_keys, depth: see AnchorGroup; num_keys is this group's share
  // of all_keys. Without kernels, or if it would not be faster, nothing is ever nominated.
  template <typename T>
  Nominator(const Matrix& matrix, const std::vector<int64_t>& anchors, const TileKernels<T>& tile,
            int64_t num_keys, int64_t all_keys, int64_t depth)
      : kernels_(tile.bfloat16),
        dim_(matrix.dim),
        width_(tile.tile_keys),
        margin_of_(bfloat16_errors(dim_)) {
    const auto rows = static_cast<int64_t>(anchors.size());
    // With fewer keys, more than one pair in kWorthwhile would be among the best.
    if (kernels_ == nullptr || dim_ > kMaxNominatedDim || num_keys < 2 * kWorthwhile * depth ||
        all_keys < kKeysPerRank * depth || rows < kernels_->tile_anchors) {
      kernels_ = nullptr;
      return;
    }
    steps_ = round_up(ceil_divide(dim_, 2), kernels_->steps_multiple);
    const int64_t padded = round_up(rows, height());
    packed_ = zeros(padded * steps_);
    panel_ = zeros(width_ * steps_);
    limit_.assign(padded, std::numeric_limits<float>::infinity());
    margin_.resize(rows);
    std::vector<float> query(dim_);
    for (int64_t row = 0; row < rows; ++row) {
      upcast_row(matrix, anchors[row], query.data());
      pack_anchor(row, query);
    }
  }

  bool enabled() const { return kernels_ != nullptr; }

  // Anchors per tile.
  int64_t height() const { return kernels_->tile_anchors; }

  // Prepares a panel of keys for nominate. Returns false if the chain must score it: it could
  // overflow or has NaN, or too many pairs of a recent panel were nominated.
  // limit [tiles * tile_anchors]: one per anchor.
  bool load(const void* const* rows, DType dtype, int count, const std::vector<float>& limit) {
    if (kernels_ == nullptr) return false;
    if (rest_ > 0) {
      --rest_;
      return false;
    }
    if (count < width_) std::fill_n(panel_.get(), width_ * steps_, 0u);
    const Norms keys = kernels_->pack_keys(rows, dtype, count, dim_, panel_.get());
    if (!(greatest_norm_ < kMaxNorm && keys.row * greatest_norm_ < kMaxProduct)) return false;
    for (size_t row = 0; row < norms_.size(); ++row) {
      margin_[row] = margin_of_(norms_[row], keys);
      // The last term covers the rounding of the difference. Infinite limits stay infinite.
      const float magnitude = std::min(std::abs(limit[row]), std::numeric_limits<float>::max());
      limit_[row] = limit[row] - (margin_[row] + 0x1p-22f * magnitude);
    }
    return true;
  }

  // The largest difference between a dot product of the loaded panel and the similarity.
  float margin(int64_t row) const { return margin_[row]; }

  // Must exist around the calls of nominate for a panel.
  class Session {
   public:
    explicit Session(const Nominator& nominator) : kernels_(*nominator.kernels_) {
      if (kernels_.begin != nullptr) kernels_.begin();
    }
    ~Session() {
      if (kernels_.end != nullptr) kernels_.end();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

   private:
    const BFloat16Kernels& kernels_;
  };

  // BFloat16Kernels::nominate_tile on the loaded panel.
  bool nominate(int64_t tile, float* dot_product, uint64_t* hits) const {
    return kernels_->nominate_tile(packed_.get() + tile * height() * steps_, panel_.get(), steps_,
                                   &limit_[tile * height()], dot_product, hits);
  }

  // Whether nominees are rare enough among the pairs for nomination to pay off. If not, the chain
  // scores the next panels, twice as many each time.
  bool worthwhile(int64_t nominated, int64_t pairs) {
    if (nominated * kWorthwhile <= pairs) return true;
    rest_ = next_rest_;
    next_rest_ = std::min(2 * next_rest_, kMostRest);
    return false;
  }

  // To be called after a panel whose nomination was completed.
  void succeeded() { next_rest_ = kLeastRest; }

 private:
  static constexpr float kMaxNorm = 1e38f;     // no element below it rounds to infinity
  static constexpr float kMaxProduct = 1e37f;  // no sum of products overflows below it
  static constexpr int64_t kWorthwhile = 16;   // pairs of a tile that cost as much as one nominee
  // With AMX on an Emerald Rapids, two threads, 512 anchors and 65536 float32 keys, the loss ran at
  // 171 % of the peak of multiply-adds for 4 wanted keys per anchor, 107 % for 32 and 56 % for 256:
  // 16384, 2048 and 256 keys per wanted key. The chain alone runs at about 80 % of the peak where
  // it was measured with AVX-512, so the line is drawn between the last two.
  static constexpr int64_t kKeysPerRank = 1024;
  static constexpr int kLeastRest = 8, kMostRest = 128;  // panels

  static AlignedArray<uint32_t> zeros(int64_t count) {
    auto array = aligned_array<uint32_t>(count);
    std::fill_n(array.get(), count, 0u);
    return array;
  }

  void pack_anchor(int64_t row, const std::vector<float>& query) {
    double squared = 0, lost = 0;
    const int64_t tile = row / height() * height(), i = row % height();
    for (int64_t d = 0; d < dim_; ++d) {
      const BFloat16 rounded{round_to_bfloat16(query[d])};
      const double difference = double{query[d]} - double{upcast(rounded)};
      squared += double{query[d]} * double{query[d]};
      lost += difference * difference;
      const int64_t s = d / 2, place = kernels_->anchors_by_row ? i * steps_ + s : s * height() + i;
      packed_[tile * steps_ + place] |= uint32_t{rounded.bits} << (d % 2 == 0 ? 0 : 16);
    }
    norms_.push_back({static_cast<float>(std::sqrt(squared)), static_cast<float>(std::sqrt(lost))});
    greatest_norm_ = std::max(greatest_norm_, norms_.back().row);  // ignores NaN
  }

  const BFloat16Kernels* kernels_;
  int64_t dim_;
  int64_t width_;
  NominationMargin margin_of_;
  int64_t steps_ = 0;
  int rest_ = 0;  // panels left for the chain to score
  int next_rest_ = kLeastRest;
  float greatest_norm_ = 0;
  AlignedArray<uint32_t> packed_;  // [tiles, tile_anchors, steps] or [tiles, steps, tile_anchors]
  AlignedArray<uint32_t> panel_;   // [steps, tile_keys]
  std::vector<Norms> norms_;       // [anchors]
  std::vector<float> margin_;      // [anchors]
  std::vector<float> limit_;       // [tiles * tile_anchors] less the panel's margin
};

}  // namespace usucl::cpu

// Nomination: similarities from bfloat16 dot products, many times as fast as the canonical chain,
// say which pairs could rank; the chain then decides. So nothing is lost and nothing changes.
//
// Let q', k' be q, k rounded to bfloat16, a = q - q' and b = k - k' what rounding took, and
// u = 2^-24 the unit roundoff of float32.
//   q.k - q'.k' = a.k + q'.b, so |q.k - q'.k'| <= |a| |k| + (|q| + |a|) |b|, by Cauchy and Schwarz.
//       |a| and |b| are measured, not bounded: they are below 2^-8 of |q| and |k|, which is what
//       rounding to nearest can take from every element, and mostly below half of that.
//   The chain rounds at most once a term: it is off by at most g |q| |k|, g = D u / (1 - D u), by
//       Cauchy and Schwarz on the sum of absolute products. Of the instruction, products are exact
//       (8 x 8 bits), and whatever the order in which D of them are added, none passes more than
//       D - 1 additions that are not of a zero: off by at most g' |q'| |k'|, with g' for 2 u, so
//       that it need not round to nearest.
//   The instructions take subnormal inputs and results as zero: at most 2^-126 a term and factor,
//       and a result of each of at most 4 D additions.
//   Squares of elements below 2^-63 may be lost from a norm: at most sqrt(D) 2^-62 of it.
// The margin is above the sum of these by a factor for its own roundings. All this where nothing
// overflows: Nominator refuses norms that could.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../core/dtypes.h"

namespace usucl::cpu {

// Euclidean norms: of a row, and of what rounding to bfloat16 took from it; or the greatest of
// several rows.
struct Norms {
  float row;
  float lost;
};

// One instruction set's kernels. Panels are of 32-bit pairs of elements 2 s and 2 s + 1,
// s = 0 .. steps - 1; what is beyond D is zero. Tiles are as wide as those of its
// TileKernels<float>: keys [steps, tile_keys].
struct NominateKernels {
  int tile_anchors;     // a multiple of that of its TileKernels<float>
  int steps_multiple;   // of which steps must be one
  bool anchors_by_row;  // a tile's anchors are [tile_anchors, steps]; else [steps, tile_anchors]

  // To be called before and after nominate_tile, on the same thread; or null.
  void (*begin)();
  void (*end)();

  // If the dot product of any pair is above its anchor's limit, writes hits [tile_anchors] (bit j:
  // that with key j is) and dot_product [tile_anchors, tile_keys] and returns true.
  bool (*nominate_tile)(const uint32_t* anchors, const uint32_t* keys, int64_t steps,
                        const float* limit, float* dot_product, uint64_t* hits);

  // Packs `count` rows of D elements into the first columns of a key panel; returns the greatest
  // norms among them.
  Norms (*pack_keys)(const void* const* rows, DType dtype, int count, int64_t dim, uint32_t* panel);
};

inline uint16_t round_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// What a similarity may differ by from its nomination.
class NominationMargin {
 public:
  // Sums of more terms than this could lose every digit; such dimensions are not nominated.
  static constexpr int64_t kMaxDim = int64_t{1} << 20;

  explicit NominationMargin(int64_t dim) {
    const double d = static_cast<double>(dim), factor = std::pow(1 + 0x1p-8, 2);
    const auto growth = [d](double u) { return d * u / (1 - d * u); };
    // The last term: so that adding the margin to a nomination may round.
    relative_ = static_cast<float>(1.01 * factor * (growth(0x1p-24) + growth(0x1p-23)) + 0x1p-21);
    absolute_ = static_cast<float>(4 * d * 0x1p-126 + 3 * std::sqrt(d) * 0x1p-62);
  }

  float operator()(Norms anchor, Norms key) const {
    return 1.01f * (anchor.lost * key.row + (anchor.row + anchor.lost) * key.lost) +
           relative_ * anchor.row * key.row + absolute_ * (anchor.row + key.row + 1);
  }

 private:
  float relative_;
  float absolute_;
};

}  // namespace usucl::cpu

// Nomination: similarities from bfloat16 dot products, twice as fast as the canonical chain, say
// which pairs could be above a limit; the chain then decides. So nothing is lost and nothing
// changes.
//
// Let q', k' be q, k rounded to bfloat16, and u = 2^-24 the unit roundoff of float32.
//   |q'.k' - q.k| <= (e_q + e_k + e_q e_k) |q| |k|,  e = 2^-8 for what had to be rounded, else 0:
//       rounding to nearest changes an element by less than 2^-8 of it, so |q' - q| < 2^-8 |q|.
//   Both sums round at most once a term: each is off by at most g |q'| |k'| or g |q| |k|, with
//       g = D u / (1 - D u), by Cauchy and Schwarz on the sum of absolute products.
//   The instruction takes subnormal inputs and results as zero: at most 2^-126 a term and factor.
//   Squares of elements below 2^-63 may be lost from a norm: at most sqrt(D) 2^-62 of it.
// The margin is above the sum of these by a factor for its own roundings. All this where nothing
// overflows: Nominator refuses norms that could.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../core/dtypes.h"

namespace usucl::cpu {

// One instruction set's kernels; the shape of the tile is that of its TileKernels<float>. Panels
// are as in tile.h, of 32-bit pairs of elements 2 s and 2 s + 1, s = 0 .. (D + 1) / 2 - 1.
struct NominateKernels {
  // Sets hits [tile_anchors] (bit j: the dot product with key j is not at or below the limit, or is
  // NaN) and returns whether there are any.
  bool (*nominate_tile)(const uint32_t* anchors, const uint32_t* keys, int64_t steps,
                        const float* limit, uint64_t* hits);

  // Packs `count` rows of D elements into the first columns of a key panel; returns the greatest
  // Euclidean norm among them.
  float (*pack_keys)(const void* const* rows, DType dtype, int count, int64_t dim, uint32_t* panel);
};

inline uint16_t round_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// What a similarity may differ by from its nomination, for norms of anchor and key.
struct NominationMargin {
  float relative;  // times both norms
  float absolute;  // times their sum and one

  NominationMargin(DType anchors, DType keys, int64_t dim) {
    const auto rounding = [](DType dtype) { return dtype == DType::kBFloat16 ? 0.0 : 0x1p-8; };
    const double d = static_cast<double>(dim), g = d * 0x1p-24 / (1 - d * 0x1p-24);
    const double q = rounding(anchors), k = rounding(keys);
    relative = static_cast<float>(1.01 * (q + k + q * k + 2 * g * (1 + q) * (1 + k)));
    absolute = static_cast<float>(2 * d * 0x1p-126 + relative * std::sqrt(d) * 0x1p-62);
  }

  // Sums of more terms than this could lose every digit; such dimensions are not nominated.
  static constexpr int64_t kMaxDim = int64_t{1} << 20;

  float operator()(float anchor_norm, float key_norm) const {
    return relative * anchor_norm * key_norm + absolute * (anchor_norm + key_norm + 1);
  }
};

}  // namespace usucl::cpu

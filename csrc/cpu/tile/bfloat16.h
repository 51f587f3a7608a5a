// Kernels for nomination by bfloat16 dot products, many times as fast as the canonical chain, and
// their error bounds (core/nomination.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../core/dtypes.h"
#include "../../core/nomination.h"

namespace usucl::cpu {

// The kernels of one instruction set. Panels hold 32-bit pairs of elements 2 s and 2 s + 1 for
// s = 0 .. steps - 1, with zeros beyond D. Tiles are as wide as in its TileKernels<float>:
// keys [steps, tile_keys].
struct BFloat16Kernels {
  int tile_anchors;     // a multiple of tile_anchors of its TileKernels<float>
  int steps_multiple;   // steps must be a multiple of it
  bool anchors_by_row;  // a tile's anchors are [tile_anchors, steps]; else [steps, tile_anchors]

  // To be called before and after nominate_tile, on the same thread; or null.
  void (*begin)();
  void (*end)();

  // If any dot product exceeds its anchor's limit, writes hits [tile_anchors] (bit j: key j does)
  // and dot_product [tile_anchors, tile_keys] and returns true.
  bool (*nominate_tile)(const uint32_t* anchors, const uint32_t* keys, int64_t steps,
                        const float* limit, float* dot_product, uint64_t* hits);

  // Packs `count` rows of D elements into the first columns of a key panel; returns their greatest
  // norms.
  Norms (*pack_keys)(const void* const* rows, DType dtype, int count, int64_t dim, uint32_t* panel);
};

inline uint16_t round_to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Longer sums could lose every digit; such dimensions are not nominated.
constexpr int64_t kMaxNominatedDim = int64_t{1} << 20;

// rounding: |a| and |b| are measured. They are below 2^-8 of |q| and |k|, the most that rounding to
//     nearest can take from every element, and mostly below half of that.
// sums: products are exact (8 x 8 bits). In any order of adding D of them, none passes more than
//     D - 1 additions of a nonzero number: the error is at most g(D, 2 u) |q'| |k'|, with 2 u
//     because the instruction need not round to nearest.
// comparisons: a nomination plus or minus its margin.
// lost: the instructions take subnormal inputs and results as zero: at most 2^-126 per term and
//     factor, and per result of at most 4 D additions. Squares of elements below 2^-63 may be lost
//     from a norm: at most sqrt(D) 2^-62 of it.
inline NominationErrors bfloat16_errors(int64_t dim) {
  constexpr double kStretch = (1 + 0x1p-8) * (1 + 0x1p-8);  // bounds |q'| |k'| / (|q| |k|)
  const double d = static_cast<double>(dim);
  return {0, kStretch * (chain_error(dim) + growth(dim, 0x1p-23)), 0x1p-21,
          4 * d * 0x1p-126 + 3 * std::sqrt(d) * 0x1p-62};
}

}  // namespace usucl::cpu

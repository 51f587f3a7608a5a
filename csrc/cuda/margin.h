// Nomination: tensor cores score every anchor with every key, fast and not quite right; what could
// be among the hardest is kept, and the canonical chain decides between the nominees (decide.cu).
//
// By how much a score may differ from the similarity, for rows of norms |q| and |k|. Let q', k' be
// the rows as tensor cores read them.
//   |q'.k' - q.k| <= (e_q + e_k + e_q e_k) |q| |k| by Cauchy and Schwarz, where |q' - q| <= e_q
//   |q|:
//       float32 anchors are rounded to nearest, e = 2^-8 (bfloat16), 2^-11 (float16), 2^-11 (TF32);
//       float32 keys are read without their low 13 bits, e = 2^-10; all else is read as it is.
//   An instruction adds n products to a sum. The products are exact; the n + 1 terms are aligned to
//       the greatest of them, cut off no higher than at its 24th bit, added, and the sum is cut off
//       there: off by at most (n + 2) 2^-23 of the greatest term, which is at most |q'| |k'| for
//       every product and every sum of some. With n >= 8 and D a multiple of n: 1.25 D 2^-23.
//   The chain rounds once a term: off by at most g |q| |k|, g = D u / (1 - D u), u = 2^-24.
//   Subnormal numbers may be read as zeros, and float16 is subnormal below 2^-14 (but is read so):
//       rounding to it is off by 2^-25 an element, all else by 2^-126, times the other's norm.
//   Norms are summed in float32: they are given with a margin of their own, upwards.
// The margin is above the sum of these. It holds where nothing overflows: rows whose norms could
// are left to the chain.
#pragma once

#include <cmath>
#include <cstdint>

#include "../core/dtypes.h"

namespace usucl::cuda {

constexpr int kMaxDim = 1 << 14;  // beyond, the margin would let too much through
constexpr float kMaxNormProduct = 1e37f;

// Of one element type: a factor of both norms, and one of their sum and one.
struct Margin {
  float relative;
  float absolute;

  Margin() : relative(0), absolute(0) {}

  Margin(DType anchors, DType elements, int64_t dim) {
    const bool exact = anchors == elements && elements != DType::kFloat32;
    const bool upcast = elements == DType::kFloat32 && anchors != DType::kFloat32;
    const double d = static_cast<double>(dim), g = d * 0x1p-24 / (1 - d * 0x1p-24);
    const double q = exact || upcast ? 0 : elements == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
    const double k = elements == DType::kFloat32 ? 0x1p-10 : 0;
    const double sums = (d + 128) * 0x1p-22;  // + 128: also what the comparisons round off
    const double lost = elements == DType::kFloat16 && !exact ? 0x1p-25 : 0x1p-125;
    relative = static_cast<float>(1.01 * (q + k + q * k + g + sums * (1 + q) * (1 + k)));
    absolute = static_cast<float>(1.01 * (std::sqrt(d) * lost + d * 0x1p-125));
  }
};

constexpr int kElementTypes = 3;

USUCL_HD int type_of(DType elements) {
  return elements == DType::kBFloat16 ? 0 : elements == DType::kFloat16 ? 1 : 2;
}

}  // namespace usucl::cuda

// The error bounds of tensor cores for core/nomination.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "../../core/dtypes.h"
#include "../../core/nomination.h"

namespace usucl::cuda {

constexpr int kMaxDim = 1 << 14;  // above it, the margin would let too much through
constexpr float kMaxNormProduct = 1e37f;

// rounding: float32 anchors are rounded to nearest, e_q = 2^-8 (bfloat16), 2^-11 (float16), 2^-11
//     (TF32); float32 keys are read without their low 13 bits, e_k = 2^-10; other types are exact.
// sums: an instruction adds n exact products to a sum. The n + 1 terms are aligned to the greatest,
//     cut off no higher than at its 24th bit, added, and the sum is cut off there: the error is at
//     most (n + 2) 2^-23 of the greatest term, which is at most |q'| |k'| for every product and
//     every partial sum. With n >= 8 and D a multiple of n: 1.25 D 2^-23.
// comparisons: included in sums, which grow with (D + 128) 2^-22 instead.
// lost: float16 is subnormal below 2^-14 (but is read so), and rounding to it loses up to 2^-25 per
//     element, times the other row's norm; everything else may be read as zero below 2^-126. Norms
//     are summed in float32 and enlarged by a margin of their own.
inline NominationErrors tensor_core_errors(DType anchors, DType elements, int64_t dim) {
  const bool exact = anchors == elements && elements != DType::kFloat32;
  const bool upcast = elements == DType::kFloat32 && anchors != DType::kFloat32;
  const double d = static_cast<double>(dim);
  const double q = exact || upcast ? 0 : elements == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
  const double k = elements == DType::kFloat32 ? 0x1p-10 : 0;
  const double lost = elements == DType::kFloat16 && !exact ? 0x1p-25 : 0x1p-125;
  return {q + k + q * k, chain_error(dim) + (d + 128) * 0x1p-22 * (1 + q) * (1 + k), 0,
          1.01 * (std::sqrt(d) * lost + d * 0x1p-125)};
}

constexpr int kElementTypes = 3;

USUCL_HD int type_of(DType elements) {
  return elements == DType::kBFloat16 ? 0 : elements == DType::kFloat16 ? 1 : 2;
}

}  // namespace usucl::cuda

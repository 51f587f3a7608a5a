// Nomination: fast, inexact products of low-precision elements find the pairs that could rank; then
// the canonical chain decides. The result is the same, bit for bit, as long as a similarity and its
// nomination differ by no more than the margin.
//
// Let q', k' be the rows q, k as the fast products read them, a = q' - q, b = k' - k, and u = 2^-24
// the unit roundoff of float32. The margin is the sum of the members of NominationErrors, in order:
//   rounding: q'.k' - q.k = a.k + q'.b, so |q'.k' - q.k| <= |a| |k| + (|q| + |a|) |b| by Cauchy and
//       Schwarz. Either |a| and |b| are measured for every row, or they are bounded, |a| <= e_q |q|
//       and |b| <= e_k |k|, which gives (e_q + e_k + e_q e_k) |q| |k|.
//   sums: the chain rounds at most once per term, so its error is at most g |q| |k|,
//       g = D u / (1 - D u), by Cauchy and Schwarz on the sum of absolute products. The error of
//       the fast sum of D exact products is some factor of |q'| |k'| <= (1 + e_q) (1 + e_k) |q| |k|
//       that depends on the instruction.
//   comparisons: the rounding of what is computed from the margin and a nomination.
//   lost: subnormal numbers that are read or written as zeros, and squares too small to contribute
//       to a norm, per unit of |q| + |k| + 1.
// The margin is enlarged by a factor for its own roundings. All this holds where nothing overflows:
// rows whose norms could overflow must not be nominated.
#pragma once

#include <cstdint>

#include "macros.h"

namespace usucl {

// g(n, u): the largest error of n additions, each rounded by a factor of at most 1 + u.
USUCL_HD double growth(int64_t n, double u) {
  const double error = static_cast<double>(n) * u;
  return error / (1 - error);
}

// The largest error of the canonical chain over `dim` elements.
USUCL_HD double chain_error(int64_t dim) { return growth(dim, 0x1p-24); }

struct NominationErrors {
  double rounding;  // 0 if it is measured
  double sums;
  double comparisons;
  double lost;
};

// Euclidean norms of a row and of its rounding error; or the greatest of several rows.
struct Norms {
  float row;
  float lost;
};

// The largest difference between a similarity and its nomination.
struct NominationMargin {
  float relative = 0;  // per unit of |q| |k|
  float absolute = 0;  // per unit of |q| + |k| + 1

  NominationMargin() = default;
  explicit NominationMargin(const NominationErrors& e)
      : relative(static_cast<float>(1.01 * (e.rounding + e.sums) + e.comparisons)),
        absolute(static_cast<float>(e.lost)) {}

  // If the rounding of rows is bounded.
  USUCL_HD float operator()(float anchor, float key) const {
    return relative * anchor * key + absolute * (anchor + key + 1.0f);
  }

  // If it is measured.
  USUCL_HD float operator()(const Norms& anchor, const Norms& key) const {
    return 1.01f * (anchor.lost * key.row + (anchor.row + anchor.lost) * key.lost) +
           relative * anchor.row * key.row + absolute * (anchor.row + key.row + 1.0f);
  }
};

}  // namespace usucl

// Nomination: products that are fast and not quite right, of low-precision elements, say which
// pairs could rank; the canonical chain then decides. So nothing is lost and nothing changes, as
// long as a similarity and its nomination differ by no more than the margin.
//
// Let q', k' be the rows q, k as the fast products read them, a = q' - q, b = k' - k, and u = 2^-24
// the unit roundoff of float32. These add up, in the order of the members of NominationErrors:
//   rounding: q'.k' - q.k = a.k + q'.b, so |q'.k' - q.k| <= |a| |k| + (|q| + |a|) |b| by Cauchy and
//       Schwarz. Either |a| and |b| are measured for every row, or they are bounded, |a| <= e_q |q|
//       and |b| <= e_k |k|, which gives (e_q + e_k + e_q e_k) |q| |k|.
//   sums: the chain rounds at most once per term, so it is off by at most g |q| |k|,
//       g = D u / (1 - D u), by Cauchy and Schwarz on the sum of absolute products. The fast sum of
//       D exact products is off by some factor of |q'| |k'| <= (1 + e_q) (1 + e_k) |q| |k| that
//       depends on the instruction.
//   comparisons: of what is computed with the margin and a nomination, and rounded.
//   lost: subnormal numbers that are read or written as zeros, and squares too small to be part of
//       a norm, per unit of |q| + |k| + 1.
// The margin is above the sum of these by a factor for its own roundings. All this holds where
// nothing overflows: norms that could must not be nominated.
#pragma once

#include <cstdint>

#include "macros.h"

namespace usucl {

// g(n, u): what n additions, each rounded by a factor of at most 1 + u, may be off by.
USUCL_HD double growth(int64_t n, double u) {
  const double error = static_cast<double>(n) * u;
  return error / (1 - error);
}

// What the canonical chain over `dim` elements may be off by.
USUCL_HD double chain_error(int64_t dim) { return growth(dim, 0x1p-24); }

struct NominationErrors {
  double rounding;  // 0 where it is measured
  double sums;
  double comparisons;
  double lost;
};

// Euclidean norms: of a row, and of what rounding took from it; or the greatest of several rows.
struct Norms {
  float row;
  float lost;
};

// What a similarity may differ by from its nomination.
struct NominationMargin {
  float relative = 0;  // per unit of |q| |k|
  float absolute = 0;  // per unit of |q| + |k| + 1

  NominationMargin() = default;
  explicit NominationMargin(const NominationErrors& e)
      : relative(static_cast<float>(1.01 * (e.rounding + e.sums) + e.comparisons)),
        absolute(static_cast<float>(e.lost)) {}

  // Where the rounding of rows is bounded.
  USUCL_HD float operator()(float anchor, float key) const {
    return relative * anchor * key + absolute * (anchor + key + 1.0f);
  }

  // Where it is measured.
  USUCL_HD float operator()(const Norms& anchor, const Norms& key) const {
    return 1.01f * (anchor.lost * key.row + (anchor.row + anchor.lost) * key.lost) +
           relative * anchor.row * key.row + absolute * (anchor.row + key.row + 1.0f);
  }
};

}  // namespace usucl

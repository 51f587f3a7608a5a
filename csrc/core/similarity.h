// The definition of a similarity: a chain of fused multiply-adds over d = 0 .. D-1.
//
// For speed the kernels restate it in registers, many chains side by side (cpu/tile/tile_kernels.h,
// cuda/device_problem.h, cuda/chain.cu); tests hold every one of them to these bits.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace usucl {

// Adding +0 turns -0 into +0, so that equal similarities also have equal bits.
template <typename T>
USUCL_HD T canonical(T similarity) {
  return similarity + T(0);
}

// anchor(d) and key(d) return the upcast elements.
template <typename T, typename Anchor, typename Key>
USUCL_HD T similarity(const Anchor& anchor, const Key& key, int64_t dim) {
  T sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum = fused_multiply_add(anchor(d), key(d), sum);
  return canonical(sum);
}

}  // namespace usucl

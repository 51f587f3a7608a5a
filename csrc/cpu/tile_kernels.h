// The tile of tile.h over any register type of simd.h. Included once by each tile_*.cpp.
#pragma once

#include "simd.h"
#include "tile.h"

namespace usucl::cpu {
namespace {

// Not inlined: within a larger function compilers spill the accumulators.
template <typename Simd, int kAnchors, int kRegisters>
[[gnu::noinline]] bool score_tile(const typename Simd::Element* anchors,
                                  const typename Simd::Element* keys, int64_t dim,
                                  const typename Simd::Element* threshold,
                                  typename Simd::Element* similarity, uint32_t* hits) {
  constexpr int kKeys = kRegisters * Simd::kLanes;
  static_assert(kAnchors <= kMaxTileAnchors && kKeys <= kMaxTileKeys && kKeys <= 32);
  typename Simd::Register sum[kAnchors][kRegisters];
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) sum[i][r] = Simd::zero();
  }
  for (int64_t d = 0; d < dim; ++d) {
    typename Simd::Register key[kRegisters];
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) key[r] = Simd::load(keys + d * kKeys + r * Simd::kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kAnchors; ++i) {
      const auto anchor = Simd::broadcast(anchors[d * kAnchors + i]);
#pragma GCC unroll 4
      for (int r = 0; r < kRegisters; ++r) {
        sum[i][r] = Simd::multiply_add(anchor, key[r], sum[i][r]);
      }
    }
  }
  uint32_t any = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    const auto limit = Simd::broadcast(threshold[i]);
    uint32_t hit = 0;
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      hit |= Simd::greater(sum[i][r], limit) << (r * Simd::kLanes);
    }
    hits[i] = hit;
    any |= hit;
  }
  if (any == 0) return false;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      Simd::store(similarity + i * kKeys + r * Simd::kLanes, sum[i][r]);
    }
  }
  return true;
}

template <typename Simd, int kRegisters>
[[gnu::noinline]] void score_row(const typename Simd::Element* anchor,
                                 const typename Simd::Element* keys, int64_t dim,
                                 typename Simd::Element* similarity) {
  constexpr int kKeys = kRegisters * Simd::kLanes;
  typename Simd::Register sum[kRegisters];
#pragma GCC unroll 4
  for (int r = 0; r < kRegisters; ++r) sum[r] = Simd::zero();
  for (int64_t d = 0; d < dim; ++d) {
    const auto element = Simd::broadcast(anchor[d]);
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      sum[r] = Simd::multiply_add(element, Simd::load(keys + d * kKeys + r * Simd::kLanes), sum[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRegisters; ++r) Simd::store(similarity + r * Simd::kLanes, sum[r]);
}

template <typename Simd, int kAnchors, int kRegisters>
constexpr TileKernels<typename Simd::Element> kTileKernels = {
    kAnchors, kRegisters * Simd::kLanes, &score_tile<Simd, kAnchors, kRegisters>,
    &score_row<Simd, kRegisters>};

}  // namespace
}  // namespace usucl::cpu

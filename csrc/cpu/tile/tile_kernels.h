// The kernels of tile.h over any register type of simd.h. The file of each instruction set includes
// it once.
#pragma once

#include "pack.h"
#include "simd.h"
#include "tile.h"

namespace usucl::cpu {
namespace {

// Not inlined: compilers spill the accumulators in a larger function.
template <typename Simd, int kAnchors, int kRegisters>
[[gnu::noinline]] bool score_tile(const typename Simd::Element* anchors,
                                  const typename Simd::Element* keys, int64_t dim,
                                  const typename Simd::Element* limit,
                                  typename Simd::Element* similarity, uint64_t* hits) {
  constexpr int kKeys = kRegisters * Simd::kLanes;
  static_assert(kAnchors <= kMaxTileAnchors && kKeys <= kMaxTileKeys);
  typename Simd::Register sum[kAnchors][kRegisters];
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) sum[i][r] = Simd::zero();
  }
  const auto add_products = [&](int64_t d) __attribute__((always_inline)) {
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
  };
  int64_t d = 0;
  for (; d + 4 <= dim; d += 4) {
    add_products(d);
    add_products(d + 1);
    add_products(d + 2);
    add_products(d + 3);
  }
  for (; d < dim; ++d) add_products(d);

  typename Simd::Mask any = Simd::none();
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    const auto bound = Simd::broadcast(limit[i]);
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) any = Simd::either(any, Simd::greater(sum[i][r], bound));
  }
  if (Simd::bits(any) == 0) return false;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    const auto bound = Simd::broadcast(limit[i]);
    uint64_t hit = 0;
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      hit |= uint64_t{Simd::bits(Simd::greater(sum[i][r], bound))} << (r * Simd::kLanes);
      Simd::store(similarity + i * kKeys + r * Simd::kLanes, sum[i][r]);
    }
    hits[i] = hit;
  }
  return true;
}

// One pair per lane, transposed one block of dimensions at a time: a register holds many chains.
template <typename Simd>
[[gnu::noinline]] void score_pairs(const void* const* anchors, DType anchor_dtype,
                                   const void* const* keys, DType key_dtype, int64_t dim,
                                   typename Simd::Element* similarity) {
  using Element = typename Simd::Element;
  constexpr int kPairs = Simd::kLanes;
  constexpr int64_t kBlock = 64;
  static_assert(kPairs <= kMaxPairs);
  alignas(64) Element anchor[kBlock * kPairs], key[kBlock * kPairs];
  auto sum = Simd::zero();
  for (int64_t begin = 0; begin < dim; begin += kBlock) {
    const int64_t width = dim - begin < kBlock ? dim - begin : kBlock;
    const void *anchor_rows[kPairs], *key_rows[kPairs];
    for (int l = 0; l < kPairs; ++l) {
      anchor_rows[l] = static_cast<const char*>(anchors[l]) + begin * bytes_of(anchor_dtype);
      key_rows[l] = static_cast<const char*>(keys[l]) + begin * bytes_of(key_dtype);
    }
    pack_keys<Element, kPairs>(anchor_rows, anchor_dtype, kPairs, width, anchor);
    pack_keys<Element, kPairs>(key_rows, key_dtype, kPairs, width, key);
    for (int64_t d = 0; d < width; ++d) {
      sum = Simd::multiply_add(Simd::load(anchor + d * kPairs), Simd::load(key + d * kPairs), sum);
    }
  }
  Simd::store(similarity, sum);
}

template <typename Simd>
[[gnu::noinline]] typename Simd::Element multiply_adds(int64_t rounds) {
  using Element = typename Simd::Element;
  typename Simd::Register sum[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sum[i] = Simd::broadcast(static_cast<Element>(i));
  const auto factor = Simd::broadcast(static_cast<Element>(0.999));
  const auto addend = Simd::broadcast(static_cast<Element>(0.001));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sum[i] = Simd::multiply_add(sum[i], factor, addend);
  }
  Element lanes[Simd::kLanes], total = 0;
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) {
    Simd::store(lanes, sum[i]);
    total += lanes[0];
  }
  return total;
}

template <typename Simd, int kAnchors, int kRegisters>
constexpr TileKernels<typename Simd::Element> kTileKernels = {
    kAnchors,
    kRegisters * Simd::kLanes,
    &score_tile<Simd, kAnchors, kRegisters>,
    Simd::kLanes,
    &score_pairs<Simd>,
    &pack_keys<typename Simd::Element, kRegisters * Simd::kLanes>,
    &add_scaled<typename Simd::Element>,
    &multiply_adds<Simd>,
    12 * Simd::kLanes,
    nullptr};

}  // namespace
}  // namespace usucl::cpu

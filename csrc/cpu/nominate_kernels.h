// The kernels of nominate.h over any register type. Included by tile_avx512_bf16.cpp, and compiled
// there for its instruction set, and by the tests.
#pragma once

#include "nominate.h"
#include "pack.h"

namespace usucl::cpu {
namespace {

// Plain C++: the meaning of the instruction, but for subnormal numbers.
template <int kWidth>
struct PlainPairs {
  struct Register {
    float lane[kWidth];
  };
  struct Pairs {
    uint32_t lane[kWidth];
  };
  static constexpr int kLanes = kWidth;
  static Register zero() { return {}; }
  static Pairs load(const uint32_t* p) {
    Pairs x;
    for (int l = 0; l < kWidth; ++l) x.lane[l] = p[l];
    return x;
  }
  static Pairs broadcast(uint32_t pair) {
    Pairs x;
    for (int l = 0; l < kWidth; ++l) x.lane[l] = pair;
    return x;
  }
  static Register add_dot(Register sum, const Pairs& a, const Pairs& b) {
    for (int l = 0; l < kWidth; ++l) {
      const auto high = [](uint32_t pair) { return float_from_bits(pair & 0xffff0000u); };
      const auto low = [](uint32_t pair) { return float_from_bits(pair << 16); };
      sum.lane[l] = std::fma(high(a.lane[l]), high(b.lane[l]), sum.lane[l]);
      sum.lane[l] = std::fma(low(a.lane[l]), low(b.lane[l]), sum.lane[l]);
    }
    return sum;
  }
  static uint32_t not_at_or_below(const Register& sum, float limit) {
    uint32_t mask = 0;
    for (int l = 0; l < kWidth; ++l) mask |= (!(sum.lane[l] <= limit) ? 1u : 0u) << l;
    return mask;
  }
};

#if defined(USUCL_AVX512_BF16)
struct Avx512Pairs {
  using Register = __m512;
  using Pairs = __m512i;
  static constexpr int kLanes = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Pairs load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static Pairs broadcast(uint32_t pair) { return _mm512_set1_epi32(static_cast<int>(pair)); }
  static Register add_dot(Register sum, Pairs a, Pairs b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static uint32_t not_at_or_below(Register sum, float limit) {
    return _mm512_cmp_ps_mask(sum, _mm512_set1_ps(limit), _CMP_NLE_UQ);
  }
};
#endif

// Not inlined, as score_tile is not.
template <typename Simd, int kAnchors, int kRegisters>
[[gnu::noinline]] bool nominate_tile(const uint32_t* anchors, const uint32_t* keys, int64_t steps,
                                     const float* limit, uint64_t* hits) {
  constexpr int kKeys = kRegisters * Simd::kLanes;
  typename Simd::Register sum[kAnchors][kRegisters];
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) sum[i][r] = Simd::zero();
  }
  for (int64_t s = 0; s < steps; ++s) {
    typename Simd::Pairs key[kRegisters];
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) key[r] = Simd::load(keys + s * kKeys + r * Simd::kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kAnchors; ++i) {
      const auto anchor = Simd::broadcast(anchors[s * kAnchors + i]);
#pragma GCC unroll 4
      for (int r = 0; r < kRegisters; ++r) sum[i][r] = Simd::add_dot(sum[i][r], anchor, key[r]);
    }
  }
  uint64_t any = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    uint64_t hit = 0;
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      hit |= uint64_t{Simd::not_at_or_below(sum[i][r], limit[i])} << (r * Simd::kLanes);
    }
    hits[i] = hit;
    any |= hit;
  }
  return any != 0;
}

// Sixteen sums side by side, so that compilers make a vector of them.
template <typename Element>
float squared_norm(const Element* row, int64_t dim) {
  float sum[16] = {};
  const int64_t whole = dim / 16 * 16;
  for (int64_t d = 0; d < whole; d += 16) {
    for (int l = 0; l < 16; ++l) sum[l] += upcast(row[d + l]) * upcast(row[d + l]);
  }
  float total = 0;
  for (int64_t d = whole; d < dim; ++d) total += upcast(row[d]) * upcast(row[d]);
  for (const float part : sum) total += part;
  return total;
}

template <int kWidth>
void pack_pairs(const void* const* rows, int count, int64_t dim, uint32_t* panel) {
  static_assert(sizeof(float) == sizeof(uint32_t));
  // A pair is moved as one float: nothing is computed with it.
  pack_rows<float, kWidth>(rows, count, dim / 2, reinterpret_cast<float*>(panel));
  if (dim % 2 == 0) return;
  for (int j = 0; j < count; ++j) {
    panel[dim / 2 * kWidth + j] = static_cast<const BFloat16*>(rows[j])[dim - 1].bits;
  }
}

// Rounded a block of dimensions at a time, an even number of them.
template <int kWidth, typename Element>
void pack_rounded(const void* const* rows, int count, int64_t dim, uint32_t* panel) {
  constexpr int64_t kBlock = 64;
  uint16_t rounded[kMaxTileKeys][kBlock];
  const void* rounded_rows[kMaxTileKeys];
  for (int64_t begin = 0; begin < dim; begin += kBlock) {
    const int64_t width = dim - begin < kBlock ? dim - begin : kBlock;
    for (int j = 0; j < count; ++j) {
      const auto* row = static_cast<const Element*>(rows[j]) + begin;
      for (int64_t d = 0; d < width; ++d) rounded[j][d] = round_to_bfloat16(upcast(row[d]));
      rounded_rows[j] = rounded[j];
    }
    pack_pairs<kWidth>(rounded_rows, count, width, panel + begin / 2 * kWidth);
  }
}

template <typename Element>
float greatest_norm(const void* const* rows, int count, int64_t dim) {
  float most = 0;
  for (int j = 0; j < count; ++j) {
    const float squared = squared_norm(static_cast<const Element*>(rows[j]), dim);
    most = squared > most ? squared : most;
  }
  return std::sqrt(most);
}

template <int kWidth>
float pack_nominees(const void* const* rows, DType dtype, int count, int64_t dim, uint32_t* panel) {
  switch (dtype) {
    case DType::kBFloat16:
      pack_pairs<kWidth>(rows, count, dim, panel);
      return greatest_norm<BFloat16>(rows, count, dim);
    case DType::kFloat16:
      pack_rounded<kWidth, Float16>(rows, count, dim, panel);
      return greatest_norm<Float16>(rows, count, dim);
    default:
      pack_rounded<kWidth, float>(rows, count, dim, panel);
      return greatest_norm<float>(rows, count, dim);
  }
}

template <typename Simd, int kAnchors, int kRegisters>
constexpr NominateKernels kNominateKernels = {&nominate_tile<Simd, kAnchors, kRegisters>,
                                              &pack_nominees<kRegisters * Simd::kLanes>};

}  // namespace
}  // namespace usucl::cpu

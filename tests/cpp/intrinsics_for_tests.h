// The intrinsics of cpu/tile/bfloat16_kernels.h in plain C++, so that its kernels run on every
// machine. Operands, roundings and subnormal numbers follow Intel's manual. Must not be included
// together with <immintrin.h>.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "check.h"
#include "core/dtypes.h"
#include "cpu/tile/bfloat16.h"

namespace usucl::cpu {
namespace {

template <typename Element, int kCount>
struct LanesForTests {
  Element lane[kCount];
};

using __m512 = LanesForTests<float, 16>;
using __m512i = LanesForTests<uint32_t, 16>;
using __m512bh = LanesForTests<uint16_t, 32>;
using __m256i = LanesForTests<uint16_t, 16>;
constexpr int _CMP_GT_OQ = 30;

template <typename Register, typename Value>
Register lanes(const Value& value) {
  Register x;
  int l = 0;
  for (auto& lane : x.lane) lane = value(l++);
  return x;
}

template <typename Register>
Register read_as(const void* from) {
  Register x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

// How these instructions read their inputs and write their results.
inline float flush(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

inline float flushed_bfloat16(uint16_t bits) { return flush(upcast(BFloat16{bits})); }

inline __m512 _mm512_setzero_ps() { return {}; }
inline __m512 _mm512_set1_ps(float x) {
  return lanes<__m512>([&](int) { return x; });
}
inline __m512i _mm512_set1_epi32(int x) {
  return lanes<__m512i>([&](int) { return static_cast<uint32_t>(x); });
}
inline __m512 _mm512_loadu_ps(const void* p) { return read_as<__m512>(p); }
inline __m512i _mm512_loadu_si512(const void* p) { return read_as<__m512i>(p); }
inline __m256i _mm256_loadu_si256(const __m256i* p) { return read_as<__m256i>(p); }
inline void _mm512_storeu_ps(void* p, const __m512& x) { std::memcpy(p, &x, sizeof x); }
inline void _mm512_storeu_si512(void* p, const __m512i& x) { std::memcpy(p, &x, sizeof x); }
inline __m512 _mm512_castsi512_ps(const __m512i& x) { return read_as<__m512>(&x); }
inline __m256i _mm512_castsi512_si256(const __m512i& x) { return read_as<__m256i>(&x); }
inline __m256i _mm512_extracti64x4_epi64(const __m512i& x, int half) {
  return read_as<__m256i>(x.lane + 8 * half);
}
inline __m512i _mm512_cvtepu16_epi32(const __m256i& x) {
  return lanes<__m512i>([&](int l) { return uint32_t{x.lane[l]}; });
}
inline __m512i _mm512_slli_epi32(const __m512i& x, unsigned bits) {
  return lanes<__m512i>([&](int l) { return x.lane[l] << bits; });
}
inline __m512 _mm512_cvtph_ps(const __m256i& x) {
  return lanes<__m512>([&](int l) { return upcast(Float16{x.lane[l]}); });
}
inline __m512 _mm512_fmadd_ps(const __m512& a, const __m512& b, const __m512& c) {
  return lanes<__m512>([&](int l) { return std::fma(a.lane[l], b.lane[l], c.lane[l]); });
}
inline __m512 _mm512_sub_ps(const __m512& a, const __m512& b) {
  return lanes<__m512>([&](int l) { return a.lane[l] - b.lane[l]; });
}
inline __m512 _mm512_max_ps(const __m512& a, const __m512& b) {  // the second operand if one is NaN
  return lanes<__m512>([&](int l) { return a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l]; });
}
inline uint16_t _mm512_cmp_ps_mask(const __m512& a, const __m512& b, int) {  // always _CMP_GT_OQ
  uint16_t mask = 0;
  for (int l = 0; l < 16; ++l) mask |= static_cast<uint16_t>((a.lane[l] > b.lane[l] ? 1 : 0) << l);
  return mask;
}
inline float _mm512_reduce_add_ps(const __m512& x) {
  float part[16];
  std::memcpy(part, x.lane, sizeof part);
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) part[l] += part[l + width];
  }
  return part[0];
}

// VCVTNE2PS2BF16: the second operand's elements come first.
inline __m512bh _mm512_cvtne2ps_pbh(const __m512& high, const __m512& low) {
  return lanes<__m512bh>(
      [&](int l) { return round_to_bfloat16(flush(l < 16 ? low.lane[l] : high.lane[l - 16])); });
}

// VDPBF16PS: the odd elements first, each product fused with its addition.
inline __m512 _mm512_dpbf16_ps(const __m512& sum, const __m512bh& a, const __m512bh& b) {
  return lanes<__m512>([&](int l) {
    float x = flush(sum.lane[l]);
    for (const int e : {2 * l + 1, 2 * l}) {
      x = flush(std::fma(flushed_bfloat16(a.lane[e]), flushed_bfloat16(b.lane[e]), x));
    }
    return x;
  });
}

// The tile registers of this thread: any use beyond what was configured is an error.
struct TileRegisters {
  bool configured = false;
  int rows[8], row_bytes[8];
  unsigned char data[8][16][64];
};

inline thread_local TileRegisters tiles_for_tests;

inline TileRegisters& tiles() {
  CHECK(tiles_for_tests.configured);
  return tiles_for_tests;
}

inline void _tile_loadconfig(const void* configuration) {
  const auto* bytes = static_cast<const unsigned char*>(configuration);
  CHECK(bytes[0] == 1);
  for (int i = 1; i < 16; ++i) CHECK(bytes[i] == 0);
  auto& t = tiles_for_tests;
  t = {};
  t.configured = true;
  for (int i = 0; i < 8; ++i) {
    t.row_bytes[i] = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i];
    t.rows[i] = bytes[48 + i];
    CHECK(t.row_bytes[i] <= 64 && t.rows[i] <= 16);
    CHECK((t.row_bytes[i] == 0) == (t.rows[i] == 0));
    for (int unused = 8; unused < 16; ++unused) CHECK(bytes[16 + 2 * unused] == 0);
  }
}

inline void _tile_release() { tiles_for_tests.configured = false; }

inline void _tile_zero(int tile) {
  CHECK(tiles().rows[tile] > 0);
  std::memset(tiles().data[tile], 0, sizeof tiles().data[tile]);
}

inline void _tile_loadd(int tile, const void* base, int64_t stride) {
  _tile_zero(tile);
  for (int r = 0; r < tiles().rows[tile]; ++r) {
    const auto* row = static_cast<const unsigned char*>(base) + r * stride;
    std::memcpy(tiles().data[tile][r], row, tiles().row_bytes[tile]);
  }
}

inline void _tile_stored(int tile, void* base, int64_t stride) {
  for (int r = 0; r < tiles().rows[tile]; ++r) {
    auto* row = static_cast<unsigned char*>(base) + r * stride;
    std::memcpy(row, tiles().data[tile][r], tiles().row_bytes[tile]);
  }
}

// TDPBF16PS: even and odd elements form two chains; their sum is added to the tile.
inline void _tile_dpbf16ps(int sum, int a, int b) {
  TileRegisters& t = tiles();
  CHECK(sum != a && sum != b && a != b && t.row_bytes[a] == 4 * t.rows[b]);
  CHECK(t.rows[sum] == t.rows[a] && t.row_bytes[sum] == t.row_bytes[b]);
  const auto element = [&](int tile, int row, int e) {
    return flushed_bfloat16(
        static_cast<uint16_t>(t.data[tile][row][2 * e] + 256 * t.data[tile][row][2 * e + 1]));
  };
  for (int m = 0; m < t.rows[sum]; ++m) {
    for (int n = 0; n < t.row_bytes[sum] / 4; ++n) {
      float chain[2] = {0, 0}, total;
      for (int k = 0; k < t.rows[b]; ++k) {
        for (int odd = 0; odd < 2; ++odd) {
          chain[odd] =
              flush(std::fma(element(a, m, 2 * k + odd), element(b, k, 2 * n + odd), chain[odd]));
        }
      }
      std::memcpy(&total, t.data[sum][m] + 4 * n, sizeof total);
      total = flush(flush(total) + flush(chain[0] + chain[1]));
      std::memcpy(t.data[sum][m] + 4 * n, &total, sizeof total);
    }
  }
}

}  // namespace
}  // namespace usucl::cpu

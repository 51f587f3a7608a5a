// The kernels of bfloat16.h. Included by avx512_bf16.cpp, and by tests that replace every
// intrinsic.
#pragma once

#include "bfloat16.h"
#include "pack.h"
#include "tile.h"

namespace usucl::cpu {
namespace {

constexpr int kPairLanes = 16;  // 32-bit pairs, or float32 sums, in a register

// The same bits as another register type.
template <typename To, typename From>
To reread(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Not inlined, for the same reason as score_tile.
template <int kAnchors, int kRegisters>
[[gnu::noinline]] bool nominate_tile(const uint32_t* anchors, const uint32_t* keys, int64_t steps,
                                     const float* limit, float* dot_product, uint64_t* hits) {
  constexpr int kKeys = kRegisters * kPairLanes;
  __m512 sum[kAnchors][kRegisters];
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) sum[i][r] = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < steps; ++s) {
    __m512bh key[kRegisters];
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      key[r] = reread<__m512bh>(_mm512_loadu_si512(keys + s * kKeys + r * kPairLanes));
    }
#pragma GCC unroll 12
    for (int i = 0; i < kAnchors; ++i) {
      const auto pair = _mm512_set1_epi32(static_cast<int>(anchors[s * kAnchors + i]));
#pragma GCC unroll 4
      for (int r = 0; r < kRegisters; ++r) {
        sum[i][r] = _mm512_dpbf16_ps(sum[i][r], reread<__m512bh>(pair), key[r]);
      }
    }
  }
  uint32_t any = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    const auto bound = _mm512_set1_ps(limit[i]);
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) any |= _mm512_cmp_ps_mask(sum[i][r], bound, _CMP_GT_OQ);
  }
  if (any == 0) return false;
#pragma GCC unroll 12
  for (int i = 0; i < kAnchors; ++i) {
    const auto bound = _mm512_set1_ps(limit[i]);
    uint64_t hit = 0;
#pragma GCC unroll 4
    for (int r = 0; r < kRegisters; ++r) {
      hit |= uint64_t{_mm512_cmp_ps_mask(sum[i][r], bound, _CMP_GT_OQ)} << (r * kPairLanes);
      _mm512_storeu_ps(dot_product + i * kKeys + r * kPairLanes, sum[i][r]);
    }
    hits[i] = hit;
  }
  return true;
}

// Every tile register has 16 rows of 64 bytes. A row is an anchor in anchor tiles; a column is a
// key, as 16 pairs, in key tiles; sums have a row per anchor and a column per key. The registers
// are released at the end, so that no context switch saves them and no other code meets this
// configuration.
struct TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);
// Not on the stack: gcc believes that the instruction reads only the first 8 bytes.
constexpr TileConfiguration kTileConfiguration;

void begin_amx() { _tile_loadconfig(&kTileConfiguration); }

void end_amx() { _tile_release(); }

// 16 anchors x 48 keys. A product takes 16 cycles, loading a register 8: anchors are loaded once
// for three products.
[[gnu::noinline]] bool nominate_tile_amx(const uint32_t* anchors, const uint32_t* keys,
                                         int64_t steps, const float* limit, float* dot_product,
                                         uint64_t* hits) {
  constexpr int kAnchors = 16, kKeys = 3 * kPairLanes;
  constexpr int64_t kStride = kKeys * sizeof(float);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  for (int64_t s = 0; s < steps; s += kPairLanes) {
    _tile_loadd(3, anchors + s, steps * static_cast<int64_t>(sizeof(uint32_t)));
    _tile_loadd(4, keys + s * kKeys, kStride);
    _tile_dpbf16ps(0, 3, 4);
    _tile_loadd(5, keys + s * kKeys + kPairLanes, kStride);
    _tile_dpbf16ps(1, 3, 5);
    _tile_loadd(6, keys + s * kKeys + 2 * kPairLanes, kStride);
    _tile_dpbf16ps(2, 3, 6);
  }
  _tile_stored(0, dot_product, kStride);
  _tile_stored(1, dot_product + kPairLanes, kStride);
  _tile_stored(2, dot_product + 2 * kPairLanes, kStride);
  asm volatile("" ::: "memory");  // gcc's intrinsics do not declare their writes
  uint32_t any = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kAnchors; ++i) {
    const float* row = dot_product + i * kKeys;
    // A NaN in an anchor makes its whole row NaN; keys with NaN are not nominated.
    const auto greatest =
        _mm512_max_ps(_mm512_max_ps(_mm512_loadu_ps(row), _mm512_loadu_ps(row + kPairLanes)),
                      _mm512_loadu_ps(row + 2 * kPairLanes));
    any |= _mm512_cmp_ps_mask(greatest, _mm512_set1_ps(limit[i]), _CMP_GT_OQ);
  }
  if (any == 0) return false;
  for (int i = 0; i < kAnchors; ++i) {
    const auto bound = _mm512_set1_ps(limit[i]);
    uint64_t hit = 0;
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      const auto sum = _mm512_loadu_ps(dot_product + i * kKeys + r * kPairLanes);
      hit |= uint64_t{_mm512_cmp_ps_mask(sum, bound, _CMP_GT_OQ)} << (r * kPairLanes);
    }
    hits[i] = hit;
  }
  return true;
}

inline __m512 load_16(const float* p) { return _mm512_loadu_ps(p); }

inline __m512 upcast_16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline __m512 load_16(const BFloat16* p) {
  return upcast_16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline __m512 load_16(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Sums of squares of a row's elements, and of their rounding errors.
class Squares {
 public:
  Squares() : row_(_mm512_setzero_ps()), lost_(_mm512_setzero_ps()) {}

  void add(__m512 x) { row_ = _mm512_fmadd_ps(x, x, row_); }

  void add(__m512 x, __m512 rounded) {
    add(x);
    const auto lost = _mm512_sub_ps(x, rounded);
    lost_ = _mm512_fmadd_ps(lost, lost, lost_);
  }

  Norms norms() const {
    return {std::sqrt(_mm512_reduce_add_ps(row_)), std::sqrt(_mm512_reduce_add_ps(lost_))};
  }

 private:
  __m512 row_, lost_;
};

// Calls use(d, low, high) with elements d .. d + 15 and d + 16 .. d + 31 for d = 0, 32, ... of a
// row, with zeros beyond its end.
template <typename Element, typename Use>
void for_each_32(const Element* row, int64_t dim, const Use& use) {
  const int64_t whole = dim / 32 * 32;
  for (int64_t d = 0; d < whole; d += 32) use(d, load_16(row + d), load_16(row + d + 16));
  if (whole == dim) return;
  Element last[32] = {};
  std::memcpy(last, row + whole, (dim - whole) * sizeof(Element));
  use(whole, load_16(last), load_16(last + 16));
}

// NaN is kept, so that it reaches the caller.
inline void raise(float* most, float x) { *most = x > *most || x != x ? x : *most; }

inline void raise(Norms* most, Norms row) {
  raise(&most->row, row.row);
  raise(&most->lost, row.lost);
}

// A pair is moved as one float and never computed with.
template <int kWidth>
void pack_pairs(const void* const* rows, int count, int64_t pairs, uint32_t* panel) {
  static_assert(sizeof(float) == sizeof(uint32_t));
  pack_rows<float, kWidth>(rows, count, pairs, reinterpret_cast<float*>(panel));
}

template <int kWidth>
Norms pack_bfloat16(const void* const* rows, int count, int64_t dim, uint32_t* panel) {
  pack_pairs<kWidth>(rows, count, dim / 2, panel);
  Norms most{0, 0};
  for (int j = 0; j < count; ++j) {
    const auto* row = static_cast<const BFloat16*>(rows[j]);
    if (dim % 2 != 0) panel[dim / 2 * kWidth + j] = row[dim - 1].bits;
    Squares squares;
    for_each_32(row, dim, [&](int64_t, __m512 low, __m512 high) {
      squares.add(low);
      squares.add(high);
    });
    raise(&most, squares.norms());
  }
  return most;
}

// Rounds only as many dimensions of all rows at a time as stay in the nearest cache.
template <int kWidth, typename Element>
Norms pack_rounded(const void* const* rows, int count, int64_t dim, uint32_t* panel) {
  constexpr int64_t kBlock = 128;
  alignas(64) uint16_t rounded[kWidth][kBlock];
  const void* rounded_rows[kWidth];
  Squares squares[kWidth];
  for (int64_t begin = 0; begin < dim; begin += kBlock) {
    const int64_t width = dim - begin < kBlock ? dim - begin : kBlock;
    for (int j = 0; j < count; ++j) {
      for_each_32(static_cast<const Element*>(rows[j]) + begin, width,
                  [&](int64_t d, __m512 low, __m512 high) {
                    const auto bits = reread<__m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_storeu_si512(rounded[j] + d, bits);
                    squares[j].add(low, upcast_16(_mm512_castsi512_si256(bits)));
                    squares[j].add(high, upcast_16(_mm512_extracti64x4_epi64(bits, 1)));
                  });
      rounded_rows[j] = rounded[j];
    }
    pack_pairs<kWidth>(rounded_rows, count, (width + 1) / 2, panel + begin / 2 * kWidth);
  }
  Norms most{0, 0};
  for (int j = 0; j < count; ++j) raise(&most, squares[j].norms());
  return most;
}

template <int kWidth>
Norms pack_nominees(const void* const* rows, DType dtype, int count, int64_t dim, uint32_t* panel) {
  switch (dtype) {
    case DType::kBFloat16:
      return pack_bfloat16<kWidth>(rows, count, dim, panel);
    case DType::kFloat16:
      return pack_rounded<kWidth, Float16>(rows, count, dim, panel);
    default:
      return pack_rounded<kWidth, float>(rows, count, dim, panel);
  }
}

// 8 anchors x 3 registers of keys, like the tile of the chain.
constexpr BFloat16Kernels kBFloat16Avx512 = {
    8, 1, false, nullptr, nullptr, &nominate_tile<8, 3>, &pack_nominees<3 * kPairLanes>};

constexpr BFloat16Kernels kBFloat16Amx = {
    16, kPairLanes, true, &begin_amx, &end_amx, &nominate_tile_amx, &pack_nominees<3 * kPairLanes>};

}  // namespace
}  // namespace usucl::cpu

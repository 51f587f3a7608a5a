// Rows of embeddings, upcast and transposed. Included once by each tile_*.cpp, and compiled there
// for its instruction set.
#pragma once

#include <cstdint>

#include "../core/dtypes.h"

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
#include <immintrin.h>
#endif

namespace usucl::cpu {
namespace {

template <typename T, typename Element>
void pack_columns(const void* const* rows, int first, int count, int64_t begin, int64_t end,
                  T* panel, int64_t width) {
  for (int j = first; j < count; ++j) {
    const auto* row = static_cast<const Element*>(rows[j]);
    for (int64_t d = begin; d < end; ++d) {
      panel[d * width + j] = static_cast<T>(upcast(row[d]));
    }
  }
}

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
inline __m256 load_8(const float* p) { return _mm256_loadu_ps(p); }

inline __m256 load_8(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline __m256 load_8(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Eight rows x eight columns at a time. Two rows are interleaved, then pairs of them, then halves.
template <typename Element>
void pack_block_of_8(const void* const* rows, int64_t d, float* out, int64_t width) {
  __m256 row[8], pair[8], four[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) row[j] = load_8(static_cast<const Element*>(rows[j]) + d);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    pair[2 * j] = _mm256_unpacklo_ps(row[2 * j], row[2 * j + 1]);
    pair[2 * j + 1] = _mm256_unpackhi_ps(row[2 * j], row[2 * j + 1]);
  }
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    four[4 * j] = _mm256_shuffle_ps(pair[4 * j], pair[4 * j + 2], 0x44);
    four[4 * j + 1] = _mm256_shuffle_ps(pair[4 * j], pair[4 * j + 2], 0xee);
    four[4 * j + 2] = _mm256_shuffle_ps(pair[4 * j + 1], pair[4 * j + 3], 0x44);
    four[4 * j + 3] = _mm256_shuffle_ps(pair[4 * j + 1], pair[4 * j + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_ps(out + j * width, _mm256_permute2f128_ps(four[j], four[4 + j], 0x20));
    _mm256_storeu_ps(out + (4 + j) * width, _mm256_permute2f128_ps(four[j], four[4 + j], 0x31));
  }
}

template <typename Element, int kWidth>
void pack_rows(const void* const* rows, int count, int64_t dim, float* panel) {
  const int64_t whole = dim / 8 * 8;
  int j = 0;
  for (; j + 8 <= count; j += 8) {
    for (int64_t d = 0; d < whole; d += 8) {
      pack_block_of_8<Element>(rows + j, d, panel + d * kWidth + j, kWidth);
    }
  }
  pack_columns<float, Element>(rows, 0, j, whole, dim, panel, kWidth);
  pack_columns<float, Element>(rows, j, count, 0, dim, panel, kWidth);
}
#endif

template <typename Element, int kWidth, typename T>
void pack_rows(const void* const* rows, int count, int64_t dim, T* panel) {
  pack_columns<T, Element>(rows, 0, count, 0, dim, panel, kWidth);
}

template <typename T, int kWidth>
void pack_keys(const void* const* rows, DType dtype, int count, int64_t dim, T* panel) {
  switch (dtype) {
    case DType::kFloat32:
      return pack_rows<float, kWidth>(rows, count, dim, panel);
    case DType::kFloat64:
      return pack_columns<T, double>(rows, 0, count, 0, dim, panel, kWidth);
    case DType::kBFloat16:
      return pack_rows<BFloat16, kWidth>(rows, count, dim, panel);
    case DType::kFloat16:
      return pack_rows<Float16, kWidth>(rows, count, dim, panel);
  }
}

}  // namespace
}  // namespace usucl::cpu

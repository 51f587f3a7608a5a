// Upcasts, transposes and adds rows of embeddings. The file of each instruction set includes it
// once and compiles it for its target.
#pragma once

#include <cstdint>

#include "../../core/dtypes.h"

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
#include <immintrin.h>
#endif

namespace usucl::cpu {
namespace {

// Not inlined: if a panel's size is known, gcc reports overflows in iterations that never run.
template <typename T, typename Element>
[[gnu::noinline]] void pack_columns(const void* const* rows, int first, int count, int64_t begin,
                                    int64_t end, T* panel, int64_t width) {
  for (int j = first; j < count; ++j) {
    const auto* row = static_cast<const Element*>(rows[j]);
    for (int64_t d = begin; d < end; ++d) {
      panel[d * width + j] = static_cast<T>(upcast(row[d]));
    }
  }
}

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
inline __m128 load_4(const float* p) { return _mm_loadu_ps(p); }

inline __m128 load_4(const BFloat16* p) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16));
}

inline __m128 load_4(const Float16* p) {
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

// Eight rows x eight columns. Rows j and j + 4 share a register from the start, so that nothing has
// to cross its halves later: two rows are interleaved, then pairs of them.
template <typename Element>
void pack_block_of_8(const void* const* rows, int64_t d, float* out, int64_t width) {
  for (int64_t half = 0; half < 8; half += 4) {
    __m256 row[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto* low = static_cast<const Element*>(rows[j]) + d + half;
      const auto* high = static_cast<const Element*>(rows[j + 4]) + d + half;
      row[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(load_4(low)), load_4(high), 1);
    }
    const __m256 low_01 = _mm256_unpacklo_ps(row[0], row[1]);
    const __m256 high_01 = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 low_23 = _mm256_unpacklo_ps(row[2], row[3]);
    const __m256 high_23 = _mm256_unpackhi_ps(row[2], row[3]);
    float* column = out + half * width;
    _mm256_storeu_ps(column, _mm256_shuffle_ps(low_01, low_23, 0x44));
    _mm256_storeu_ps(column + width, _mm256_shuffle_ps(low_01, low_23, 0xee));
    _mm256_storeu_ps(column + 2 * width, _mm256_shuffle_ps(high_01, high_23, 0x44));
    _mm256_storeu_ps(column + 3 * width, _mm256_shuffle_ps(high_01, high_23, 0xee));
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

template <typename T, typename Element>
void add_scaled_elements(T weight, const Element* __restrict row, int64_t dim, T* __restrict sum) {
  for (int64_t d = 0; d < dim; ++d) sum[d] += weight * static_cast<T>(upcast(row[d]));
}

template <typename T>
void add_scaled(T weight, const void* row, DType dtype, int64_t dim, T* sum) {
  switch (dtype) {
    case DType::kFloat32:
      return add_scaled_elements(weight, static_cast<const float*>(row), dim, sum);
    case DType::kFloat64:
      return add_scaled_elements(weight, static_cast<const double*>(row), dim, sum);
    case DType::kBFloat16:
      return add_scaled_elements(weight, static_cast<const BFloat16*>(row), dim, sum);
    case DType::kFloat16:
      return add_scaled_elements(weight, static_cast<const Float16*>(row), dim, sum);
  }
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

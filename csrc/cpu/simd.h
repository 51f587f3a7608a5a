// One vector register per instruction set: what a score tile needs of it, nothing more.
//
// A file that wants the AVX2 or AVX-512 type defines USUCL_AVX2 or USUCL_AVX512 and compiles for
// that instruction set; everything is in an unnamed namespace, so that no linker can hand such
// code to a machine without it.
#pragma once

#include <cstdint>

#include "../core/scalar.h"

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
#include <immintrin.h>
#endif

namespace usucl {
namespace {

// Lanes of the plain C++ type: one. Serves every machine, and is the meaning of the others.
template <typename T>
struct Scalar {
  using Element = T;
  using Register = T;
  static constexpr int kLanes = 1;
  static Register zero() { return 0; }
  static Register load(const T* p) { return *p; }
  static void store(T* p, Register x) { *p = x; }
  static Register broadcast(T x) { return x; }
  static Register multiply_add(Register a, Register b, Register c) {
    return fused_multiply_add(a, b, c);
  }
  // Bit l is set where lane l of a is greater than that of b; NaN never is.
  static uint32_t greater(Register a, Register b) { return a > b ? 1u : 0u; }
};

#if defined(USUCL_AVX2)
struct Avx2Float {
  using Element = float;
  using Register = __m256;
  static constexpr int kLanes = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Register x) { _mm256_storeu_ps(p, x); }
  static Register broadcast(float x) { return _mm256_set1_ps(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  static uint32_t greater(Register a, Register b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
  }
};

struct Avx2Double {
  using Element = double;
  using Register = __m256d;
  static constexpr int kLanes = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Register x) { _mm256_storeu_pd(p, x); }
  static Register broadcast(double x) { return _mm256_set1_pd(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_pd(a, b, c);
  }
  static uint32_t greater(Register a, Register b) {
    return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)));
  }
};
#endif

#if defined(USUCL_AVX512)
struct Avx512Float {
  using Element = float;
  using Register = __m512;
  static constexpr int kLanes = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Register x) { _mm512_storeu_ps(p, x); }
  static Register broadcast(float x) { return _mm512_set1_ps(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  static uint32_t greater(Register a, Register b) {
    return static_cast<uint32_t>(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ));
  }
};

struct Avx512Double {
  using Element = double;
  using Register = __m512d;
  static constexpr int kLanes = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, Register x) { _mm512_storeu_pd(p, x); }
  static Register broadcast(double x) { return _mm512_set1_pd(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_pd(a, b, c);
  }
  static uint32_t greater(Register a, Register b) {
    return static_cast<uint32_t>(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ));
  }
};
#endif

}  // namespace
}  // namespace usucl

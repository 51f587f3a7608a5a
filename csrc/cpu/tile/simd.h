// One vector register type per instruction set, with only what a score tile needs.
//
// A file that wants the AVX2 or AVX-512 type defines USUCL_AVX2 or USUCL_AVX512 and compiles for
// that instruction set. Everything is in an unnamed namespace, so that no linker can hand such code
// to a machine without it.
#pragma once

#include <cstdint>

#include "../../core/scalar.h"

#if defined(USUCL_AVX2) || defined(USUCL_AVX512)
#include <immintrin.h>
#endif

namespace usucl {
namespace {

// Plain C++ with any number of lanes: runs on every machine and is the reference for the others.
template <typename T, int kWidth>
struct PlainLanes {
  using Element = T;
  struct Register {
    T lane[kWidth];
  };
  using Mask = uint32_t;
  static constexpr int kLanes = kWidth;

  template <typename Value>
  static Register each(const Value& value) {
    Register x;
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; ++l) x.lane[l] = value(l);
    return x;
  }
  static Register zero() {
    return each([](int) { return T(0); });
  }
  static Register load(const T* p) {
    return each([p](int l) { return p[l]; });
  }
  static void store(T* p, const Register& x) {
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; ++l) p[l] = x.lane[l];
  }
  static Register broadcast(T x) {
    return each([x](int) { return x; });
  }
  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return each([&](int l) { return fused_multiply_add(a.lane[l], b.lane[l], c.lane[l]); });
  }
  // Bit l is set if lane l of a is greater than lane l of b; never for NaN.
  static Mask greater(const Register& a, const Register& b) {
    Mask mask = 0;
#pragma GCC unroll 16
    for (int l = 0; l < kWidth; ++l) mask |= (a.lane[l] > b.lane[l] ? 1u : 0u) << l;
    return mask;
  }
  static Mask none() { return 0; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static uint32_t bits(Mask mask) { return mask; }
};

#if defined(USUCL_AVX2)
struct Avx2Float {
  using Element = float;
  using Register = __m256;
  using Mask = __m256;
  static constexpr int kLanes = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Register x) { _mm256_storeu_ps(p, x); }
  static Register broadcast(float x) { return _mm256_set1_ps(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  static Mask greater(Register a, Register b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static Mask none() { return _mm256_setzero_ps(); }
  static Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static uint32_t bits(Mask mask) { return static_cast<uint32_t>(_mm256_movemask_ps(mask)); }
};

struct Avx2Double {
  using Element = double;
  using Register = __m256d;
  using Mask = __m256d;
  static constexpr int kLanes = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Register x) { _mm256_storeu_pd(p, x); }
  static Register broadcast(double x) { return _mm256_set1_pd(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_pd(a, b, c);
  }
  static Mask greater(Register a, Register b) { return _mm256_cmp_pd(a, b, _CMP_GT_OQ); }
  static Mask none() { return _mm256_setzero_pd(); }
  static Mask either(Mask a, Mask b) { return _mm256_or_pd(a, b); }
  static uint32_t bits(Mask mask) { return static_cast<uint32_t>(_mm256_movemask_pd(mask)); }
};
#endif

#if defined(USUCL_AVX512)
struct Avx512Float {
  using Element = float;
  using Register = __m512;
  using Mask = uint32_t;
  static constexpr int kLanes = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Register x) { _mm512_storeu_ps(p, x); }
  static Register broadcast(float x) { return _mm512_set1_ps(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  static Mask greater(Register a, Register b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static Mask none() { return 0; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static uint32_t bits(Mask mask) { return mask; }
};

struct Avx512Double {
  using Element = double;
  using Register = __m512d;
  using Mask = uint32_t;
  static constexpr int kLanes = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, Register x) { _mm512_storeu_pd(p, x); }
  static Register broadcast(double x) { return _mm512_set1_pd(x); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_pd(a, b, c);
  }
  static Mask greater(Register a, Register b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static Mask none() { return 0; }
  static Mask either(Mask a, Mask b) { return a | b; }
  static uint32_t bits(Mask mask) { return mask; }
};
#endif

}  // namespace
}  // namespace usucl

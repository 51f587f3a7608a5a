// The tiles of tile_avx512.cpp, and nomination by bfloat16 dot products for float16 and bfloat16
// keys.
// Shared headers come first, so that no function of theirs is compiled for AVX-512.
#include "../core/dtypes.h"
#include "../core/scalar.h"
#include "nominate.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX512
#define USUCL_AVX512_BF16
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bf16,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16,avx2,fma,f16c")
#endif
#endif

#include "nominate_kernels.h"
#include "tile_kernels.h"

namespace usucl::cpu {

#if defined(USUCL_AVX512)
namespace {

TileKernels<float> with_nomination() {
  TileKernels<float> kernels = kTileKernels<Avx512Float, 8, 3>;
  kernels.nominate = &kNominateKernels<Avx512Pairs, 8, 3>;
  return kernels;
}

}  // namespace
#endif

template <>
const TileKernels<float>* CompiledTiles<float>::avx512_bf16() {
#if defined(USUCL_AVX512)
  static const TileKernels<float> kernels = with_nomination();
  return &kernels;
#else
  return nullptr;
#endif
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx512_bf16() {
#if defined(USUCL_AVX512)
  return &kTileKernels<Avx512Double, 8, 3>;
#else
  return nullptr;
#endif
}

}  // namespace usucl::cpu

#if defined(USUCL_AVX512)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

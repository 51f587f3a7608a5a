// The score tile for AVX2 with FMA: 4 anchors x 3 registers of keys, all 16 registers in use.
// Shared headers come first, so that no function of theirs is compiled for AVX2.
#include "../core/dtypes.h"
#include "../core/scalar.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX2
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#endif

#include "tile_kernels.h"

namespace usucl::cpu {

template <>
const TileKernels<float>* CompiledTiles<float>::avx2() {
#if defined(USUCL_AVX2)
  return &kTileKernels<Avx2Float, 4, 3>;
#else
  return nullptr;
#endif
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx2() {
#if defined(USUCL_AVX2)
  return &kTileKernels<Avx2Double, 4, 3>;
#else
  return nullptr;
#endif
}

}  // namespace usucl::cpu

#if defined(USUCL_AVX2)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

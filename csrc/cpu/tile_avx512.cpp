// The score tile for AVX-512: 12 anchors x 2 registers of keys, 27 of 32 registers in use.
// Shared headers come first, so that no function of theirs is compiled for AVX-512.
#include "../core/scalar.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX512
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,fma")
#endif
#endif

#include "tile_kernels.h"

namespace usucl::cpu {

template <>
const TileKernels<float>* CompiledTiles<float>::avx512() {
#if defined(USUCL_AVX512)
  return &kTileKernels<Avx512Float, 12, 2>;
#else
  return nullptr;
#endif
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx512() {
#if defined(USUCL_AVX512)
  return &kTileKernels<Avx512Double, 12, 2>;
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

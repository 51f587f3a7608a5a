// The tiles of tile_avx512.cpp, and nomination by bfloat16 dot products: of AVX512-BF16, and of
// AMX, whose instructions no compiler uses but where it is told to. Shared headers come first, so
// that no function of theirs is compiled for AVX-512.
#include "../core/dtypes.h"
#include "../core/scalar.h"
#include "nominate.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX512
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(                                                      \
    __attribute__((target("avx512f,avx512bf16,amx-tile,amx-bf16,avx2,fma,f16c"))), \
    apply_to = function)
#else
// gcc 12 warns of what its own intrinsics leave undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16,amx-tile,amx-bf16,avx2,fma,f16c")
#endif
#endif

#if defined(USUCL_AVX512)
#include "nominate_kernels.h"
#endif
#include "tile_kernels.h"

namespace usucl::cpu {

#if defined(USUCL_AVX512)
namespace {

constexpr TileKernels<float> with(const NominateKernels& nominate) {
  TileKernels<float> kernels = kTileKernels<Avx512Float, 8, 3>;
  kernels.nominate = &nominate;
  return kernels;
}

// Constants: nothing of this file runs before the processor is known.
constexpr TileKernels<float> kAvx512Bf16 = with(kNominateAvx512), kAmx = with(kNominateAmx);

}  // namespace

template <>
const TileKernels<float>* CompiledTiles<float>::avx512_bf16() {
  return &kAvx512Bf16;
}

template <>
const TileKernels<float>* CompiledTiles<float>::amx() {
  return &kAmx;
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx512_bf16() {
  return &kTileKernels<Avx512Double, 8, 3>;
}

template <>
const TileKernels<double>* CompiledTiles<double>::amx() {
  return &kTileKernels<Avx512Double, 8, 3>;
}

}  // namespace usucl::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

template <>
const TileKernels<float>* CompiledTiles<float>::avx512_bf16() {
  return nullptr;
}

template <>
const TileKernels<float>* CompiledTiles<float>::amx() {
  return nullptr;
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx512_bf16() {
  return nullptr;
}

template <>
const TileKernels<double>* CompiledTiles<double>::amx() {
  return nullptr;
}

}  // namespace usucl::cpu
#endif

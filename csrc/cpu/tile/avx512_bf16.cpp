// The tiles of avx512.cpp, with nomination by bfloat16 dot products: AVX512-BF16, or AMX, whose
// instructions no compiler uses by itself.
#include "../../core/dtypes.h"
#include "../../core/scalar.h"
#include "bfloat16.h"
#include "tile.h"

#if defined(__x86_64__)
#if !defined(__clang__)
// gcc 12 warns about what its own intrinsics leave undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define USUCL_AVX512
#define USUCL_TARGET "avx512f,avx512bf16,amx-tile,amx-bf16,avx2,fma,f16c"
#include "target_begin.h"
// Must come after the target.
#include "bfloat16_kernels.h"
#endif
#include "tile_kernels.h"

namespace usucl::cpu {

#if defined(USUCL_AVX512)
namespace {

constexpr TileKernels<float> with(const BFloat16Kernels& nominate) {
  TileKernels<float> kernels = kTileKernels<Avx512Float, 8, 3>;
  kernels.bfloat16 = &nominate;
  return kernels;
}

// Must be constants: nothing in this file may run before the processor is known.
constexpr TileKernels<float> kAvx512Bf16 = with(kBFloat16Avx512), kAmx = with(kBFloat16Amx);

}  // namespace
#endif

template <>
const TileKernels<float>* CompiledTiles<float>::avx512_bf16() {
#if defined(USUCL_AVX512)
  return &kAvx512Bf16;
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

template <>
const TileKernels<float>* CompiledTiles<float>::amx() {
#if defined(USUCL_AVX512)
  return &kAmx;
#else
  return nullptr;
#endif
}

template <>
const TileKernels<double>* CompiledTiles<double>::amx() {
#if defined(USUCL_AVX512)
  return &kTileKernels<Avx512Double, 8, 3>;
#else
  return nullptr;
#endif
}

}  // namespace usucl::cpu

#if defined(USUCL_AVX512)
#include "target_end.h"
#endif

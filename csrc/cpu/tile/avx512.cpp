// The score tile for AVX-512: 8 anchors x 3 registers of keys, 28 of 32 registers in use.
#include "../../core/dtypes.h"
#include "../../core/scalar.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX512
#define USUCL_TARGET "avx512f,avx2,fma,f16c"
#include "target_begin.h"
#endif

#include "tile_kernels.h"

namespace usucl::cpu {

template <>
const TileKernels<float>* CompiledTiles<float>::avx512() {
#if defined(USUCL_AVX512)
  return &kTileKernels<Avx512Float, 8, 3>;
#else
  return nullptr;
#endif
}

template <>
const TileKernels<double>* CompiledTiles<double>::avx512() {
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

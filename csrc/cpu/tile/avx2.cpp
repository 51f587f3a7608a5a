// The score tile for AVX2 with FMA: 4 anchors x 3 registers of keys, all 16 registers in use.
#include "../../core/dtypes.h"
#include "../../core/scalar.h"
#include "tile.h"

#if defined(__x86_64__)
#define USUCL_AVX2
#define USUCL_TARGET "avx2,fma,f16c"
#include "target_begin.h"
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
#include "target_end.h"
#endif

// The score tile in plain C++: the meaning of the others, and all of it on other processors.
#include "tile_kernels.h"

namespace usucl::cpu {

template <>
const TileKernels<float>* CompiledTiles<float>::portable() {
  return &kTileKernels<Scalar<float>, 4, 4>;
}

template <>
const TileKernels<double>* CompiledTiles<double>::portable() {
  return &kTileKernels<Scalar<double>, 4, 4>;
}

}  // namespace usucl::cpu

// The score tile in plain C++: the meaning of the others, and all of it on other processors.
#include "tile_kernels.h"

namespace usucl::cpu {

template <>
const TileKernels<float>* CompiledTiles<float>::portable() {
  return &kTileKernels<PlainLanes<float, 4>, 4, 2>;
}

template <>
const TileKernels<double>* CompiledTiles<double>::portable() {
  return &kTileKernels<PlainLanes<double, 2>, 4, 2>;
}

}  // namespace usucl::cpu

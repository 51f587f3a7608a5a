// The score tile in plain C++: the reference for the others, and the one other processors use.
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

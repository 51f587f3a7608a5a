// The innermost step of the selection: a tile of anchors x keys, scored in registers and compared
// there with one threshold an anchor.
#pragma once

#include <cstdint>

namespace usucl::cpu {

// Bounds of every instruction set's tile, for buffers on the stack.
constexpr int kMaxTileAnchors = 12;
constexpr int kMaxTileKeys = 32;

// One instruction set's tile for element type T. Panels are transposed: anchors [D, tile_anchors],
// keys [D, tile_keys], so that both are read in order.
template <typename T>
struct TileKernels {
  int tile_anchors;
  int tile_keys;

  // Similarities of all pairs of the tile. If any exceeds its anchor's threshold, writes
  // similarity [tile_anchors, tile_keys] and hits [tile_anchors] (bit j: key j exceeds it) and
  // returns true; else writes nothing.
  bool (*score_tile)(const T* anchors, const T* keys, int64_t dim, const T* threshold,
                     T* similarity, uint32_t* hits);

  // Similarities of one anchor [D] and the keys of one panel. similarity [tile_keys]
  void (*score_row)(const T* anchor, const T* keys, int64_t dim, T* similarity);
};

enum class Capability { kPortable, kAvx2, kAvx512 };

const char* name(Capability capability);

// The best this machine runs, or the lesser one that USUCL_CPU_CAPABILITY names. Read once.
Capability capability_in_use();
bool runs_here(Capability capability);

template <typename T>
const TileKernels<T>& tile_kernels(Capability capability);

// Defined one file an instruction set; null where the compiler cannot build for it.
template <typename T>
struct CompiledTiles {
  static const TileKernels<T>* portable();
  static const TileKernels<T>* avx2();
  static const TileKernels<T>* avx512();
};

}  // namespace usucl::cpu

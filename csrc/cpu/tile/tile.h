// The innermost step of the search: scores a tile of anchors x keys in registers and compares it
// there with one limit per anchor.
#pragma once

#include <cstdint>

#include "../../core/dtypes.h"

namespace usucl::cpu {

// Upper bounds of every instruction set's tile, for buffers on the stack.
constexpr int kMaxTileAnchors = 8;
constexpr int kMaxNominatedAnchors = 16;
constexpr int kMaxTileKeys = 48;
constexpr int kMaxPairs = 16;

struct BFloat16Kernels;  // bfloat16.h

// The kernels of one instruction set for accumulation type T. Panels are transposed: anchors
// [D, tile_anchors], keys [D, tile_keys], so that both are read in order.
template <typename T>
struct TileKernels {
  int tile_anchors;
  int tile_keys;

  // Similarities of all pairs of the tile, each one chain of fused multiply-adds over D. If any
  // exceeds its anchor's limit, writes similarity [tile_anchors, tile_keys] and hits [tile_anchors]
  // (bit j: key j exceeds it) and returns true; else writes nothing.
  bool (*score_tile)(const T* anchors, const T* keys, int64_t dim, const T* limit, T* similarity,
                     uint64_t* hits);

  // Similarities of `pairs` pairs of rows that lie anywhere, by the same chain. similarity [pairs]
  int pairs;
  void (*score_pairs)(const void* const* anchors, DType anchor_dtype, const void* const* keys,
                      DType key_dtype, int64_t dim, T* similarity);

  // Upcasts rows [count <= tile_keys] of D elements each and transposes them into a key panel;
  // columns from `count` on are left undefined.
  void (*pack_keys)(const void* const* rows, DType dtype, int count, int64_t dim, T* panel);

  // sum [D] += weight * row, multiplied and added in T with two roundings, as on every machine.
  void (*add_scaled)(T weight, const void* row, DType dtype, int64_t dim, T* sum);

  // `rounds` times fused_per_round independent fused multiply-adds in T and nothing else, to
  // measure the peak of the processor.
  T (*multiply_adds)(int64_t rounds);
  int fused_per_round;

  // Null if there are no bfloat16 dot products or T is double.
  const BFloat16Kernels* bfloat16;
};

// Each is defined in its instruction set's file; null if the compiler cannot build for it.
template <typename T>
struct CompiledTiles {
  static const TileKernels<T>* portable();
  static const TileKernels<T>* avx2();
  static const TileKernels<T>* avx512();
  static const TileKernels<T>* avx512_bf16();
  static const TileKernels<T>* amx();
};

}  // namespace usucl::cpu

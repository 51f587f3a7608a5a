// Tiles of anchors and keys on their way through shared memory to the tensor cores.
#pragma once

#include "dense.h"

namespace usucl::cuda {

constexpr int kDenseThreads = 256;
// Thread blocks that a multiprocessor should hold. Before 9.0 its shared memory has room for one,
// and registers need not be saved.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr int kDenseBlocks = 2;
#else
constexpr int kDenseBlocks = 1;
#endif

// kTileKeys keys of one block, or fewer at its end.
struct KeyTile {
  const Frames* block;
  int64_t row;              // of the first, in the block
  int64_t first_index;      // of the block
  int32_t number_of_block;  // of those of its element type that are not empty
};

// Tiles are counted over the blocks of one element type only, in their order. Counted anew for
// every tile: there are few blocks, and what is remembered instead takes registers.
__device__ inline KeyTile key_tile(const Problem& problem, DType elements, int32_t number) {
  int64_t row = int64_t{number} * kTileKeys, first_index = 0;
  int32_t number_of_block = 0;
  const Frames* block = problem.blocks;
  for (;; first_index += block++->embedding.rows) {
    const Matrix& keys = block->embedding;
    if (keys.dtype != elements) continue;
    const int64_t padded = (keys.rows + kTileKeys - 1) / kTileKeys * kTileKeys;
    if (row < padded) return {block, row, first_index, number_of_block};
    row -= padded;
    if (padded > 0) ++number_of_block;
  }
}

// f(anchor tile, first tile of keys, how many) for all that this thread block has to do.
// Neighbours take the same keys at the same time.
template <typename Function>
__device__ void for_each_item(const DenseOperands& operands, const KeySplits& splits,
                              const Function& f) {
  const int32_t items = operands.anchor_tiles * splits.count;
  for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items; item += gridDim.x) {
    const int32_t first = item / operands.anchor_tiles * splits.tiles_each;
    f(item % operands.anchor_tiles, first, splits.tiles_of(first, operands.tiles));
  }
}

// The tags of a tile's keys, as far as cross-video negatives ask for them.
struct KeyTags {
  int64_t video[kTileKeys];  // negative: no key
  int64_t patient[kTileKeys];
  uint32_t first_index;  // of the first key

  __device__ void load(const KeyTile& tile, int key) {
    const int64_t row = tile.row + key;
    const bool there = row < tile.block->embedding.rows;
    const FrameTag tag = there ? tile.block->tag(row) : FrameTag{-1, 0, -1};
    video[key] = tag.video;
    patient[key] = tag.patient;
    if (key == 0) first_index = static_cast<uint32_t>(tile.first_index + tile.row);
  }
};

struct AnchorTags {
  int64_t video[kTileAnchors];
  int64_t patient[kTileAnchors];

  __device__ bool has_negative(int anchor, const KeyTags& keys, int key) const {
    if (keys.video[key] < 0 || keys.video[key] == video[anchor]) return false;
    return patient[anchor] < 0 || keys.patient[key] != patient[anchor];
  }
};

__device__ inline void load_anchor(AnchorTags& tags, int row, const Frames& anchors, int64_t i) {
  const bool there = i < anchors.embedding.rows;
  const FrameTag tag = there ? anchors.tag(i) : FrameTag{-1, 0, -1};
  tags.video[row] = tag.video;
  tags.patient[row] = tag.patient;
}

static_assert(kTileAnchors == kTileKeys);

// operands.stages chunks of keys, then of the anchors all chunks or likewise.
struct TileMemory {
  Chunk<kTileKeys> chunk[1];  // room for the others follows

  static int64_t bytes_beyond(const DenseOperands& operands) {
    const int32_t anchors = operands.resident ? operands.chunks : operands.stages;
    return static_cast<int64_t>(sizeof(Chunk<kTileKeys>)) * (operands.stages + anchors - 1);
  }
};

// Multiplies a tile of anchors with one tile of keys after the other. The warps lie over a tile as
// 2 x 4.
template <typename Elements>
class DenseSweep {
 public:
  using Product = WarpProduct<Elements>;

  __device__ DenseSweep(const Problem& problem, const DenseOperands& operands, TileMemory& memory)
      : problem_(problem), operands_(operands), memory_(memory) {}

  static __device__ int warp() { return static_cast<int>(threadIdx.x) / 32; }
  static __device__ int first_row() { return warp() / 4 * Product::kRows; }
  static __device__ int first_column() { return warp() % 4 * Product::kColumns; }

  // For `tiles` tiles of keys from number `first`: begin(tile, keys), after a barrier that all
  // warps have reached with what end() made of the tile before; then, after another barrier,
  // end(product) in every warp. Nobody may read the tiles of an earlier run any more.
  template <typename Begin, typename End>
  __device__ void run(int32_t anchor_tile, int32_t first, int32_t tiles, const Begin& begin,
                      const End& end) {
    const int chunks = operands_.chunks;
    Position ahead{0, 0, 0};
    const auto copy_next = [&] {
      if (ahead.tile < tiles) {
        copy_keys(key_tile(problem_, Elements::kDType, first + ahead.tile), ahead.chunk,
                  memory_.chunk[ahead.stage]);
        if (!operands_.resident) copy_anchors(anchor_tile, ahead.chunk, anchors_at(ahead));
        ahead.advance(operands_);
      }
      copy_async_commit();  // a group even if it is empty: they are counted
    };
    if (operands_.resident) {
      for (Position at{0, 0, 0}; at.chunk < chunks; ++at.chunk) {
        copy_anchors(anchor_tile, at.chunk, anchors_at(at));
      }
    }
    for (int stage = 0; stage + 1 < operands_.stages; ++stage) copy_next();

    for (Position at{0, 0, 0}; at.tile < tiles;) {
      wait_for_chunk();
      __syncthreads();
      begin(at.tile, key_tile(problem_, Elements::kDType, first + at.tile));
      const int32_t tile = at.tile;
      Product product;
      product.clear();
      for (;;) {
        copy_next();  // over the chunk that was multiplied last
        product.add(anchors_at(at), first_row(), memory_.chunk[at.stage], first_column());
        at.advance(operands_);
        if (at.tile != tile) break;
        wait_for_chunk();
        __syncthreads();
      }
      if (chunks == 1) __syncthreads();
      end(product);
    }
    copy_async_wait<0>();
  }

 private:
  struct Position {
    int32_t tile;  // of those of the run
    int32_t chunk;
    int32_t stage;

    __device__ void advance(const DenseOperands& operands) {
      if (++stage == operands.stages) stage = 0;
      if (++chunk < operands.chunks) return;
      chunk = 0;
      ++tile;
    }
  };

  __device__ Chunk<kTileAnchors>& anchors_at(const Position& at) const {
    return memory_.chunk[operands_.stages + (operands_.resident ? at.chunk : at.stage)];
  }

  // The one that is multiplied next; the others may be under way.
  __device__ void wait_for_chunk() const {
    if (operands_.stages == kMostStages) return copy_async_wait<kMostStages - 2>();
    copy_async_wait<kFewestStages - 2>();
  }

  static constexpr int kElementBytes = Elements::kBytes;
  static constexpr int kPieceElements = kPieceBytes / kElementBytes;

  __device__ void copy_anchors(int32_t tile, int chunk, Chunk<kTileAnchors>& to) const {
    const Piece* from = operands_.anchors +
                        int64_t{tile} * kTileAnchors * operands_.chunks * kChunkPieces +
                        chunk * kChunkPieces;
#pragma unroll 1  // beside the sums there are few registers
    for (int i = static_cast<int>(threadIdx.x); i < kTileAnchors * kChunkPieces;
         i += kDenseThreads) {
      const int row = i / kChunkPieces, piece = i % kChunkPieces;
      copy_async_16(&to.at(row, piece), from + row * operands_.chunks * kChunkPieces + piece, true);
    }
  }

  // Zeros beyond the last row and the last dimension.
  __device__ void copy_keys(const KeyTile& tile, int chunk, Chunk<kTileKeys>& to) const {
    const Matrix& keys = tile.block->embedding;
    const auto* data = static_cast<const unsigned char*>(keys.data);
    const int64_t row_bytes = keys.dim * kElementBytes;
    const bool aligned =
        row_bytes % kPieceBytes == 0 && reinterpret_cast<uintptr_t>(data) % kPieceBytes == 0;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kChunkPieces; i += kDenseThreads) {
      const int key = i / kChunkPieces, piece = i % kChunkPieces;
      const int64_t row = tile.row + key;
      const int64_t byte = int64_t{chunk} * kChunkBytes + piece * kPieceBytes;
      if (aligned) {
        const bool there = row < keys.rows && byte < row_bytes;
        const auto* from = there ? data + row * row_bytes + byte : data;
        copy_async_16(&to.at(key, piece), from, there);
      } else {
        to.at(key, piece) = gather(keys, row, byte / kElementBytes);
      }
    }
  }

  // A piece element by element, wherever it lies.
  __device__ static Piece gather(const Matrix& keys, int64_t row, int64_t column) {
    Piece piece{};
    if (row >= keys.rows) return piece;
    for (int e = 0; e < kPieceElements && column + e < keys.dim; ++e) {
      const int64_t offset = keys.offset(row, column + e);
      if (kElementBytes == 4) {
        piece.word[e] = static_cast<const uint32_t*>(keys.data)[offset];
      } else {
        const uint32_t bits = static_cast<const uint16_t*>(keys.data)[offset];
        piece.word[e / 2] |= bits << (e % 2 * 16);
      }
    }
    return piece;
  }

  const Problem& problem_;
  const DenseOperands& operands_;
  TileMemory& memory_;
};

}  // namespace usucl::cuda

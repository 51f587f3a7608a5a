// Tiles of anchors and keys on their way through shared memory to the tensor cores.
#pragma once

#include "dense.h"

namespace usucl::cuda {

constexpr int kDenseThreads = 256;
// The least number of thread blocks per multiprocessor. Before 9.0 shared memory has room for one,
// and registers need not be saved.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr int kDenseBlocks = 2;
#else
constexpr int kDenseBlocks = 1;
#endif

// Calls f(anchor tile, first tile of keys, number of tiles) for all work of this thread block.
// Neighbouring blocks take the same keys at the same time.
template <typename Function>
__device__ void for_each_item(int32_t anchor_tiles, int32_t tiles, const KeySplits& splits,
                              const Function& f) {
  const int32_t items = anchor_tiles * splits.count;
  for (int32_t item = static_cast<int32_t>(blockIdx.x); item < items; item += gridDim.x) {
    const int32_t first = item / anchor_tiles * splits.tiles_each;
    f(item % anchor_tiles, first, splits.tiles_of(first, tiles));
  }
}

static_assert(kTileAnchors == kTileKeys);

// operands.stages chunks of keys, then the anchors: all chunks if resident, else as many as of
// keys.
struct TileMemory {
  Chunk<kTileKeys> chunk[1];  // the others follow here

  static int64_t bytes_beyond(const DenseOperands& operands) {
    const int32_t anchors = operands.resident ? operands.chunks : operands.stages;
    return static_cast<int64_t>(sizeof(Chunk<kTileKeys>)) * (operands.stages + anchors - 1);
  }
};

// A tile's pieces per thread: the same piece of every kRowsAtOnce-th row.
constexpr int kRowsAtOnce = kDenseThreads / kChunkPieces;
constexpr int kRowsEach = kTileKeys / kRowsAtOnce;

__device__ inline int own_row(int n) {
  return static_cast<int>(threadIdx.x) / kChunkPieces + n * kRowsAtOnce;
}

__device__ inline int own_piece() { return static_cast<int>(threadIdx.x) % kChunkPieces; }

// The addresses of this thread's rows of a tile of consecutive keys; null if there is no key.
class TileRows {
 public:
  __device__ TileRows(const KeyTile& tile, int64_t row_bytes)
      : row_(tile.rows + own_row(0) * row_bytes),
        step_(kRowsAtOnce * row_bytes),
        left_(tile.count - own_row(0)) {}

  __device__ const unsigned char* operator[](int n) const {
    return n * kRowsAtOnce < left_ ? row_ + n * step_ : nullptr;
  }

 private:
  const unsigned char* row_;
  int64_t step_;
  int32_t left_;
};

// Multiplies a tile of anchors with one tile of keys after another. The warps cover a tile as
// 2 x 4.
template <typename Elements>
class DenseSweep {
 public:
  using Product = WarpProduct<Elements>;

  __device__ DenseSweep(const DenseOperands& operands, TileMemory& memory)
      : operands_(operands), memory_(memory) {}

  static __device__ int first_row() { return warp() / 4 * Product::kRows; }
  static __device__ int first_column() { return warp() % 4 * Product::kColumns; }

  // Runs tiles first .. first + tiles - 1; rows_of(number) gives the rows of a tile's keys. For
  // each tile it calls begin(number), after a barrier that follows end() of the previous tile in
  // all warps; then end(number, product) in every warp. A barrier separates the two unless there is
  // only one chunk. The tiles of an earlier run must no longer be in use.
  template <typename RowsOf, typename Begin, typename End>
  __device__ void run(int32_t anchor_tile, int32_t first, int32_t tiles, const RowsOf& rows_of,
                      const Begin& begin, const End& end) {
    const int chunks = operands_.chunks;
    Position ahead{0, 0, 0};
    auto rows = rows_of(first);
    const auto copy_next = [&] {
      if (ahead.tile < tiles) {
        copy_keys(rows, ahead.chunk, memory_.chunk[ahead.stage]);
        if (!operands_.resident) copy_anchors(anchor_tile, ahead.chunk, anchors_at(ahead));
        ahead.advance(operands_);
        // Requested here, the rows are there when their copies begin.
        if (ahead.chunk == 0 && ahead.tile < tiles) rows = rows_of(first + ahead.tile);
      }
      copy_async_commit();  // even if empty, because groups are counted
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
      const int32_t tile = at.tile;
      begin(first + tile);
      Product product;
      product.clear();
      for (;;) {
        copy_next();  // over the chunk multiplied last
        product.add(anchors_at(at), first_row(), memory_.chunk[at.stage], first_column());
        at.advance(operands_);
        if (at.tile != tile) break;
        wait_for_chunk();
        __syncthreads();
      }
      end(first + tile, product);
    }
    copy_async_wait<0>();
  }

 private:
  struct Position {
    int32_t tile;  // within the run
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

  // Waits for the next chunk to multiply; later ones may still be in flight.
  __device__ void wait_for_chunk() const {
    if (operands_.stages == kMostStages) return copy_async_wait<kMostStages - 2>();
    copy_async_wait<kFewestStages - 2>();
  }

  static constexpr int kElementBytes = Elements::kBytes;
  static constexpr int kPieceElements = kPieceBytes / kElementBytes;

  __device__ void copy_anchors(int32_t tile, int chunk, Chunk<kTileAnchors>& to) const {
    const int64_t pieces = int64_t{operands_.chunks} * kChunkPieces;
    const Piece* from =
        operands_.anchors + int64_t{tile} * kTileAnchors * pieces + chunk * kChunkPieces;
#pragma unroll
    for (int n = 0; n < kRowsEach; ++n) {
      copy_async_16(&to.at(own_row(n), own_piece()), from + own_row(n) * pieces + own_piece(),
                    true);
    }
  }

  // Writes zeros beyond the last row and the last dimension.
  template <typename Rows>
  __device__ void copy_keys(const Rows& rows, int chunk, Chunk<kTileKeys>& to) const {
    const int row_bytes = operands_.dim * kElementBytes;
    const int byte = chunk * kChunkBytes + own_piece() * kPieceBytes;
#pragma unroll
    for (int n = 0; n < kRowsEach; ++n) {
      const unsigned char* row = rows[n];
      Piece& place = to.at(own_row(n), own_piece());
      if (row_bytes % kPieceBytes == 0 && reinterpret_cast<uintptr_t>(row) % kPieceBytes == 0) {
        const bool there = row != nullptr && byte < row_bytes;
        copy_async_16(&place, there ? row + byte : static_cast<const void*>(operands_.anchors),
                      there);
      } else {
        place = gather(row, byte / kElementBytes);
      }
    }
  }

  // Reads a piece element by element, at any alignment.
  __device__ Piece gather(const unsigned char* row, int column) const {
    Piece piece{};
    if (row == nullptr) return piece;
    for (int e = 0; e < kPieceElements && column + e < operands_.dim; ++e) {
      if (kElementBytes == 4) {
        piece.word[e] = reinterpret_cast<const uint32_t*>(row)[column + e];
      } else {
        const uint32_t bits = reinterpret_cast<const uint16_t*>(row)[column + e];
        piece.word[e / 2] |= bits << (e % 2 * 16);
      }
    }
    return piece;
  }

  const DenseOperands& operands_;
  TileMemory& memory_;
};

}  // namespace usucl::cuda

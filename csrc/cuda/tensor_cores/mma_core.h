// Products of tiles on tensor cores: 64 anchors by 32 keys per warp, over 128 bytes of every row at
// a time, for any elements. A kernel sees only chunks, rows, columns and values.
//
// In shared memory a chunk holds 128 bytes of each row as 8 pieces of 16. Piece p of row r lies at
// place p ^ (r % 8). So the same piece of 8 adjacent rows, which one phase of ldmatrix reads, lies
// in 8 different groups of 4 banks; so do the 8 pieces of one row, which the copies write.
#pragma once

#include "../../core/dtypes.h"
#include "../warp.h"

namespace usucl::cuda {

constexpr int kPieceBytes = 16;
constexpr int kChunkPieces = 8;
constexpr int kChunkBytes = kPieceBytes * kChunkPieces;
constexpr int kGroup = 8;  // scores compared at once

struct alignas(kPieceBytes) Piece {
  uint32_t word[4];
};

// The offset in bytes from the beginning of the chunk.
__device__ inline uint32_t place_of_piece(int row, int piece) {
  return static_cast<uint32_t>(row * kChunkBytes + (piece ^ (row % kChunkPieces)) * kPieceBytes);
}

// Aligned and laid out as Hopper's TMA writes it and its warpgroups read it.
template <int kRows>
struct alignas(1024) Chunk {
  Piece piece[kRows][kChunkPieces];

  __device__ Piece& at(int row, int piece_of_row) {
    return piece[row][piece_of_row ^ (row % kChunkPieces)];
  }
};

template <int kRows>
__device__ const unsigned char* bytes_of_chunk(const Chunk<kRows>& chunk) {
  return reinterpret_cast<const unsigned char*>(&chunk);
}

// The first of the two neighbouring columns that a lane has of every eight.
__device__ inline int column_of_lane(int lane) { return lane % 4 * 2; }
__device__ inline int column_of_group(int group) { return group * kGroup * 4; }
__device__ inline int column_in_group(int of_group) { return of_group % 2 + of_group / 2 * 8; }

// What tensor cores multiply, accumulated in float32. All consume 32 bytes of a row at once.
struct BFloat16Elements {
  static constexpr DType kDType = DType::kBFloat16;
  static constexpr int kBytes = 2;
  static __device__ void mma(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_bfloat16(sum, a, b0, b1);
  }
};

struct Float16Elements {
  static constexpr DType kDType = DType::kFloat16;
  static constexpr int kBytes = 2;
  static __device__ void mma(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_float16(sum, a, b0, b1);
  }
};

// Tensor cores do not read the low 13 bits of a float32's mantissa.
struct TF32Elements {
  static constexpr DType kDType = DType::kFloat32;
  static constexpr int kBytes = 4;
  static __device__ void mma(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_tf32(sum, a, b0, b1);
  }
};

// The sums of one warp, 64 anchors x 32 keys, distributed over its lanes. A lane has kLaneRows of
// the rows and the same kLaneColumns in each of them.
template <typename Elements>
class WarpProduct {
 public:
  static constexpr int kRows = 64, kColumns = 32;
  static constexpr int kLaneRows = 8, kLaneColumns = 8;
  static constexpr int kGroups = kLaneColumns / kGroup;
  static constexpr int kWarpRows = kRows;  // rows whose sums this warp holds

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kRows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
        for (float& one : sum_[i][j]) one = 0;
      }
    }
  }

  // Adds the products of one chunk: anchors first_row + 0 .. 63 with keys first_key + 0 .. 31, both
  // multiples of 8.
  template <int kAnchors, int kKeys>
  __device__ void add(const Chunk<kAnchors>& anchors, int first_row, const Chunk<kKeys>& keys,
                      int first_key) {
    const int l = lane();
    // ldmatrix reads four matrices, 8 rows of 16 bytes each. For anchors the second is 8 rows below
    // the first, and the other two are one piece to the right; for keys the second is to the right.
    const uint32_t of_anchors = place_of_piece(first_row + l % 16, l / 16);
    const uint32_t of_keys = place_of_piece(first_key + l % 8 + l / 16 * 8, l / 8 % 2);
#pragma unroll
    for (int step = 0; step < kChunkPieces / 2; ++step) {
      // Two pieces further, swizzled: a step flips all bits of the piece but the lowest.
      const auto* anchor = bytes_of_chunk(anchors) + (of_anchors ^ step * 2 * kPieceBytes);
      const auto* key = bytes_of_chunk(keys) + (of_keys ^ step * 2 * kPieceBytes);
      uint32_t b[kColumns / 16][4];
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j) load_matrices(b[j], key + j * 16 * kChunkBytes);
#pragma unroll
      for (int i = 0; i < kRows / 16; ++i) {
        uint32_t a[4];
        load_matrices(a, anchor + i * 16 * kChunkBytes);
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j) {
          const uint32_t (&pair)[4] = b[j / 2];
          Elements::mma(sum_[i][j], a, pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
        }
      }
    }
  }

  // The lane's rows and columns among the warp's 64 rows and 32 columns.
  static __device__ int row(int of_lane) { return lane() / 4 + 8 * of_lane; }
  static __device__ int column(int of_lane) {
    return column_of_lane(lane()) + column_of_group(of_lane / kGroup) +
           column_in_group(of_lane % kGroup);
  }

  // The lane's rows, counted among the rows whose sums this warp holds.
  static __device__ int warp_row(int of_lane) { return row(of_lane); }
  static __device__ int row_of_warp(int warp_row) { return warp_row; }

  __device__ float value(int row_of_lane, int column_of_lane) const {
    return sum_[row_of_lane / 2][column_of_lane / 2][row_of_lane % 2 * 2 + column_of_lane % 2];
  }

 private:
  float sum_[kRows / 16][kColumns / 8][4];
};

// What follows takes this class or WarpgroupProduct (wgmma_core.h), whose threads hold other parts
// of the sums. In both, a column is the sum of an offset for the lane, one for the group of kGroup
// and one within the group.

// The greatest of kGroup neighbours that this thread has of a row; NaN is ignored.
template <typename Product>
__device__ float greatest(const Product& product, int row_of_lane, int group) {
  float greatest[kGroup];
#pragma unroll
  for (int c = 0; c < kGroup; ++c) greatest[c] = product.value(row_of_lane, group * kGroup + c);
  // Compares in pairs, so that none waits for another.
#pragma unroll
  for (int half = kGroup / 2; half > 0; half /= 2) {
#pragma unroll
    for (int c = 0; c < half; ++c) greatest[c] = fmaxf(greatest[c], greatest[c + half]);
  }
  return greatest[0];
}

// Calls f(row, column, value) for all values of this thread.
template <typename Product, typename Function>
__device__ void for_each(const Product& product, const Function& f) {
#pragma unroll
  for (int r = 0; r < Product::kLaneRows; ++r) {
#pragma unroll
    for (int c = 0; c < Product::kLaneColumns; ++c) {
      f(Product::row(r), Product::column(c), product.value(r, c));
    }
  }
}

}  // namespace usucl::cuda

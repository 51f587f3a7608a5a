// Products of tiles on Hopper's tensor cores: 64 anchors by 128 keys a warpgroup, over 128 bytes of
// every row at a time, whatever the elements are. A kernel sees chunks, rows, columns and values
// only. Products are asynchronous: add() begins them, wait() and finish() say until when.
#pragma once

#include "hopper.h"
#include "mma_core.h"

namespace usucl::cuda {

// 128 bytes of each row as 8 pieces of 16: piece p of row r at place p ^ (r % 8), as the TMA writes
// them.
template <int kRows>
struct alignas(kTileAlignment) WarpgroupChunk {
  static_assert(kRows % 8 == 0);
  uint32_t word[kRows * kTileRowBytes / 4];
};

// What tensor cores multiply, accumulated in float32. All take 32 bytes of a row at once.
struct WarpgroupBFloat16 {
  static constexpr DType kDType = DType::kBFloat16;
  static constexpr int kBytes = 2;
  static __device__ void multiply(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {
    wgmma_bfloat16(sum, a, b, add);
  }
};

struct WarpgroupFloat16 {
  static constexpr DType kDType = DType::kFloat16;
  static constexpr int kBytes = 2;
  static __device__ void multiply(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {
    wgmma_float16(sum, a, b, add);
  }
};

// Of a float32 the low 13 bits of the mantissa are not read.
struct WarpgroupTF32 {
  static constexpr DType kDType = DType::kFloat32;
  static constexpr int kBytes = 4;
  static __device__ void multiply(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {
    wgmma_tf32(sum, a, b, add);
  }
};

// The sums of one warpgroup, 64 anchors x 128 keys, spread over its threads. A thread has
// kLaneRows of the rows and in each of them the same kLaneColumns. All of the warpgroup's threads
// call clear(), add(), wait() and finish().
template <typename Elements>
class WarpgroupProduct {
 public:
  static constexpr int kRows = 64, kColumns = 128;
  static constexpr int kLaneRows = 2, kLaneColumns = 32;
  static constexpr int kGroups = kLaneColumns / kGroup;

  // Before the first product: it takes the place of the sums, which need no zeros.
  __device__ void clear() { add_ = false; }

  // Begins to add the products of one chunk: anchors first_row + 0 .. 63 with keys first_key + 0 ..
  // 127, both multiples of 8. Chunks are WarpgroupChunks.
  template <typename Anchors, typename Keys>
  __device__ void add(const Anchors& anchors, int first_row, const Keys& keys, int first_key) {
    static_assert(alignof(Anchors) % kTileAlignment == 0 && alignof(Keys) % kTileAlignment == 0);
    const auto* anchor = reinterpret_cast<const unsigned char*>(&anchors);
    const auto* key = reinterpret_cast<const unsigned char*>(&keys);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTileRowBytes / 32; ++step) {
      Elements::multiply(sum_, wgmma_operand(anchor + first_row * kTileRowBytes, step),
                         wgmma_operand(key + first_key * kTileRowBytes, step), add_ || step > 0);
    }
    wgmma_commit();
    add_ = true;
  }

  // Until at most kPending of the latest chunks are read: the others may be overwritten.
  template <int kPending>
  __device__ void wait() const {
    wgmma_wait<kPending>();
  }

  // Until the sums are there: before what follows, and before clear().
  __device__ void finish() { wgmma_wait<0>(sum_); }

  // Of the warpgroup's 64 rows and 128 columns, those of this thread.
  static __device__ int row(int of_lane) { return thread() / 32 * 16 + lane() / 4 + 8 * of_lane; }
  static __device__ int column(int of_lane) {
    return lane() % 4 * 2 + of_lane % 2 + of_lane / 2 * 8;
  }

  __device__ float value(int row_of_lane, int column_of_lane) const {
    return sum_[column_of_lane / 2 * 4 + row_of_lane * 2 + column_of_lane % 2];
  }

  // The greatest of kGroup neighbours of a row that this thread has; a NaN counts for nothing.
  __device__ float greatest(int row_of_lane, int group) const {
    float greatest = value(row_of_lane, group * kGroup);
#pragma unroll
    for (int c = 1; c < kGroup; ++c) {
      greatest = fmaxf(greatest, value(row_of_lane, group * kGroup + c));
    }
    return greatest;
  }

  // f(row, column, value) for all that this thread has.
  template <typename Function>
  __device__ void for_each(const Function& f) const {
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) {
#pragma unroll
      for (int c = 0; c < kLaneColumns; ++c) f(row(r), column(c), value(r, c));
    }
  }

 private:
  static __device__ int thread() { return static_cast<int>(threadIdx.x) % kWarpgroupThreads; }
  static __device__ int lane() { return thread() % 32; }

  bool add_ = false;
  float sum_[kWarpgroupSums];
};

}  // namespace usucl::cuda

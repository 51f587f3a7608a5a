// Products of tiles on Hopper's tensor cores: 64 anchors by 128 keys per warpgroup, over 128 bytes
// of every row at a time, for any elements. A kernel sees only chunks, rows, columns and values.
// Products are asynchronous: add() starts them, wait() and finish() wait for them.
#pragma once

#include "../hopper.h"
#include "mma_core.h"

namespace usucl::cuda {

template <typename Elements>
__device__ void multiply(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {
  if (Elements::kDType == DType::kBFloat16) return wgmma_bfloat16(sum, a, b, add);
  if (Elements::kDType == DType::kFloat16) return wgmma_float16(sum, a, b, add);
  wgmma_tf32(sum, a, b, add);
}

// The sums of one warpgroup, 64 kBlocks anchors x 128 keys, distributed over its threads. A thread
// has kLaneRows of the rows and the same kLaneColumns in each of them. All threads of the warpgroup
// call clear(), add(), wait() and finish().
template <typename Elements, int kBlocks = 1>
class WarpgroupProduct {
 public:
  static constexpr int kRows = 64 * kBlocks, kColumns = 128;
  static constexpr int kLaneRows = 2 * kBlocks, kLaneColumns = 32;
  static constexpr int kGroups = kLaneColumns / kGroup;
  static constexpr int kWarpRows = 16 * kBlocks;  // rows whose sums a warp holds

  // To be called before the first product: it overwrites the sums, so they need no zeros.
  __device__ void clear() { add_ = false; }

  // Starts adding the products of one chunk: anchors from first_row on with keys
  // first_key + 0 .. 127, both multiples of 8.
  template <int kAnchors, int kKeys>
  __device__ void add(const Chunk<kAnchors>& anchors, int first_row, const Chunk<kKeys>& keys,
                      int first_key) {
    static_assert(alignof(Chunk<kAnchors>) % kTileAlignment == 0);
    const auto* anchor = bytes_of_chunk(anchors) + first_row * kTileRowBytes;
    const auto* key = bytes_of_chunk(keys) + first_key * kTileRowBytes;
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTileRowBytes / 32; ++step) {
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        multiply<Elements>(sum_[block], wgmma_operand(anchor + block * 64 * kTileRowBytes, step),
                           wgmma_operand(key, step), add_ || step > 0);
      }
    }
    wgmma_commit();
    add_ = true;
  }

  // Waits until at most kPending of the latest chunks are unread: the others may be overwritten.
  template <int kPending>
  __device__ void wait() const {
    wgmma_wait<kPending>();
  }

  // Waits for the sums; to be called before using them and before clear().
  __device__ void finish() {
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) wgmma_wait<0>(sum_[block]);
  }

  // This thread's rows and columns among the warpgroup's rows and 128 columns.
  static __device__ int row(int of_lane) { return row_of_warp(warp_row(of_lane)); }
  static __device__ int column(int of_lane) {
    return column_of_lane(lane()) + column_of_group(of_lane / kGroup) +
           column_in_group(of_lane % kGroup);
  }

  // The thread's rows, counted among the rows whose sums this warp holds.
  static __device__ int warp_row(int of_lane) {
    return of_lane / 2 * 16 + lane() / 4 + of_lane % 2 * 8;
  }
  static __device__ int row_of_warp(int warp_row) {
    return warp_row / 16 * 64 + thread() / 32 * 16 + warp_row % 16;
  }

  __device__ float value(int row_of_lane, int column_of_lane) const {
    return sum_[row_of_lane / 2][column_of_lane / 2 * 4 + row_of_lane % 2 * 2 + column_of_lane % 2];
  }

 private:
  static __device__ int thread() { return static_cast<int>(threadIdx.x) % kWarpgroupThreads; }

  bool add_ = false;
  float sum_[kBlocks][kWarpgroupSums];
};

}  // namespace usucl::cuda

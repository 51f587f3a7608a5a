// A problem in the form that kernels take, and how they read its embeddings.
#pragma once

#include "../core/divide.h"
#include "../core/problem.h"
#include "../core/scalar.h"
#include "kernels.h"
#include "warp.h"

namespace usucl::cuda {

constexpr int kThreads = 128;  // of a thread block, except in the dense pass
// The least number of thread blocks per multiprocessor. The compiler would prefer more and spill
// registers: these numbers leave each thread the registers that it needs, 64 or 128 of T.
constexpr int kEasyBlocks = 8;
template <typename T>
constexpr int kHeavyBlocks = 16 / sizeof(T);
constexpr int kNearBlocks = 16;  // a quarter of the 4 KiB of kernel arguments

// Thread blocks for `count` items, `per_block` items each. The number is limited to a multiple of
// what the device runs at once, so every block loops.
inline int64_t grid_for(int64_t count, int64_t per_block, const Call& call) {
  constexpr int64_t kBlocksEach = 32;
  return std::min(ceil_divide(count, per_block), kBlocksEach * call.multiprocessors);
}

// A kernel argument. It contains the table of key blocks unless the table is too long.
struct DeviceProblem {
  Problem problem;  // blocks: in device memory, or null for near
  Frames near[kNearBlocks];

  // Valid as long as *this is.
  __device__ Problem view() const {
    Problem view = problem;
    if (view.blocks == nullptr) view.blocks = near;
    return view;
  }
};

// Has finished reading host memory when it returns.
DeviceProblem on_device(const Problem& problem, const Call& call);

// Continues the chain of core/similarity.h for kAnchors anchors at once, over anchor
// [width, kAnchors] and the elements of a row.
template <int kAnchors, typename T, typename Stored>
__device__ void continue_chains(T (&sum)[kAnchors], const T* anchor, const Stored* row, int width) {
  // Reads 16 bytes at a time: each lane reads its own row, so any load costs the same.
  constexpr int kOfPiece = 16 / sizeof(Stored);
  struct alignas(16) Elements {
    Stored value[kOfPiece];
  };
  const auto add = [&](int d, Stored stored) {
    const T value = static_cast<T>(upcast(stored));
#pragma unroll
    for (int a = 0; a < kAnchors; ++a) {
      sum[a] = fused_multiply_add(anchor[d * kAnchors + a], value, sum[a]);
    }
  };
  int d = 0;
  if (reinterpret_cast<uintptr_t>(row) % sizeof(Elements) == 0) {
#pragma unroll 4
    for (; d + kOfPiece <= width; d += kOfPiece) {
      const Elements elements = *reinterpret_cast<const Elements*>(row + d);
#pragma unroll
      for (int e = 0; e < kOfPiece; ++e) add(d + e, elements.value[e]);
    }
  }
#pragma unroll 8
  for (; d < width; ++d) add(d, row[d]);
}

template <int kAnchors, typename T>
__device__ void continue_chains(T (&sum)[kAnchors], const T* anchor, const Matrix& matrix,
                                int64_t row, int64_t start, int width) {
  const int64_t offset = matrix.offset(row, start);
  switch (matrix.dtype) {
    case DType::kFloat32:
      return continue_chains(sum, anchor, static_cast<const float*>(matrix.data) + offset, width);
    case DType::kFloat64:
      return continue_chains(sum, anchor, static_cast<const double*>(matrix.data) + offset, width);
    case DType::kBFloat16:
      return continue_chains(sum, anchor, static_cast<const BFloat16*>(matrix.data) + offset,
                             width);
    default:
      return continue_chains(sum, anchor, static_cast<const Float16*>(matrix.data) + offset, width);
  }
}

// The same for one anchor.
template <typename T>
__device__ T continue_chain(T sum, const T* anchor, const Matrix& matrix, int64_t row,
                            int64_t start, int width) {
  T sums[1] = {sum};
  continue_chains(sums, anchor, matrix, row, start, width);
  return sums[0];
}

}  // namespace usucl::cuda

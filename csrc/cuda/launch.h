// Launches, in plain C++.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace usucl::cuda {

constexpr int kThreads = 128;                   // of every thread block
constexpr int64_t kMaxGrid = int64_t{1} << 16;  // more work than that: every block loops

// Thread blocks for `count` items, `per_block` of them each.
inline int64_t grid_for(int64_t count, int64_t per_block) {
  return std::min((count + per_block - 1) / per_block, kMaxGrid);
}

// Asynchronous; nothing to do is no launch. The caller asks cudaGetLastError.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t grid, cudaStream_t stream,
            Arguments... arguments) {
  if (grid == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace usucl::cuda

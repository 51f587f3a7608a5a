// Threads, without PyTorch in sight: parallel.cpp lends PyTorch's own to the kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace usucl::cpu {

// Calls body(begin, end) for disjoint ranges that cover [0, count). body must not throw.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

int64_t num_threads();

// Items a thread should have at least, so that waking it costs less than what it saves.
inline int64_t grain_for(int64_t operations_per_item) {
  constexpr int64_t kWorthAThread = int64_t{1} << 18;
  return std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, operations_per_item));
}

}  // namespace usucl::cpu

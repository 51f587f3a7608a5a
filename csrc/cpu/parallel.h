// Threads without a PyTorch header: parallel.cpp lends PyTorch's own to the kernels.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

namespace usucl::cpu {

// Calls body(begin, end) for disjoint ranges that cover [0, count). Exceptions of body reach the
// caller.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

int64_t num_threads();

// The least items per thread for which waking it costs less than it saves.
inline int64_t grain_for(int64_t operations_per_item) {
  constexpr int64_t kWorthAThread = int64_t{1} << 18;
  return std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, operations_per_item));
}

// Calls body(task) for each of [0, count), handed out one by one to free threads because tasks
// differ in size. operations: the total of all tasks.
inline void parallel_tasks(int64_t count, int64_t operations,
                           const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::clamp<int64_t>(operations / grain_for(1), 1, num_threads());
  parallel_for(std::min(count, workers), 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < count; task = next++) body(task);
  });
}

}  // namespace usucl::cpu

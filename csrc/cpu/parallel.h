// Threads, without PyTorch in sight: parallel.cpp lends PyTorch's own to the kernels.
#pragma once

#include <cstdint>
#include <functional>

namespace usucl::cpu {

// Calls body(begin, end) for disjoint ranges that cover [0, count). body must not throw.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

int64_t num_threads();

}  // namespace usucl::cpu

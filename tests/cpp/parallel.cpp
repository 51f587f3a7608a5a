// Threads for tests without PyTorch; set_num_threads sets their number.
#include "cpu/parallel.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "parallel_for_tests.h"

namespace usucl::cpu {
namespace {
int64_t threads = 1;
}

void set_num_threads(int64_t count) { threads = count; }

int64_t num_threads() { return threads; }

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t shares = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, threads);
  if (shares == 1) return body(0, count);
  std::vector<std::thread> workers;
  for (int64_t i = 0; i < shares; ++i) {
    workers.emplace_back(body, count * i / shares, count * (i + 1) / shares);
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace usucl::cpu

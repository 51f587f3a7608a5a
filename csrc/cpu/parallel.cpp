#include "parallel.h"

#include <torch/csrc/stable/ops.h>

namespace usucl::cpu {

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, body);
}

int64_t num_threads() { return torch::stable::get_num_threads(); }

}  // namespace usucl::cpu
